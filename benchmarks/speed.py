"""Latency from raw text to score: every model in models/ against other fast classifiers, on the same texts.

    python -m benchmarks.speed [--rounds 7] [--threads 1] [--out reports/speed.json] [--rivals data/rivals.json]

Rivals are Model2Vec (distilled from the teacher's encoder) and fastText, trained on the train split in a temporary folder;
`pip install -c constraints.txt -e '.[bench]'` installs them, and those not installed are left out. TF-IDF with logistic
regression is `baseline`. Texts are messages of the test split, truncated or joined to 200, 1,500 and 10,000 raw characters;
the time of the release's normaliser is included for all models. All models take turns in every round, so that other load
affects them equally. A model is `times faster` than the fastest form of the teacher that keeps its PR-AUC, at the same
length and batch. With --rivals, the rivals' figures are also written with evaluate's metrics, for the report of the stage
compression.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from benchmarks.memory import resident
from benchmarks.rival_figures import rival_figures
from benchmarks.rival_training import Task, fit_rivals
from benchmarks.rivals import KINDS, Rival
from benchmarks.workload import parse
from service.kinds.text_classification.text import Normaliser
from tasks.files import folder_bytes, read_json, write_json
from tasks.metrics import ranking
from tasks.model.variants import load_variant
from tasks.release.evaluate import Evaluate
from tasks.release.scores import HELD_OUT
from tasks.release.teacher_comparison import fastest_teacher
from tasks.stage import Paths, StageError, read_params, read_settings

LENGTHS = (200, 1_500, 10_000)
"""Text lengths in raw characters."""
BATCH = 32
"""Number of texts per length, scored one by one, and in one batch."""
ALONE = "(normaliser alone)"

Answer = Callable[[list[str]], Any]
"""Scores normalised texts."""


def cut_or_join(messages: Sequence[str], length: int, count: int) -> list[str]:
    """``count`` texts of ``length`` characters: messages, joined to the next ones if too short, truncated if too long."""
    texts = []
    for first in range(count):
        number, text = first, messages[first % len(messages)]
        while len(text) < length:
            number += 1
            text += "\n" + messages[number % len(messages)]
        texts.append(text[:length])
    return texts


def seconds(answer: Answer, normaliser: Normaliser, raw: Sequence[str]) -> float:
    """Seconds from raw texts to their scores."""
    begin = time.perf_counter()
    answer([normaliser(text) for text in raw])
    return time.perf_counter() - begin


def latency_us(
    answers: Mapping[str, Answer], normaliser: Normaliser, texts: Mapping[int, list[str]], rounds: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Microseconds per message by model, length and mode (single, batch): medians over rounds in which all take turns."""
    single = {(name, length): np.zeros((rounds, len(raw))) for name in answers for length, raw in texts.items()}
    batch = {key: np.zeros(rounds) for key in single}
    for turn in tqdm(range(-1, rounds), desc="timing", unit=" rounds"):  # the first is a warm-up, and is overwritten
        for length, raw in texts.items():
            for name, answer in answers.items():
                single[name, length][turn] = [seconds(answer, normaliser, [text]) for text in raw]
            for name, answer in answers.items():
                batch[name, length][turn] = seconds(answer, normaliser, raw) / len(raw)
    return {
        name: {
            str(length): {
                "single": round(float(np.median(single[name, length], axis=0).mean() * 1e6), 1),
                "batch": round(float(np.median(batch[name, length]) * 1e6), 1),
            }
            for length in texts
        }
        for name in answers
    }


def as_evaluated(models: Mapping[str, Any], length: str, way: str) -> dict[str, Any]:
    """The models at one length and mode, in the format of the evaluation, so that the same rule finds the fastest teacher."""
    return {
        name: {
            "metrics": {split: {"pr_auc": value} for split, value in entry["pr_auc"].items()},
            "latency_us": entry["latency_us"][length][way],
        }
        for name, entry in models.items()
        if entry["pr_auc"]
    }


def table(report: Mapping[str, Any], length: str) -> str:
    """Markdown table for one length, the fastest first."""
    models, against = report["models"], report["against"][length]
    splits = [split for split in HELD_OUT if split in models[report["teacher"]]["pr_auc"]]
    header = ["model", *("µs", "a second", "times faster", f"µs in {BATCH}", "a second", "times faster"), "bytes", "MB"]
    header += [f"PR-AUC {split}" for split in splits]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for name in sorted(models, key=lambda name: models[name]["latency_us"][length]["single"]):
        entry, cells = models[name], [name]
        for way in ("single", "batch"):
            latency = entry["latency_us"][length][way]
            times = models[against[way]]["latency_us"][length][way] / latency
            cells += [f"{latency:,.0f}", f"{1e6 / latency:,.0f}", "" if name == ALONE else f"{times:.1f}"]
        cells += [f"{entry['bytes']:,}", f"{entry['resident_over_numpy'] / 1e6:,.0f}"] if "bytes" in entry else ["", ""]
        lines.append(cells + [f"{entry['pr_auc'][split]:.4f}" if entry["pr_auc"] else "" for split in splits])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def load(folder: Path, threads: int) -> Rival:
    """One of our variants or a rival. Raises StageError if it cannot be loaded."""
    try:
        found = read_json(folder / "variant.json")["format"]
        return KINDS[found](folder) if found in KINDS else load_variant(folder, threads)
    except (OSError, KeyError, ValueError) as error:
        raise StageError(f"models/{folder.name} cannot be loaded ({error}): `make run` makes it") from error


@dataclass(frozen=True)
class Data:
    """The data on which all models are measured."""

    rows: pd.DataFrame
    settings: dict[str, Any]
    """``data/schema.json``."""
    texts: dict[int, list[str]]

    @property
    def positive(self) -> int | None:
        label = self.settings["positive"]
        return None if label is None else int(self.settings["labels"].index(label))

    def part(self, split: str) -> pd.DataFrame:
        return self.rows[self.rows.split == split]


def read(paths: Paths, teacher: str) -> Data:
    """The messages, and texts of all lengths. Raises StageError if the pipeline has not been run."""
    for needed in (paths.prepared, paths.schema, paths.model(teacher) / "variant.json"):
        if not needed.exists():
            raise StageError(f"{needed.relative_to(paths.root)} is missing: `make run` makes it")
    rows = pd.read_parquet(paths.prepared)
    raw = list(rows[rows.split == "test"].raw.sample(frac=1, random_state=1))
    return Data(rows, read_json(paths.schema), {length: cut_or_join(raw, length, BATCH) for length in LENGTHS})


def quality(model: Rival, data: Data) -> dict[str, float]:
    """PR-AUC on each non-empty split."""
    parts = {split: part for split in HELD_OUT if len(part := data.part(split))}
    return {
        split: round(ranking(model.logits(list(part.input)), part.label_id.to_numpy(), data.positive)["pr_auc"], 6)
        for split, part in parts.items()
    }


def describe(folder: Path, model: Rival, data: Data, bare: int) -> dict[str, Any]:
    """The figures of one model except latency. ``bare``: memory of a process with NumPy only."""
    memory = resident(folder, data.settings["normaliser"], data.texts[LENGTHS[1]][0])
    sizes = {"bytes": folder_bytes(folder), "resident": memory, "resident_over_numpy": memory - bare}
    return sizes | {"pr_auc": quality(model, data)}


def measure(paths: Paths, rounds: int, threads: int, evaluate_rivals: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the whole report, the rivals with evaluate's metrics: empty unless ``evaluate_rivals``).

    Raises StageError if there is no model to measure.
    """
    params = read_params(paths.root)
    settings = read_settings(Evaluate, "evaluate", params)
    data = read(paths, settings.teacher)
    ours = sorted(path.parent for path in paths.models.glob("*/variant.json"))
    bare = resident(None, {}, "")
    # The limit applies to training too: several threads are very slow on a host with other load.
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="restill-") as folder_name, threadpool_limits(threads):
        labels, encoder = len(data.settings["labels"]), str(params["train"]["model"])
        rivals = fit_rivals(Task(data.part("train"), data.part("valid"), labels, data.positive, encoder, Path(folder_name)))
        loaded = {folder: load(folder, threads) for folder in [*ours, *rivals]}
        progress = tqdm(loaded.items(), desc="quality and memory", unit=" models")
        models: dict[str, Any] = {folder.name: describe(folder, model, data, bare) for folder, model in progress}
        answers: dict[str, Answer] = {folder.name: model.logits for folder, model in loaded.items()}
        answers[ALONE], models[ALONE] = len, {"pr_auc": {}}
        figures = rival_figures(loaded, rivals, settings, paths) if evaluate_rivals else {}
        latencies = latency_us(answers, Normaliser.from_settings(data.settings["normaliser"]), data.texts, rounds)
    models = {name: entry | {"latency_us": latencies[name]} for name, entry in models.items()}
    against = {
        length: {
            way: fastest_teacher(as_evaluated(models, length, way), settings.teacher, settings.margin)
            for way in ("single", "batch")
        }
        for length in map(str, LENGTHS)
    }
    facts = {"teacher": settings.teacher, "threads": threads, "rounds": rounds, "texts": BATCH, "numpy_alone": bare}
    return facts | {"against": against, "models": models}, figures


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="medians are over so many; default 7")
    parser.add_argument("--threads", type=int, default=1, help="of every model, in training too; default 1")
    parser.add_argument("--out", type=Path, default=Path("reports/speed.json"), help="where the figures go as JSON")
    parser.add_argument("--rivals", type=Path, help="where the rivals go as evaluate would judge them (compression.rivals)")
    arguments = parse(parser)
    if arguments.rivals and arguments.threads != 1:
        parser.error("--rivals: evaluate times one thread, so --threads must be 1")
    # Tokenizers in Rust would use all cores for a batch, regardless of the limits of torch and ONNX Runtime.
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if arguments.threads > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    try:
        report, rivals = measure(Paths(Path.cwd()), arguments.rounds, arguments.threads, arguments.rivals is not None)
    except StageError as error:
        sys.exit(f"speed: {error}")
    write_json(arguments.out, report)
    if arguments.rivals:
        write_json(arguments.rivals, rivals)
    for length in LENGTHS:
        against = " and ".join(dict.fromkeys(report["against"][str(length)].values()))
        print(f"\n{length:,} raw characters, {arguments.threads} thread(s); times faster than {against}\n")
        print(table(report, str(length)))
    print("\nMB: resident memory of a process with this model alone, over one with NumPy alone.")


if __name__ == "__main__":
    main()
