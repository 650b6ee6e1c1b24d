"""The checks of the gate, one function each: a case in, a check with its figure, threshold, verdict and reason out.

A check that raises is a failed check (``tasks.release.gate`` sees to it), so none needs to expect what may be missing.
Comparisons are paired: both releases answer the same inputs, and whole near-duplicate groups are drawn.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from service.release import Release, verify
from tasks import metrics
from tasks.data.grouping import split_of
from tasks.data.sources import FEEDBACK
from tasks.files import folder_bytes, read_json
from tasks.release.case import Case, ReleaseScores
from tasks.release.label_noise import given_probabilities

if TYPE_CHECKING:
    from tasks.release.gate import Gate

FIRST = "bootstrap: there is no champion to compare with"
JUDGED_SPLITS = ("golden", "test", "valid", "future")


@dataclass(frozen=True)
class Check:
    """One question to the challenger."""

    name: str
    figure: float | None
    """What was measured; None where it could not be, and then the check failed."""
    threshold: float | None
    """What the figure had to reach, or not to exceed; None where nothing was asked of it."""
    passed: bool
    reason: str
    details: dict[str, Any] = field(default_factory=dict)
    """More for the JSON report: ids and figures, never an input."""


def manifest(case: Case, gate: Gate) -> Check:
    """Every file is the one that was sealed."""
    identity = verify(case.folder)
    listed = len(read_json(case.folder / "manifest.json")["files"])
    return Check("manifest", listed, None, True, f"{listed} files of {identity} have the SHA-256 that was sealed")


def probes(case: Case, gate: Gate) -> Check:
    """On this host the probes get the scores that they were packed with."""
    release, packed = case.challenger.release, read_json(case.folder / "probes.json")
    found = release.probabilities([release.preprocess(raw) for raw in release.probe_inputs()])
    worst = float(np.abs(found - np.array([probe["probabilities"] for probe in packed["probes"]])).max())
    reason = f"largest difference of {len(found)} probe scores on this host"
    return Check("probes", worst, packed["tolerance"], worst <= packed["tolerance"], reason)


def lineage(case: Case, gate: Gate) -> Check:
    """The rows that judge are the ones that the challenger says it was made from."""
    return Check("lineage", len(case.rows), None, True, f"{len(case.rows)} rows, the SHA-256 that lineage.json names")


def champion(case: Case, gate: Gate) -> Check:
    """There is a champion, and it is whole; or this is the first promotion, and somebody said so."""
    if case.bootstrap:
        passed = case.champion_folder is None
        return Check("champion", None, None, passed, FIRST if passed else "bootstrap is for a store without a champion")
    return Check("champion", None, None, True, f"the champion {case.champion.release.id} is whole")


def golden(case: Case, gate: Gate) -> Check:
    """Not worse than the champion on the golden rows, and good enough in itself."""
    rows, settings = case.golden, gate.golden
    weights = _weights(rows, gate)
    mine = _figures(settings.figure, case.challenged(rows), rows, weights, case.positive)
    least = f"{settings.figure} {mine[0]:.4f} on {len(rows)} golden rows, at least {settings.minimum:g} is asked"
    if not mine[0] >= settings.minimum:
        return Check("golden", float(mine[0]), settings.minimum, False, least)
    if case.bootstrap:
        return Check("golden", float(mine[0]), settings.minimum, True, f"{least}; {FIRST}")
    theirs = _figures(settings.figure, case.defended(rows), rows, weights, case.positive)
    said = f"{least}; {theirs[0]:.4f} the champion"
    return _not_worse("golden", mine - theirs, settings.margin, gate.confidence, said)


def window(case: Case, gate: Gate) -> Check:
    """Not more wrong answers than the champion on the newest labelled rows that neither learned from."""
    if case.bootstrap:
        return Check("window", None, None, True, FIRST)
    rows, settings = case.window, gate.window
    if len(rows) < settings.minimum:
        return Check("window", len(rows), settings.minimum, False, "too few labelled rows that neither learned from")
    fresh = f"{case.is_fresh(rows).sum()} of them since the champion's snapshot of {case.champion.snapshot:%Y-%m-%d}"
    labels, weights = rows.label_id.to_numpy(), _weights(rows, gate)
    right = [(judged.answers == labels).astype(float) for judged in (case.challenged(rows), case.defended(rows))]
    mine, theirs = (weights @ hits / weights.sum(axis=1) for hits in right)
    said = f"accuracy {mine[0]:.4f} on the newest {len(rows)} labelled rows, {fresh}; {theirs[0]:.4f} the champion"
    return _not_worse("window", mine - theirs, settings.margin, gate.confidence, said)


def false_positives(case: Case, gate: Gate) -> Check:
    """Of the rows that are not of the positive label, not more are taken for it than the champion takes."""
    if case.positive is None:
        return Check("false_positives", None, None, True, "no label stands out as positive")
    rows, settings = case.fresh_and_golden, gate.false_positives
    negative = rows[rows.label_id != case.positive]
    mine, allowed = float((case.challenged(negative).answers == case.positive).mean()), settings.maximum
    said = f"of {len(negative)} golden and newest rows of other labels"
    if case.bootstrap:
        return Check("false_positives", mine, allowed, mine <= allowed, f"{said}; {FIRST}")
    theirs = float((case.defended(negative).answers == case.positive).mean())
    allowed = min(allowed, theirs + settings.margin)
    return Check("false_positives", mine, allowed, mine <= allowed, f"{said}; {theirs:.4f} the champion")


def worst_slice(case: Case, gate: Gate) -> Check:
    """The source that fares worst does not fare worse than the champion's worst."""
    rows, settings = case.golden, gate.worst_slice
    mine = _accuracies(case.challenged(rows), rows, settings.rows)
    name = min(mine, key=lambda source: mine[source])
    said = f"accuracy on {name}, the worst of {len(mine)} sources with {settings.rows} golden rows or more"
    if case.bootstrap:
        return Check("worst_slice", mine[name], None, True, f"{said}; {FIRST}", mine)
    theirs = min(_accuracies(case.defended(rows), rows, settings.rows).values())
    least = theirs - settings.margin
    return Check("worst_slice", mine[name], least, mine[name] >= least, f"{said}; {theirs:.4f} the champion's worst", mine)


def calibration(case: Case, gate: Gate) -> Check:
    """A score means what it says in the mix of labels that there is now: the expected calibration error on golden."""
    rows = case.golden
    weights, labels = rows.weight.to_numpy(dtype=np.float64)[None, :], rows.label_id.to_numpy()
    error = float(metrics.resampled_calibration_error(case.challenged(rows).probabilities, labels, weights)[0])
    reason = f"expected calibration error on {len(rows)} golden rows"
    return Check("calibration", error, gate.calibration.maximum, error <= gate.calibration.maximum, reason)


def size(case: Case, gate: Gate) -> Check:
    """The release fits where it is served."""
    found = folder_bytes(case.folder)
    return Check("bytes", found, gate.bytes.maximum, found <= gate.bytes.maximum, "bytes of all files in the release")


def latency_us(case: Case, gate: Gate) -> Check:
    """On this host, with one thread, an answer comes soon enough; challenger and champion are timed in turn."""
    settings = gate.latency_us
    raw = list(case.golden.raw.sample(min(settings.inputs, len(case.golden)), random_state=gate.seed))
    parties = [case.challenger] if case.bootstrap else [case.challenger, case.champion]
    mine, *others = _times([party.release for party in parties], raw, settings.rounds)
    said = f"median over {len(raw)} golden rows from raw input to score, microseconds"
    if case.bootstrap:
        return Check("latency_us", mine, settings.maximum, mine <= settings.maximum, f"{said}; {FIRST}")
    allowed = min(settings.maximum, settings.times_champion * others[0])
    return Check("latency_us", mine, allowed, mine <= allowed, f"{said}; {others[0]:.0f} the champion")


def leakage(case: Case, gate: Gate) -> Check:
    """Nothing that judges was learned: no golden, test, valid or future row among the training rows."""
    rows = case.rows
    train, held = rows[rows.split == "train"], rows[rows.split.isin(JUDGED_SPLITS)]
    until = case.challenger.snapshot
    parties = [case.challenger] if case.bootstrap else [case.challenger, case.champion]
    leaks = {
        "group": train.group.isin(held.group),
        "input": train.input.isin(held.input),
        "received later": (train.received >= until) & (train.source != FEEDBACK),
    }
    for party in parties:
        hashed = pd.Series([split_of(group, party.shares) == "golden" for group in train.group], index=train.index)
        leaks[f"golden for {party.release.id}"] = hashed
    found = {name: sorted(train.id[leak]) for name, leak in leaks.items() if leak.any()}
    ids = sorted(set().union(*found.values()))
    reason = "; ".join(f"{name}: {len(leaked)}" for name, leaked in found.items()) or f"none of {len(train)} training rows"
    return Check("leakage", float(len(ids)), 0.0, len(train) > 0 and not ids, reason, {"ids": found})


def labels(case: Case, gate: Gate) -> Check:
    """The labels that reviewers gave agree with everything else that is known, but for the natural share of doubt."""
    settings = gate.labels
    rows = case.rows[(case.rows.split != "future") | (case.rows.source == FEEDBACK)].reset_index(drop=True)
    given = (rows.source == FEEDBACK).to_numpy()
    if not given.any():
        return Check("labels", 0.0, settings.maximum, True, "no row has a label that a reviewer gave")
    doubted: npt.NDArray[np.bool_] = (
        given_probabilities(rows, given, settings, case.challenger.release.kind) < settings.probability
    )
    share, allowed = float(doubted.mean()), max(settings.maximum, 1 / len(doubted))
    reason = f"{doubted.sum()} of {len(doubted)} labels of reviewers are doubted by a model that never saw them"
    return Check("labels", share, allowed, share <= allowed, reason, {"ids": sorted(rows.id[given][doubted])})


def _weights(rows: pd.DataFrame, gate: Gate) -> npt.NDArray[np.float64]:
    """Bootstrap weights ``[1 + resamples, n]`` over groups; the first is the rows as they are.

    A row counts what it counts in training: golden rows are of all times, and what is asked is how well the
    releases do in the mix of labels that there is now.
    """
    drawn = metrics.bootstrap_weights(rows.group.to_numpy(dtype=str), gate.resamples, gate.seed)
    weighted: npt.NDArray[np.float64] = np.vstack([np.ones(len(rows)), drawn]) * rows.weight.to_numpy()
    return weighted


def _figures(
    name: str, judged: ReleaseScores, rows: pd.DataFrame, weights: npt.NDArray[np.float64], positive: int | None
) -> npt.NDArray[np.float64]:
    """The figure for each row of weights."""
    labels = rows.label_id.to_numpy()
    if name == "f1":
        return np.asarray(metrics.resampled_f1(judged.answers, labels, weights, positive), dtype=np.float64)
    return np.asarray(metrics.resampled_ranking(judged.logits, labels, weights, positive, recall=1.0)[name], dtype=np.float64)


def _not_worse(name: str, difference: npt.NDArray[np.float64], margin: float, confidence: float, said: str) -> Check:
    """The lower bound of the resampled difference is not below the margin; its first entry is the difference itself."""
    both_sides = metrics.interval(difference[1:], 2 * confidence - 1)  # so much that one side holds ``confidence``
    if both_sides is None or not np.isfinite(difference[0]):
        return Check(name, None, -margin, False, f"{said}; the difference cannot be told")
    low = both_sides[0]
    reason = f"{said}; the difference is {difference[0]:+.4f}, at least {low:+.4f} with confidence {confidence:g}"
    return Check(name, low, -margin, low >= -margin, reason)


def _accuracies(judged: ReleaseScores, rows: pd.DataFrame, least: int) -> dict[str, float]:
    """Share of right answers of each source that has ``least`` rows."""
    right = pd.Series(judged.answers == rows.label_id.to_numpy()).groupby(rows.source.to_numpy())
    found = {str(source): float(hits.mean()) for source, hits in right if len(hits) >= least}
    if not found:
        raise ValueError(f"no source has {least} golden rows")
    return found


def _times(releases: list[Release], raw: list[Any], rounds: int) -> list[float]:
    """Median microseconds of one answer, for each release; in turn, so that a busy host slows all of them."""
    taken = np.zeros((len(releases), rounds, len(raw)))
    for release in releases:
        release.answer(raw[:3])  # warm
    for turn in range(rounds):
        for number, one in enumerate(raw):
            for which in range(len(releases))[:: 1 if turn % 2 else -1]:  # who comes second finds the input in the cache
                start = time.perf_counter()
                releases[which].answer([one])
                taken[which, turn, number] = time.perf_counter() - start
    return [round(float(np.median(entry)) * 1e6, 1) for entry in taken]
