"""Variance over seeds: the path from teacher to the smallest student, trained and evaluated with several seeds.

    python -m benchmarks.seeds [--seeds 1 2 3 4 5] [--out reports/seeds.json] [--home FOLDER]

For each seed, the stages from train to quantize (read from dvc.yaml, with all steps between them, without export) run in a
separate folder with every `seed` of theirs set to it, on the project's data. Each model is then evaluated on valid, test,
golden and future as in the stage evaluate, with its threshold chosen on valid. The tables show each seed, and the mean with
its 95 % interval (Student's t over seeds: the variance over seeds on these messages, not over messages); `kept` is a
student's figure divided by that of its own teacher. The baseline is deterministic.

A stage runs again only if its parameters, data, code or an upstream stage changed, so a second call resumes a killed one,
and after a change of distill no teacher is trained. For train only the parameters count: after a change of its code use
another --home. A seed with a failed stage is reported, and left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from tqdm import tqdm

from benchmarks.seed_folder import BASELINE, Folder, Project, read
from benchmarks.workload import parse
from tasks.files import write_json
from tasks.model.variants import load_variant
from tasks.release.evaluate import Evaluate, Floats32, choose, figures
from tasks.release.scores import SPLITS
from tasks.stage import Paths, StageError

FIGURES = {"pr_auc": "PR-AUC", "f1": "F1"}

Figures = dict[str, dict[str, float | None]]
"""Figures of one model: split -> name -> value."""


def judge(logits: Floats32, rows: pd.DataFrame, positive: int | None, settings: Evaluate) -> Figures:
    """One model's figures on each non-empty split, at the temperature and threshold chosen on valid."""
    rows = rows.reset_index(drop=True)
    parts = {split: part for split in SPLITS if len(part := rows[rows.split == split])}
    chosen = choose(logits[parts["valid"].index], parts["valid"], positive, settings.threshold)
    results = {split: figures(logits[part.index], part, chosen, positive, settings)[0] for split, part in parts.items()}
    return {split: {name: points[name] for name in FIGURES} for split, points in results.items()}


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> dict[str, float | None]:
    """Mean, and the bounds of its Student's t interval; bounds are None for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def share_of_teacher(student: float | None, teacher: float | None) -> float | None:
    """A student's figure as a share of its teacher's."""
    return student / teacher if student is not None and teacher else None


def columns(entry: Mapping[str, Figures], teacher: str, split: str, figure: str) -> dict[str, float | None]:
    """One seed's row: the figure of every model, and each student's share of the teacher's."""
    row = {name: model[split][figure] for name, model in entry.items()}
    return row | {f"{name} kept": share_of_teacher(value, row[teacher]) for name, value in row.items() if name != teacher}


def summary(seeds: Mapping[str, Mapping[str, Figures]], teacher: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Split -> figure -> column -> mean and interval over the seeds; None where a seed has no such figure."""
    first = next(iter(seeds.values()))
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for split in first[teacher]:
        for figure in FIGURES:
            rows = [columns(entry, teacher, split, figure) for entry in seeds.values()]
            for name in rows[0]:
                values = [value for row in rows if (value := row[name]) is not None]
                interval = mean_interval(values) if len(values) == len(rows) else None
                result.setdefault(split, {}).setdefault(figure, {})[name] = interval
    return result


def table(report: Mapping[str, Any]) -> str:
    """Markdown table of the means with intervals, one row per figure and split, next to the baseline."""
    mean = report["mean"]
    names = list(next(iter(mean.values()))["pr_auc"])
    lines = [["figure", "split", BASELINE, *names]]
    for figure, title in FIGURES.items():
        for split, entry in mean.items():
            cells = [_interval(entry[figure][name]) for name in names]
            lines.append([title, split, _cell(report["baseline"][split][figure]), *cells])
    return _markdown(lines, words=2)


def seed_table(report: Mapping[str, Any]) -> str:
    """Markdown table of the individual seeds."""
    lines: list[list[str]] = []
    for figure, title in FIGURES.items():
        for split in report["mean"]:
            for seed, models in report["seeds"].items():
                row = columns(models, report["teacher"], split, figure)
                lines = lines or [["figure", "split", "seed", *row]]
                lines.append([title, split, seed, *map(_cell, row.values())])
    return _markdown(lines, words=3)


def _markdown(lines: Sequence[Sequence[str]], words: int) -> str:
    """A table with the header in the first line; all columns but the first ``words`` are numeric."""
    rule = ["---"] * words + ["---:"] * (len(lines[0]) - words)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [lines[0], rule, *lines[1:]])


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _interval(entry: Mapping[str, float | None] | None) -> str:
    if entry is None:
        return ""
    if entry["low"] is None:
        return _cell(entry["mean"])
    return f"{entry['mean']:.4f} ({entry['low']:.4f} to {entry['high']:.4f})"


def measure(project: Project, home: Path, seeds: Sequence[int], lean: bool) -> dict[str, Any]:
    """The whole report; ``failed``: seed without figures -> error."""
    folders = [Folder(project, home, seed) for seed in dict.fromkeys(seeds)]
    label, settings = project.labels["positive"], project.settings
    positive = None if label is None else project.labels["labels"].index(label)
    stages = {folder.seed: folder.todo() for folder in folders}
    figures_of: dict[str, Any] = {}
    failed: dict[str, str] = {}
    print(f"seeds: what the stages say goes to {home}/SEED/stages.log", file=sys.stderr)
    with tqdm(total=sum(map(len, stages.values())) + len(folders), desc="seeds", unit=" stages") as bar:
        for folder in folders:
            try:
                folder.prepare()
                for step in stages[folder.seed]:
                    bar.set_postfix(seed=folder.seed, stage=step.name)
                    folder.run(step)
                    bar.update()
                bar.set_postfix(seed=folder.seed, stage="figures")
                folder.store_teacher_logits()
                logits_of = folder.logits()
            except StageError as error:
                failed[str(folder.seed)] = str(error)
                continue
            figures_of[str(folder.seed)] = {
                name: judge(logits, project.rows, positive, settings) for name, logits in logits_of.items()
            }
            if lean:
                folder.drop_teacher()
            bar.update()
    if not figures_of:
        raise StageError(f"no seed has figures: {next(iter(failed.values()))}")
    baseline = load_variant(project.paths.model(BASELINE), settings.threads).logits(list(project.rows.input))
    return {
        "teacher": project.teacher, "stages": [step.name for step in project.path], "seeds": figures_of, "failed": failed,
        "mean": summary(figures_of, project.teacher), "baseline": judge(baseline, project.rows, positive, settings),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.seeds", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--out", type=Path, default=Path("reports/seeds.json"), help="where the figures go as JSON")
    parser.add_argument("--home", type=Path, help="a folder a seed, 100 MB each; default: var/WORKLOAD/seeds")
    parser.add_argument(
        "--lean",
        action="store_true",
        help="remove each teacher once its figures stand (its logits stay): a stage that reads it would train it anew",
    )
    arguments = parse(parser)
    try:
        home = arguments.home or Paths(Path.cwd()).home / "seeds"
        report = measure(read(Path.cwd()), home, arguments.seeds, arguments.lean)
    except StageError as error:
        sys.exit(f"seeds: {error}")
    write_json(arguments.out, report)
    print(f"\nMean over {len(report['seeds'])} seed(s), 95 % interval\n\n{table(report)}\n\n{seed_table(report)}")
    for seed, reason in report["failed"].items():
        print(f"seeds: seed {seed} is left out: {reason}", file=sys.stderr)
    sys.exit(bool(report["failed"]))


if __name__ == "__main__":
    main()
