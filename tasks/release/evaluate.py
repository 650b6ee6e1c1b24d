"""Stage evaluate: every variant on every split, one report.

What is chosen (each variant's temperature and threshold) is chosen on valid alone. Intervals come from a bootstrap
over near-duplicate groups. Times are taken with one thread, from the raw input to the score, all variants in turn in
one process, so that they can be compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from service.decision import decide, positive_index, softmax
from service.kinds import serving_class
from tasks import metrics
from tasks.compress.distillation import TEACHER, teacher_logits
from tasks.files import atomic_write, folder_bytes, read_json, write_json
from tasks.model.variants import load_variant
from tasks.release.report import draw, evaluation_page
from tasks.release.scores import HELD_OUT, SPLITS, judged, write_scores
from tasks.release.teacher_comparison import compare_with_teacher, fastest_teacher
from tasks.release.threshold import RULES, Rule
from tasks.stage import Paths, Settings, StageError, run
from tasks.tracking import Tracker, track

Floats32 = npt.NDArray[np.float32]
Parts = Mapping[str, pd.DataFrame]
"""The rows of each split and slice; their index is the place of their logits."""


class Model(Protocol):
    """What is judged: inputs in, ``float32[n, labels]`` out."""

    def logits(self, inputs: Sequence[Any]) -> Floats32: ...


class Slice(Settings):
    sources: list[str]
    """Rows of these source groups, against all rows of every other label."""


class Evaluate(Settings):
    variants: list[str]
    """Folders below models/, in the order of the report."""
    teacher: str
    """The variant whose size is the measure, and whose quality is to be kept."""
    margin: float = Field(ge=0)
    """How far the PR-AUC of a form of the teacher may be below the teacher's own, on any split, for its time to count."""
    threshold: Rule
    """How a variant's threshold is chosen on valid, where one label is positive."""
    slices: dict[str, Slice]
    """Parts of the held-out splits that are looked at on their own."""
    recall: float = Field(gt=0, le=1)
    """The recall at which the false-positive rate is read."""
    resamples: int = Field(ge=10)
    timing_inputs: int = Field(ge=1)
    timing_rounds: int = Field(ge=1)
    threads: int = Field(ge=1)
    """Threads of the scoring; times are always taken with one."""
    seed: int


def slice_rows(rows: pd.DataFrame, part: Slice) -> pd.DataFrame:
    """The slice's own rows of the held-out splits, and those of every label that the slice does not hold.

    Empty where the slice has no row of its own.
    """
    held_out = rows[rows.split.isin(HELD_OUT)]
    own = held_out.source.isin(part.sources)
    if not own.any():
        return held_out[own]
    return held_out[own | ~held_out.label.isin(held_out.label[own].unique())]


def split_up(rows: pd.DataFrame, settings: Evaluate) -> dict[str, pd.DataFrame]:
    """The judged ``rows`` by split and slice; one that holds no row is left out."""
    parts = {split: rows[rows.split == split] for split in SPLITS}
    parts |= {name: slice_rows(rows, entry) for name, entry in settings.slices.items()}
    return {name: part for name, part in parts.items() if len(part)}


def figures(
    logits: npt.NDArray[np.float32], rows: pd.DataFrame, chosen: Mapping[str, float], positive: int | None, settings: Evaluate
) -> tuple[dict[str, float | None], dict[str, list[float] | None]]:
    """(metrics, intervals) of one variant on one split, at the temperature and threshold ``chosen`` on valid."""
    labels = rows.label_id.to_numpy()
    weights = metrics.bootstrap_weights(rows.group.to_numpy(dtype=str), settings.resamples, settings.seed)
    weights = np.vstack([np.ones(len(rows)), weights])  # the first row is the split as it is
    probabilities = softmax(logits, chosen["temperature"])
    answers = decide(probabilities, positive, chosen["threshold"])
    every = metrics.resampled_ranking(logits, labels, weights, positive, settings.recall)
    every["accuracy"] = weights @ (answers == labels) / weights.sum(axis=1)
    every["f1"] = metrics.resampled_f1(answers, labels, weights, positive)
    every["calibration_error"] = metrics.resampled_calibration_error(probabilities, labels, weights)
    points = metrics.round_all({name: values[0] for name, values in every.items()})
    return points, {name: metrics.interval(values[1:]) for name, values in every.items()}


def choose(logits: npt.NDArray[np.float32], valid: pd.DataFrame, positive: int | None, rule: Rule) -> dict[str, float]:
    """Temperature and threshold of one variant, from its logits on valid, each row by its weight."""
    labels, weights = valid.label_id.to_numpy(), valid.weight.to_numpy()
    temperature = metrics.temperature(logits, labels, weights)
    if positive is None:
        return {"temperature": temperature, "threshold": 0.0}
    scores = softmax(logits, temperature)[:, positive]
    return {"temperature": temperature, "threshold": RULES[rule](scores, labels == positive, weights)}


def latency_us(
    variants: Mapping[str, Model], preprocess: Callable[[Any], Any], raw: Sequence[Any], rounds: int
) -> dict[str, float]:
    """Mean over inputs of the median over rounds: microseconds from the raw input to logits, one at a time."""
    times = {name: np.zeros((rounds, len(raw))) for name in variants}
    with threadpool_limits(1):
        for variant in variants.values():
            variant.logits([preprocess(one) for one in raw[:3]])  # warm
        for turn in tqdm(range(rounds), desc="timing", unit=" rounds"):
            for name, variant in variants.items():
                for number, one in enumerate(raw):
                    start = time.perf_counter()
                    variant.logits([preprocess(one)])
                    times[name][turn, number] = time.perf_counter() - start
    return {name: round(float(np.median(taken, axis=0).mean() * 1e6), 1) for name, taken in times.items()}


def timed(variants: Mapping[str, Model], parts: Parts, schema: Mapping[str, Any], settings: Evaluate) -> dict[str, float]:
    """``latency_us`` on inputs of test, as many as ``settings`` say."""
    raw = parts["test"].raw.sample(min(settings.timing_inputs, len(parts["test"])), random_state=settings.seed)
    return latency_us(variants, serving_class(schema["kind"])(schema).preprocess, list(raw), settings.timing_rounds)


def judge(logits: Floats32, parts: Parts, positive: int | None, folder: Path, settings: Evaluate) -> dict[str, Any]:
    """The entry in the report of the model in ``folder``, but for its parameters and its time."""
    chosen = choose(logits[parts["valid"].index], parts["valid"], positive, settings.threshold)
    both = {split: figures(logits[part.index], part, chosen, positive, settings) for split, part in parts.items()}
    return {
        "bytes": folder_bytes(folder),
        **chosen,
        "metrics": {split: pair[0] for split, pair in both.items()},
        "intervals": {split: pair[1] for split, pair in both.items()},
    }


def evaluate(settings: Evaluate, paths: Paths) -> None:
    """Score every variant on every split and slice; write the report as JSON, as HTML and as curves for DVC."""
    if settings.teacher not in settings.variants:
        raise StageError(f"evaluate.teacher = {settings.teacher!r}: is none of evaluate.variants = {settings.variants}")
    rows, schema = judged(pd.read_parquet(paths.prepared)), read_json(paths.schema)
    positive = positive_index(schema)
    parts = split_up(rows, settings)
    with track("evaluate", settings, paths) as tracker:
        tracker.data(paths.prepared, rows, "evaluation")
        variants: dict[str, Any] = {}
        logits = {}
        for name in tqdm(settings.variants, desc="evaluate", unit=" variants"):
            variant = load_variant(paths.model(name), settings.threads)
            known = name == TEACHER  # the stage train has asked it about every row
            logits[name] = teacher_logits(paths, list(rows.id)) if known else variant.logits(list(rows.input))
            variants[name] = {"parameters": variant.parameters}
            variants[name] |= judge(logits[name], parts, positive, paths.model(name), settings)
        single = {name: load_variant(paths.model(name), 1) for name in settings.variants}
        for name, latency_us in timed(single, parts, schema, settings).items():
            variants[name]["latency_us"] = latency_us
        fastest = fastest_teacher(variants, settings.teacher, settings.margin)
        report = {
            "teacher": settings.teacher,
            "positive": schema["positive"],
            "fastest_teacher": fastest,
            "splits": {name: part.label.value_counts().to_dict() for name, part in parts.items()},
            "variants": variants,
            "against_teacher": compare_with_teacher(variants, settings.teacher, fastest),
        }
        write_scores(rows, logits, paths)
        publish(report, logits, parts, positive, paths, tracker)


def publish(
    report: dict[str, Any],
    logits: Mapping[str, Floats32],
    parts: Parts,
    positive: int | None,
    paths: Paths,
    tracker: Tracker,
) -> None:
    """Write the report in its three forms, and tell MLflow."""
    curves = precision_recall(logits, parts, positive)
    plots = draw(report, logits, parts, curves)
    write_json(paths.report("evaluation.json"), report)
    with atomic_write(paths.report("precision_recall.csv")) as temporary:
        curves.to_csv(temporary, index=False)
    with atomic_write(paths.report("evaluation.html")) as temporary:
        temporary.write_text(evaluation_page(report, plots), encoding="utf-8")
    for name in ("evaluation.json", "evaluation.html", "precision_recall.csv"):
        tracker.file(paths.report(name), on_pipeline=True)
    for title, svg in plots.items():
        tracker.text(svg, f"plots/{title.lower().replace(' ', '_')}.svg")
    for name, entry in report["variants"].items():
        shown = {f"{name}/{split}/{m}": entry["metrics"][split][m] for split in parts for m in ("pr_auc", "f1")}
        shown |= {f"{name}/{figure}": entry[figure] for figure in ("bytes", "latency_us")}
        known = {metric: float(value) for metric, value in shown.items() if value is not None}
        tracker.metrics(known)
        tracker.headline(known)


def precision_recall(
    logits: Mapping[str, npt.NDArray[np.float32]], parts: Mapping[str, pd.DataFrame], positive: int | None
) -> pd.DataFrame:
    """Precision at 200 recalls for each variant and split (of the positive label; with many labels of each, averaged)."""
    grid = np.linspace(0, 1, 201)[1:]
    tables = []
    for name, scores in logits.items():
        for split, part in parts.items():
            labels = part.label_id.to_numpy()
            curves = []
            for label, score in metrics.one_vs_rest(scores[part.index], positive).items():
                order = np.argsort(-score, kind="stable")
                hits = np.cumsum(labels[order] == label)
                if not hits[-1]:
                    continue
                first = np.searchsorted(hits / hits[-1], grid - 1e-9)
                curves.append(hits[first] / (first + 1))
            if curves:
                table = {
                    "variant": name,
                    "split": split,
                    "recall": grid.round(3),
                    "precision": np.mean(curves, axis=0).round(5),
                }
                tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)


if __name__ == "__main__":
    run(evaluate, Evaluate)
