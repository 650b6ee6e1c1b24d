"""Stage compression: what each step from the teacher to the student won and lost, and what else would have done.

Everything is worked out from what evaluate left behind; no model is asked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from service.decision import positive_index
from service.kinds import serving_class
from tasks.files import atomic_write, read_json, write_json
from tasks.kinds import release_part
from tasks.lineage import sha256
from tasks.release.compression_page import compression_page, draw_fronts
from tasks.release.disagreement import count, surest, told, verdicts, who_is_right
from tasks.release.fronts import QUALITY, comparable, fronts
from tasks.release.report import NAMES
from tasks.release.scores import HELD_OUT, Logits, judged, read_scores
from tasks.release.steps import RATIOS, differences, known, ratios, steps_along, steps_beside
from tasks.release.teacher_comparison import compare_with_teacher
from tasks.stage import Paths, Settings, StageError, run
from tasks.tracking import Tracker, track


class Compression(Settings):
    path: list[str] = Field(min_length=2)
    """Variants, each made from the one before it."""
    student: str
    """The folder below models/ whose answers are held against the teacher's, one by one."""
    beside: list[str]
    """Variants off the path that the student is held against as well."""
    rivals: Path
    """Other classifiers as ``python -m benchmarks.speed --rivals`` measured them; ``{}`` in it: none."""
    resamples: int = Field(ge=10)
    examples: int = Field(ge=0)
    """Disagreements shown, at most so many on each split for each who is right."""
    inputs: bool
    """Whether those inputs are shown: else none leaves the data."""
    seed: int


@dataclass(frozen=True)
class Evaluated:
    """What evaluate left behind."""

    evaluation: Mapping[str, Any]
    parts: Mapping[str, pd.DataFrame]
    """The rows of each held-out split; their index is the place of their logits."""
    logits: Mapping[str, Logits]
    schema: Mapping[str, Any]
    positive: int | None

    @property
    def labels(self) -> list[str]:
        labels: list[str] = self.schema["labels"]
        return labels

    @classmethod
    def read(cls, paths: Paths) -> Evaluated:
        """Raises StageError where the scores are of other rows than the prepared ones."""
        evaluation, schema = read_json(paths.report("evaluation.json")), read_json(paths.schema)
        rows = judged(pd.read_parquet(paths.prepared))
        parts = {split: rows[rows.split == split] for split in HELD_OUT if split in evaluation["splits"]}
        positive = positive_index(schema)
        return cls(evaluation, parts, read_scores(rows, paths), schema, positive)


def compression(settings: Compression, paths: Paths) -> None:
    """Compare all variants by what they cost and what they keep; write the report as JSON and as HTML."""
    found = Evaluated.read(paths)
    evaluation, variants = found.evaluation, found.evaluation["variants"]
    known(settings.path, variants, "compression.path")
    known([settings.student], variants, "compression.student")
    known(settings.beside, variants, "compression.beside")
    with track("compression", settings, paths) as tracker:
        report = {
            "teacher": evaluation["teacher"],
            "fastest_teacher": evaluation["fastest_teacher"],
            "student": settings.student,
            "splits": {split: evaluation["splits"][split] for split in found.parts},
            **models(evaluation, read_rivals(paths.root / settings.rivals), sha256(paths.prepared), list(found.parts)),
            "steps": steps(settings, found),
        }
        report["disagreements"], shown = disagreements(settings, paths.model(settings.student), found)
        publish(report, shown, settings, paths, tracker)
    for name, entry in report["steps"].items():
        print(f"{name}: {entry['times_smaller']:.1f} times smaller, {entry['times_faster']:.1f} times faster")


def steps(settings: Compression, found: Evaluated) -> dict[str, Any]:
    """By step, along the path and beside it: times smaller, times faster, and the differences by split and figure."""
    variants, draws = found.evaluation["variants"], (settings.resamples, settings.seed)
    pairs = {**steps_along(settings.path), **steps_beside(settings.beside, settings.student)}
    by_split = {
        split: differences(pairs, found.logits, part, variants, found.positive, draws) for split, part in found.parts.items()
    }
    return {
        name: {**ratio, "differences": {split: of[name] for split, of in by_split.items()}}
        for name, ratio in ratios(pairs, variants).items()
    }


def read_rivals(path: Path) -> dict[str, Any]:
    """What ``benchmarks.speed --rivals`` wrote. Raises StageError where the file is missing or of another kind."""
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise StageError(f"compression.rivals = {path.name}: cannot be read ({error}); {{}} in it means no rivals") from error
    if not isinstance(found, dict) or (found and not {"prepared", "ours", "models"} <= set(found)):
        raise StageError(
            f"compression.rivals = {path.name}: not what python -m benchmarks.speed --rivals writes; {{}} in it means no rivals"
        )
    return found


def models(evaluation: Mapping[str, Any], rivals: Mapping[str, Any], data: str, splits: list[str]) -> dict[str, Any]:
    """``models``: every variant and rival, its costs, figures and places on the fronts; ``rivals``: what to know of those."""
    ours = {
        name: {"bytes": entry["bytes"], "latency_us": entry["latency_us"]}
        | {"metrics": {split: entry["metrics"][split] for split in splits}}
        for name, entry in evaluation["variants"].items()
    }
    theirs, said = comparable(rivals, ours, data, splits)
    both = ours | theirs
    against = compare_with_teacher(both, evaluation["teacher"], evaluation["fastest_teacher"])
    first = {split: {metric: fronts(both, split, metric) for metric in QUALITY} for split in splits}
    entries = {
        name: {
            **entry,
            **against[name],
            "rival": name in theirs,
            "metrics": {split: {metric: figures[metric] for metric in QUALITY} for split, figures in entry["metrics"].items()},
            "front": {
                split: {metric: [cost for cost, names in on.items() if name in names] for metric, on in by_metric.items()}
                for split, by_metric in first.items()
            },
        }
        for name, entry in both.items()
    }
    return {"models": entries, "rivals": said}


def disagreements(
    settings: Compression, folder: Path, found: Evaluated
) -> tuple[dict[str, dict[str, int]], dict[str, list[dict[str, Any]]]]:
    """(counts, examples), each by split, of where the teacher and the student in ``folder`` answer differently."""
    serving = serving_class(found.schema["kind"])(found.schema)
    if read_json(folder / "variant.json")["format"] not in serving.formats:
        raise StageError(f"compression.student = {settings.student!r}: models/{settings.student} holds no student")
    model = serving.load(folder, 1)
    counts, shown = {}, {}
    for split, part in found.parts.items():
        teacher, student = (
            verdicts(found.logits[name][part.index], found.evaluation["variants"][name], found.positive)
            for name in (found.evaluation["teacher"], settings.student)
        )
        right = who_is_right(part.label_id.to_numpy(), teacher, student)
        counts[split] = count(right)
        shown[split] = [
            told(part.iloc[place], right[place], teacher.at(place, found.labels), student.at(place, found.labels))
            | {"descriptors": serving.describe(part.raw.iloc[place], part.input.iloc[place], model)}
            | (release_part(found.schema["kind"]).show(part.raw.iloc[place]) if settings.inputs else {})
            for place in surest(right, teacher, student, settings.examples)
        ]
    return counts, shown


def publish(report: dict[str, Any], shown: Mapping[str, Any], settings: Compression, paths: Paths, tracker: Tracker) -> None:
    """Write the report in both of its forms, and tell MLflow; a page that shows inputs stays here."""
    plots = {
        f"{NAMES[metric]} against size and time": draw_fronts(report["models"], list(report["splits"]), metric)
        for metric in QUALITY
    }
    write_json(paths.report("compression.json"), report)
    with atomic_write(paths.report("compression.html")) as temporary:
        temporary.write_text(compression_page(report, shown, plots), encoding="utf-8")
    tracker.file(paths.report("compression.json"), on_pipeline=True)
    if not settings.inputs:
        tracker.file(paths.report("compression.html"), on_pipeline=True)
    for name, entry in report["steps"].items():
        values = {
            f"{name}/{split}/{metric}": one["value"]
            for split, by_metric in entry["differences"].items()
            for metric, one in by_metric.items()
            if one["value"] is not None
        }
        tracker.metrics(values | {f"{name}/{ratio}": entry[ratio] for ratio in RATIOS})


if __name__ == "__main__":
    run(compression, Compression)
