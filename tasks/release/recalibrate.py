"""Effect recalibrate: the champion's model with other decision parameters, as a new release, for another mix of labels.

    mix           how labels occur now: as reviewers confirmed it, and as the scores of all other answers say
    shift         what the mix adds to log-probabilities (Saerens, Latinne and Decaestecker 2002)
    temperature   of least cross-entropy on valid and on the labels that came since, weighed as labels occur now
    threshold     by the rule of the stage evaluate (``evaluate.threshold``), on the same rows, within ``recall_loss``

Nothing is trained. Labels in the splits test and golden choose nothing: the gate judges by them. The drift reference is the
champion's, in the new mix. The same champion, answers and labels make the same bytes, and so the same release.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from service.decision import softmax
from service.release import Release
from service.store import release_folder
from tasks.data.feedback import collect
from tasks.files import atomic_write, read_json, write_json
from tasks.kinds import data_part
from tasks.lineage import sha256
from tasks.release.evaluation_set import SPLITS, kept, with_labels
from tasks.release.label_shift import (
    best_temperature,
    estimated_mix,
    highest_threshold,
    rows_in,
    shifted,
    weighted_mix,
    weights_in,
)
from tasks.release.package import seal
from tasks.release.threshold import RULES
from tasks.stage import Paths, Settings, StageError

CHOOSING = ("train", "valid")
"""Splits in which labels that came after the training may choose; of those that are older, valid alone may."""
REMARK = (
    "Threshold and scores were fitted anew to another mix of labels, without training: of the figures above, those that hang "
    "on them are of the release that it was made of."
)


class Recalibrate(Settings):
    least: int = Field(ge=1)
    """Confirmed labels since the training below which temperature and threshold are not chosen, and so nothing is made."""
    recall_loss: float = Field(ge=0, le=1)
    """So much of the positive label's recall, as the trained release has it on the rows that choose, a higher threshold
    may cost."""
    seed: int


@dataclass(frozen=True)
class Chosen:
    """The decision parameters of a recalibration, and what they were found from."""

    threshold: float
    temperature: float
    shift: npt.NDArray[np.float64]
    facts: dict[str, Any]
    """For the lineage: mix before and after, by what, on how many answers and labels."""


def recalibrate(
    settings: Recalibrate, paths: Paths, target: Path, release: str, answers: Sequence[Mapping[str, Any]], until: datetime
) -> dict[str, Any]:
    """Make ``target/release`` and ``target/data/prepared.parquet``, the rows that judge it; what was found, as facts.

    ``release`` is the one in the store that is to be recalibrated. ``answers`` are its journal records of the windows
    in which the mix has moved; of the feedback counts what was given before ``until``. Raises StageError where the
    rows that judged it are gone, or too few labels came since the training.
    """
    folder = release_folder(paths.store, release)
    champion, lineage = Release(folder), read_json(folder / "lineage.json")
    known = kept(paths, folder, release)
    feedback, _ = collect(paths.feedback, until, data_part(champion.kind).CONTENT)
    rows, new = with_labels(known, feedback, champion, lineage["params"], pd.Timestamp(until))
    trained = int(lineage.get("recalibrated", {}).get("rows_of_training", len(known)))
    if len(rows) - trained < settings.least:
        raise StageError(
            f"recalibrate.least = {settings.least}: {len(rows) - trained} confirmed labels came since the training"
        )
    fresh = pd.Series(np.arange(len(rows)) >= trained)
    before = _mix_before(lineage, known, champion.labels)
    mix, told = mix_of_now(champion, feedback, answers, before)
    chosen = choose(settings, champion, lineage, rows, fresh, (before, mix), read_json(folder / "settings.json"))
    facts = {"parent": release, "until": until.isoformat(), "new_labels": new, "rows_of_training": trained}
    facts |= {**told, **chosen.facts}
    judging = rows.split.isin(SPLITS)
    rows.loc[judging, "weight"] = weights_in(mix, *_labels_and_weights(rows[judging]))
    prepared = Paths(target).prepared
    with atomic_write(prepared) as temporary:
        rows.to_parquet(temporary, index=False)
    write(settings, folder, Paths(target).release, champion, chosen, facts, sha256(prepared))
    return facts


def mix_of_now(
    champion: Release, feedback: pd.DataFrame, answers: Sequence[Mapping[str, Any]], before: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], dict[str, int]]:
    """(share of each label among the answered inputs, on how many it is known, for the lineage).

    An input whose label is confirmed counts for that label, every other by its scores. ``before``: the mix that they are
    calibrated in. Raises StageError where there is no answer.
    """
    order = {label: number for number, label in enumerate(champion.labels)}
    confirmed = dict(zip(feedback.id, feedback.label, strict=True))
    own = [answer for answer in answers if answer["kind"] == "answer" and answer["release"] == champion.id]
    if not own:
        raise StageError(f"release {champion.id}: no answer of it is there to tell how labels occur now")
    known = [order[label] for answer in own if (label := confirmed.get(answer["id"])) in order]
    scores = [answer["probabilities"] for answer in own if confirmed.get(answer["id"]) not in order]
    counts = np.bincount(np.array(known, dtype=np.int64), minlength=len(order)).astype(np.float64)
    mix = estimated_mix(np.array(scores, dtype=np.float64).reshape(-1, len(order)), before, counts)
    return mix, {"answers": len(own), "of_which_labelled": len(known)}


def choose(
    settings: Recalibrate,
    champion: Release,
    lineage: Mapping[str, Any],
    rows: pd.DataFrame,
    fresh: pd.Series,
    mixes: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    stored: Mapping[str, Any],
) -> Chosen:
    """The decision parameters for another mix; ``mixes``: the one before, and the one of now.

    ``fresh``: labels that came since the model was trained. ``lineage`` and ``stored``, its settings, are the champion's.
    """
    before, mix = mixes
    choosing = rows[(rows.split == "valid") | (fresh & rows.split.isin(CHOOSING))]
    labels, base = _labels_and_weights(choosing)
    weights, logits = weights_in(mix, labels, base), champion.model.logits(list(choosing.input)).astype(np.float64)
    shift = shifted(champion.shift, before, mix)
    temperature = best_temperature(logits, shift, labels, weights)
    chosen_on = {"valid": int((~fresh[choosing.index]).sum()), "labels": int(fresh[choosing.index].sum())}
    facts = {"mix_before": _named(champion.labels, before), "mix": _named(champion.labels, mix), "chosen_on": chosen_on}
    if stored["positive"] is None:
        return Chosen(0.0, temperature, shift, facts)
    positive = champion.labels.index(stored["positive"])
    scores, hits = softmax(logits / temperature + shift)[:, positive], labels == positive
    margin = lineage.get("recalibrated", {}).get("margin_of_training", _margin(champion, stored["threshold"], positive))
    found = logits[:, positive] - logits[:, 1 - positive] >= margin
    recall = float(np.average(found[hits], weights=weights[hits])) if hits.any() else 0.0
    # Where a label becomes rare, the rule gives up much of it; and its rows, which are few, are drawn with luck. It is
    # the recall of what was trained that counts: else each recalibration would lose a little more.
    highest = highest_threshold(scores, hits, weights, recall - settings.recall_loss)
    rule = RULES[lineage["params"]["evaluate"]["threshold"]](scores, hits, weights)
    return Chosen(min(rule, highest), temperature, shift, facts | {"margin_of_training": float(margin)})


def _margin(release: Release, threshold: float, positive: int) -> float:
    """By how much the positive label's logit must exceed the other one for the release to answer it."""
    odds = float(np.log(max(threshold, 1e-12)) - np.log(max(1 - threshold, 1e-12)))
    return release.temperature * (odds - float(release.shift[positive] - release.shift[1 - positive]))


def write(
    settings: Recalibrate, folder: Path, target: Path, champion: Release, chosen: Chosen, facts: dict[str, Any], judged_by: str
) -> None:
    """Write and seal the release ``target``: the model of the one in ``folder``, and all that hangs on the parameters.

    ``judged_by`` is the SHA-256 of the rows that judge it.
    """
    found = {"threshold": chosen.threshold, "temperature": chosen.temperature, "shift": chosen.shift.tolist()}
    card, lineage = read_json(folder / "card.json"), read_json(folder / "lineage.json")
    card["limits"] = [*(limit for limit in card.get("limits", []) if limit != REMARK), REMARK]
    with atomic_write(target) as temporary:
        shutil.copytree(folder / "model", temporary / "model")
        write_json(temporary / "settings.json", read_json(folder / "settings.json") | found)
        write_json(
            temporary / "card.json",
            card | {"threshold": chosen.threshold, "created": facts["until"], "recalibrated": facts},
        )
        judges = lineage["data"] | {"prepared.parquet": judged_by}
        write_json(temporary / "lineage.json", lineage | {"data": judges, "recalibrated": facts})
        arrays: dict[str, Any] = reference_in(folder, champion, chosen, settings.seed)
        np.savez_compressed(temporary / "reference.npz", **arrays)
        write_json(temporary / "probes.json", _probes(folder, champion, chosen))
        seal(temporary)
        Release(temporary)  # as the service will load it


def reference_in(folder: Path, champion: Release, chosen: Chosen, seed: int) -> dict[str, npt.NDArray[Any]]:
    """The arrays of the champion's ``reference.npz``, as many of its rows as are in the new mix, with the new scores.

    The drift of the mix is then over: what was answered is compared with what is to be expected now.
    """
    with np.load(folder / "reference.npz") as stored:
        arrays: dict[str, npt.NDArray[Any]] = dict(stored)
    rows = rows_in(_mix(chosen.facts["mix"], champion.labels), arrays["label_ids"], seed)
    kept_rows = {name: array if name == "names" else array[rows] for name, array in arrays.items()}
    logs = np.log(np.clip(kept_rows["probabilities"].astype(np.float64), 1e-300, None))
    logits = (logs - champion.shift) * champion.temperature  # each row but for a constant, which no softmax sees
    return kept_rows | {"probabilities": softmax(logits / chosen.temperature + chosen.shift)}


def _probes(folder: Path, champion: Release, chosen: Chosen) -> dict[str, Any]:
    """The champion's probes with the scores that they get now."""
    packed: dict[str, Any] = read_json(folder / "probes.json")
    logits = champion.model.logits([champion.preprocess(raw) for raw in champion.probe_inputs()])
    answers = softmax(logits.astype(np.float64) / chosen.temperature + chosen.shift)
    entries = [{**probe, "probabilities": row.tolist()} for probe, row in zip(packed["probes"], answers, strict=True)]
    return packed | {"probes": entries}


def _mix_before(lineage: Mapping[str, Any], known: pd.DataFrame, labels: Sequence[str]) -> npt.NDArray[np.float64]:
    """The mix that a release's scores are calibrated in: its recalibration's, else that of valid, by the weights."""
    if "recalibrated" in lineage:
        return _mix(lineage["recalibrated"]["mix"], labels)
    return weighted_mix(*_labels_and_weights(known[known.split == "valid"]), len(labels))


def _mix(named: Mapping[str, float], labels: Sequence[str]) -> npt.NDArray[np.float64]:
    """The shares in the release's own order of labels; JSON has them in the alphabet's."""
    return np.array([named[label] for label in labels])


def _labels_and_weights(rows: pd.DataFrame) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    return rows.label_id.to_numpy(dtype=np.int64), rows.weight.to_numpy(dtype=np.float64)


def _named(labels: Sequence[str], mix: npt.NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(labels, map(float, mix), strict=True))
