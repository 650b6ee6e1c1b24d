"""Stage package: a variant, chosen by a rule, and all it needs, as one immutable release with its lineage.

No message of the data goes into a release: probe texts are made of single words that many messages hold, and the drift
reference is numbers.
"""

from __future__ import annotations

import platform
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from service.decision import softmax
from service.descriptors import NAMES, describe
from service.release import MANIFEST, Release, hash_files, release_id
from service.scorer import STUDENTS, Student, load_student
from service.text import Normaliser
from service.tokenizer import words_of
from service.transformer import WindowedStudent
from tasks import lineage
from tasks.files import atomic_write, folder_bytes, read_json, write_json
from tasks.release.choice import Candidate, Choice, judge_all, order_of, passed_over, told
from tasks.release.scores import judged, read_scores
from tasks.stage import Paths, Settings, StageError, read_params, run

PROBE_DOCUMENTS = 10
"""Messages that a word of a probe text stands in, at least: a name or a number that only a few hold is in none."""

RULE = (
    "the first of among that is good enough: its PR-AUC on valid is not shown to be worse than the teacher's by more than "
    "margin, and not measured to be worse by more than largest_loss; the teacher itself always is"
)
"""What tasks.release.choice does, in words for the card."""


class ServingLimits(Settings):
    """What one request may bring."""

    characters: int
    batch: int
    body_bytes: int


class Package(Choice):
    reference_splits: list[Literal["valid", "test", "golden"]] = Field(min_length=1)
    """The splits whose descriptors, scores and features are the reference for drift: what training did not learn from."""
    probes: int = Field(ge=1)
    probe_words: int
    probe_tolerance: float
    """Largest difference of a probe's probability that a serving host may show."""
    limits: ServingLimits


def probe_texts(texts: Sequence[str], count: int, length: int, seed: int) -> list[str]:
    """Texts of random words, each of which stands in many of ``texts``: they exercise the model and quote nobody."""
    documents = Counter(word for text in texts for word in set(words_of(text)))
    words = sorted(word for word, number in documents.items() if number >= PROBE_DOCUMENTS)
    if not words:
        raise StageError(
            f"no word stands in {PROBE_DOCUMENTS} of {len(texts)} messages: there is nothing to make probe texts of"
        )
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(np.array(words, dtype=object), size=length)) for _ in range(count)]


def drift_reference(student: Student | WindowedStudent, rows: pd.DataFrame, temperature: float) -> dict[str, Any]:
    """What drift is measured against, of ``rows`` in their order: how they look, what is said of them, what they are.

    ``names`` of the descriptors, ``descriptors`` float64[n, names], ``probabilities`` float64[n, labels], ``features``
    float32[n, dimensions] (none where the student has none), ``label_ids`` int64[n].
    """
    described = [describe(raw, student.tokenizer.unknown_share(text)) for raw, text in zip(rows.raw, rows.text, strict=True)]
    logits, features = student.outputs(list(rows.text))
    return {
        "names": np.array(NAMES),
        "descriptors": np.array([[entry[name] for name in NAMES] for entry in described]),
        "probabilities": softmax(logits, temperature),
        "features": features,
        "label_ids": rows.label_id.to_numpy(),
    }


def choose(settings: Package, rows: pd.DataFrame, evaluation: dict[str, Any], paths: Paths) -> list[Candidate]:
    """What the rule says of each of ``among`` on the valid messages of ``rows``. Raises StageError as ``judge_all`` does."""
    scored, schema = judged(rows), read_json(paths.schema)
    positive = schema["labels"].index(schema["positive"]) if schema["positive"] is not None else None
    valid = scored[scored.split == "valid"]
    return judge_all(settings, read_scores(scored, paths), valid, evaluation["teacher"], positive)


def entry_of(name: str, evaluation: dict[str, Any], size: int) -> dict[str, Any]:
    """A variant's entry in the evaluation.

    The teacher's export, where it was not evaluated on its own, has the teacher's figures, threshold and temperature,
    and ``size`` bytes of its own; its time is not known.
    """
    variants, teacher = evaluation["variants"], evaluation["teacher"]
    if name in variants:
        return dict(variants[name])
    return {key: value for key, value in variants[teacher].items() if key != "latency_us"} | {"bytes": size}


def against(name: str, evaluation: dict[str, Any], size: int) -> dict[str, Any]:
    """A variant beside the teacher, as evaluate has it; of the export that was not evaluated only the size differs."""
    teacher = evaluation["teacher"]
    if name in evaluation["variants"]:
        return dict(evaluation["against_teacher"][name])
    smaller = round(evaluation["variants"][teacher]["bytes"] / size, 2)
    return {"times_smaller": smaller, "times_faster": None, "kept": evaluation["against_teacher"][teacher]["kept"]}


def card(
    settings: Package,
    candidates: Sequence[Candidate],
    entries: dict[str, Any],
    schema: dict[str, Any],
    evaluation: dict[str, Any],
    params: dict[str, Any],
) -> dict[str, Any]:
    """The model card (Mitchell et al. 2019): what it is, what it is for, how good it is and beside what.

    ``entries`` are the figures of the ``candidates`` that are good enough: the first is served, the second is what to
    fall back to.
    """
    variants, order = evaluation["variants"], list(entries)
    chosen = order[0]
    figures = {name: entries[name] for name in order[:2]}
    figures |= {name: variants[name] for name in (evaluation["teacher"], "baseline") if name in variants}
    rule = {name: getattr(settings, name) for name in Choice.model_fields}
    return {
        "name": "restill",
        "variant": chosen,
        "fallback": order[1] if len(order) > 1 else None,
        "chosen_by": {"rule": RULE, **rule},
        "passed_over": [asdict(candidate) for candidate in passed_over(candidates)],
        "candidates": [asdict(candidate) for candidate in candidates],
        "task": f"text classification into {', '.join(schema['labels'])}",
        "labels": schema["labels"],
        "positive": schema["positive"],
        "threshold": entries[chosen]["threshold"],
        "trained_on": {"source": params["ingest"]["path"], "received_before": params["ingest"]["until"]},
        "evaluated_on": evaluation["splits"],
        "figures": figures,
        "against_teacher": against(chosen, evaluation, entries[chosen]["bytes"]),
        "limits": [
            "It knows the messages of its source and time; on others it may be wrong and sure of it.",
            f"It reads the first {schema['normaliser']['characters']} characters of a normalised text.",
            "A score is calibrated on messages received before the date above; mail that came later is less so.",
        ],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def trace(paths: Paths, params: dict[str, Any]) -> dict[str, Any]:
    """Where the release came from, down to the bytes of the data and the versions of the packages."""
    return {
        **dict(zip(("git_commit", "git_reason"), lineage.git_commit(paths.project), strict=True)),
        "dvc_lock": lineage.lock_hash(paths.project, paths.workload, before="package"),
        "params": params,
        "data": {path.name: lineage.sha256(path) for path in (paths.corpus, paths.prepared)},
        "mlflow": {path.stem: read_json(path) for path in sorted(paths.runs.glob("*.json"))},
        "packages": lineage.package_versions(),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def check_kinds(names: Sequence[str], paths: Paths) -> None:
    """Raises StageError where one of these variants cannot be served: a fallback that cannot be is none."""
    for name in names:
        kind = read_json(paths.model(name) / "variant.json")["kind"]
        if kind not in STUDENTS:
            raise StageError(f"package.among: {name!r}: its kind is {kind!r}; the service runs {' and '.join(STUDENTS)}")


def package(settings: Package, paths: Paths) -> None:
    """Build release/ from the chosen variant, and load it once as the service will."""
    params = read_params(paths.root)
    schema, evaluation = read_json(paths.schema), read_json(paths.report("evaluation.json"))
    rows = pd.read_parquet(paths.prepared)
    candidates = choose(settings, rows, evaluation, paths)
    order = order_of(candidates)
    check_kinds(order, paths)
    entries = {name: entry_of(name, evaluation, folder_bytes(paths.model(name))) for name in order}
    chosen, model = entries[order[0]], paths.model(order[0])
    student = load_student(model)
    with atomic_write(paths.release) as temporary:
        shutil.copytree(model, temporary / "model")
        on_valid = {"threshold": chosen["threshold"], "temperature": chosen["temperature"]}
        write_json(temporary / "settings.json", {**schema, **on_valid, "limits": settings.limits.model_dump()})
        write_json(temporary / "card.json", card(settings, candidates, entries, schema, evaluation, params))
        write_json(temporary / "lineage.json", trace(paths, params))
        held_out = rows[rows.split.isin(settings.reference_splits)]
        reference = drift_reference(student, held_out, chosen["temperature"])
        np.savez_compressed(temporary / "reference.npz", **reference)
        texts = probe_texts(list(rows.text), settings.probes, settings.probe_words, settings.seed)
        write_json(temporary / "probes.json", probes(settings, texts, schema, student, chosen["temperature"]))
        seal(temporary)
        release = Release(temporary)
    for candidate in passed_over(candidates):
        print(told([candidate]))
    print(summary(release.id, candidates, folder_bytes(paths.release)))


def summary(release: str, candidates: Sequence[Candidate], size: int) -> str:
    """The last line: what is released, what comes next, and why what comes before in the order is not."""
    chosen, *others = order_of(candidates)
    then = f", fallback {others[0]}" if others else ""
    over = passed_over(candidates)
    return f"release {release}: {chosen}{then}; {size:,} bytes" + (
        f"; not good enough: {', '.join(candidate.short for candidate in over)}" if over else ""
    )


def probes(
    settings: Package, texts: list[str], schema: dict[str, Any], student: Student | WindowedStudent, temperature: float
) -> dict[str, Any]:
    """Probe texts with the probabilities that this host gives them; a serving host must give the same."""
    normaliser = Normaliser.from_settings(schema["normaliser"])
    answers = softmax(student.logits([normaliser(text) for text in texts]), temperature)
    entries = [{"text": text, "probabilities": row.tolist()} for text, row in zip(texts, answers, strict=True)]
    return {"tolerance": settings.probe_tolerance, "probes": entries}


def seal(folder: Path) -> None:
    """Write the manifest over all files; from here on the folder must not change."""
    files = hash_files(folder)
    write_json(folder / MANIFEST, {"id": release_id(files), "files": files})


if __name__ == "__main__":
    run(package, Package)
