"""Stage package: a variant, chosen by a rule, and all it needs, as one immutable release with its lineage.

No row of the data goes into a release: the kind makes probes that show none, and the drift reference is numbers.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from service.decision import softmax
from service.kinds import Model, Serving, serving_class
from service.release import MANIFEST, Release, hash_files, release_id
from tasks import lineage
from tasks.files import atomic_write, folder_bytes, read_json, write_json
from tasks.kinds import release_part, settings_of
from tasks.release.candidates import LateEvaluation, against, choose, entry_of
from tasks.release.choice import Candidate, Choice, order_of, passed_over, told
from tasks.release.drift_reference import drift_reference
from tasks.release.evaluate import Evaluate
from tasks.release.scores import judged
from tasks.release.settings import Package
from tasks.stage import Paths, StageError, read_params, read_settings, run

RULE = (
    "the first of among that is good enough: its PR-AUC on valid is not shown to be worse than the teacher's by more than "
    "margin, and not measured to be worse by more than largest_loss; the teacher itself always is"
)
"""What tasks.release.choice does, in words for the card."""


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
    variants, order, part = evaluation["variants"], list(entries), release_part(schema["kind"])
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
        "kind": schema["kind"],
        "task": part.TASK.format(labels=", ".join(schema["labels"])),
        "labels": schema["labels"],
        "positive": schema["positive"],
        "threshold": entries[chosen]["threshold"],
        "trained_on": {"source": params["ingest"]["path"], "received_before": params["ingest"]["until"]},
        "evaluated_on": evaluation["splits"],
        "figures": figures,
        "against_teacher": against(chosen, entries[chosen], evaluation),
        "limits": [
            "It knows inputs of its source and time; on others it may be wrong and sure of it.",
            *part.cautions(schema),
            "A score is calibrated on what was received before the date above; what came later is less so.",
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


def check_formats(names: Sequence[str], serving: Serving, paths: Paths) -> None:
    """Raises StageError where one of these variants cannot be served: a fallback that cannot be is none."""
    for name in names:
        found = read_json(paths.model(name) / "variant.json")["format"]
        if found not in serving.formats:
            raise StageError(
                f"package.among: {name!r}: its format is {found!r}; the service runs {' and '.join(serving.formats)}"
            )


def package(settings: Package, paths: Paths) -> None:
    """Build release/ from the chosen variant, and load it once as the service will."""
    params = read_params(paths.root)
    schema, evaluation = read_json(paths.schema), read_json(paths.report("evaluation.json"))
    rows = pd.read_parquet(paths.prepared)
    late = LateEvaluation(judged(rows), schema, read_settings(Evaluate, "evaluate", params), paths)
    candidates, warning = choose(settings, late, evaluation)
    order = order_of(candidates)
    serving = serving_class(schema["kind"])(schema)
    check_formats(order, serving, paths)
    entries = {name: entry_of(name, evaluation, late, folder_bytes(paths.model(name))) for name in order}
    chosen, model = entries[order[0]], paths.model(order[0])
    loaded = serving.load(model, 1)
    with atomic_write(paths.release) as temporary:
        shutil.copytree(model, temporary / "model")
        on_valid = {"threshold": chosen["threshold"], "temperature": chosen["temperature"]}
        write_json(temporary / "settings.json", {**schema, **on_valid, "limits": settings.limits.model_dump()})
        described = card(settings, candidates, entries, schema, evaluation, params)
        described["limits"] += [warning] if warning else []
        write_json(temporary / "card.json", described)
        write_json(temporary / "lineage.json", trace(paths, params))
        held_out = rows[rows.split.isin(settings.reference_splits)]
        reference = drift_reference(serving, loaded, held_out, chosen["temperature"])
        np.savez_compressed(temporary / "reference.npz", **reference)
        raws = release_part(schema["kind"]).probes(rows, settings)
        found = probes(raws, serving, loaded, chosen["temperature"])
        write_json(temporary / "probes.json", {"tolerance": settings.probe_tolerance, "probes": found})
        seal(temporary)
        release = Release(temporary)
    for candidate in passed_over(candidates):
        print(told([candidate]))
    if warning:
        print(warning)
    print(summary(release.id, candidates, folder_bytes(paths.release)))


def summary(release: str, candidates: Sequence[Candidate], size: int) -> str:
    """The last line: what is released, what comes next, and why what comes before in the order is not."""
    chosen, *others = order_of(candidates)
    then = f", fallback {others[0]}" if others else ""
    over = passed_over(candidates)
    return f"release {release}: {chosen}{then}; {size:,} bytes" + (
        f"; not good enough: {', '.join(candidate.short for candidate in over)}" if over else ""
    )


def probes(raws: Sequence[Any], serving: Serving, model: Model, temperature: float) -> list[dict[str, Any]]:
    """Probes with the probabilities that this host gives them; a serving host must give the same."""
    answers = softmax(model.logits([serving.preprocess(raw) for raw in raws]), temperature)
    return [{"input": serving.to_json(raw), "probabilities": row.tolist()} for raw, row in zip(raws, answers, strict=True)]


def seal(folder: Path) -> None:
    """Write the manifest over all files; from here on the folder must not change."""
    files = hash_files(folder)
    write_json(folder / MANIFEST, {"id": release_id(files), "files": files})


if __name__ == "__main__":
    run(package, settings_of("package"))
