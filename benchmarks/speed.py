"""From raw text to score: every model that stands in models/ against other fast classifiers, on the same texts.

    python -m benchmarks.speed [--rounds 7] [--threads 1] [--out reports/speed.json] [--rivals data/rivals.json]

Rivals are Model2Vec (distilled from the encoder that the teacher was made of) and fastText, trained on the train split
in a temporary folder; `pip install -c constraints.txt -e '.[bench]'` installs them, and what is not installed is left out.
TF-IDF with logistic regression is `baseline`. Texts are messages of the test split, cut or joined to 200, 1,500 and
10,000 raw characters; each goes through the release's normaliser, whose time is counted for all alike. All models take
turns in every round, so that what else the machine does slows all of them. A model is `times faster` than the fastest
form of the teacher that keeps its PR-AUC, at the same length and batch. With --rivals, the rivals' figures are written as
evaluate takes them too: the report of the stage compression shows them beside our own.
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
from service.text import Normaliser
from tasks.metrics import ranking
from tasks.model.variants import load_variant
from tasks.release.evaluate import Evaluate
from tasks.release.scores import HELD_OUT
from tasks.release.teacher_comparison import fastest_teacher
from tasks.stage import Paths, StageError, folder_bytes, read_json, read_params, read_settings, write_json

LENGTHS = (200, 1_500, 10_000)
"""Raw characters of a text."""
BATCH = 32
"""Texts of each length, asked for one by one, and all at once."""
ALONE = "(normaliser alone)"

Answer = Callable[[list[str]], Any]
"""Normalised texts in."""


def cut_or_join(messages: Sequence[str], length: int, count: int) -> list[str]:
    """``count`` texts of ``length`` characters: messages, joined to the next ones where too short, cut where too long."""
    texts = []
    for first in range(count):
        number, text = first, messages[first % len(messages)]
        while len(text) < length:
            number += 1
            text += "\n" + messages[number % len(messages)]
        texts.append(text[:length])
    return texts


def seconds(answer: Answer, normaliser: Normaliser, raw: Sequence[str]) -> float:
    """From raw texts to their scores."""
    begin = time.perf_counter()
    answer([normaliser(text) for text in raw])
    return time.perf_counter() - begin


def latency_us(
    answers: Mapping[str, Answer], normaliser: Normaliser, texts: Mapping[int, list[str]], rounds: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Microseconds a message by model, length and way of asking: medians over rounds in which all take their turn."""
    single = {(name, length): np.zeros((rounds, len(raw))) for name in answers for length, raw in texts.items()}
    batch = {key: np.zeros(rounds) for key in single}
    for turn in tqdm(range(-1, rounds), desc="timing", unit=" rounds"):  # the first warms up, and is overwritten
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
    """The models at one length and way of asking, as entries of the evaluation: one rule tells the teacher's forms in both."""
    return {
        name: {
            "metrics": {split: {"pr_auc": value} for split, value in entry["pr_auc"].items()},
            "latency_us": entry["latency_us"][length][way],
        }
        for name, entry in models.items()
        if entry["pr_auc"]
    }


def table(report: Mapping[str, Any], length: str) -> str:
    """One length in Markdown, the fastest first."""
    models, against = report["models"], report["against"][length]
    splits = [split for split in HELD_OUT if split in models[report["teacher"]]["pr_auc"]]
    heads = ["model", *("µs", "a second", "times faster", f"µs in {BATCH}", "a second", "times faster"), "bytes", "MB"]
    heads += [f"PR-AUC {split}" for split in splits]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for name in sorted(models, key=lambda name: models[name]["latency_us"][length]["single"]):
        entry, cells = models[name], [name]
        for way in ("single", "batch"):
            here = entry["latency_us"][length][way]
            times = models[against[way]]["latency_us"][length][way] / here
            cells += [f"{here:,.0f}", f"{1e6 / here:,.0f}", "" if name == ALONE else f"{times:.1f}"]
        cells += [f"{entry['bytes']:,}", f"{entry['resident_over_numpy'] / 1e6:,.0f}"] if "bytes" in entry else ["", ""]
        lines.append(cells + [f"{entry['pr_auc'][split]:.4f}" if entry["pr_auc"] else "" for split in splits])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def load(folder: Path, threads: int) -> Rival:
    """A variant of ours or a rival. Raises StageError for a folder that cannot be loaded."""
    try:
        kind = read_json(folder / "variant.json")["kind"]
        return KINDS[kind](folder) if kind in KINDS else load_variant(folder, threads)
    except (OSError, KeyError, ValueError) as error:
        raise StageError(f"models/{folder.name} cannot be loaded ({error}): `make run` makes it") from error


@dataclass(frozen=True)
class Data:
    """What all models are asked."""

    rows: pd.DataFrame
    settings: dict[str, Any]
    """``data/schema.json``."""
    texts: dict[int, list[str]]

    @property
    def positive(self) -> int | None:
        named = self.settings["positive"]
        return None if named is None else int(self.settings["labels"].index(named))

    def part(self, split: str) -> pd.DataFrame:
        return self.rows[self.rows.split == split]


def read(paths: Paths, teacher: str) -> Data:
    """The messages, and texts of all lengths. Raises StageError where the pipeline has not been run."""
    for needed in (paths.prepared, paths.schema, paths.model(teacher) / "variant.json"):
        if not needed.exists():
            raise StageError(f"{needed.relative_to(paths.root)} is missing: `make run` makes it")
    rows = pd.read_parquet(paths.prepared)
    raw = list(rows[rows.split == "test"].raw.sample(frac=1, random_state=1))
    return Data(rows, read_json(paths.schema), {length: cut_or_join(raw, length, BATCH) for length in LENGTHS})


def quality(model: Rival, data: Data) -> dict[str, float]:
    """PR-AUC on each split that there is."""
    parts = {split: part for split in HELD_OUT if len(part := data.part(split))}
    return {
        split: round(ranking(model.logits(list(part.text)), part.label_id.to_numpy(), data.positive)["pr_auc"], 6)
        for split, part in parts.items()
    }


def describe(folder: Path, model: Rival, data: Data, bare: int) -> dict[str, Any]:
    """All but the time of one model. ``bare``: the memory of NumPy alone."""
    held = resident(folder, data.settings["normaliser"], data.texts[LENGTHS[1]][0])
    sizes = {"bytes": folder_bytes(folder), "resident": held, "resident_over_numpy": held - bare}
    return sizes | {"pr_auc": quality(model, data)}


def measure(paths: Paths, rounds: int, threads: int, beside: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the whole report, the rivals as evaluate would judge them: empty, unless ``beside``).

    Raises StageError where there is no model to measure.
    """
    params = read_params(paths.root)
    settings = read_settings(Evaluate, "evaluate", params)
    data = read(paths, settings.teacher)
    ours = sorted(path.parent for path in paths.models.glob("*/variant.json"))
    bare = resident(None, {}, "")
    # The limit holds for training too: two threads that wait for each other crawl on a host that has other work.
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="restill-") as place, threadpool_limits(threads):
        labels, encoder = len(data.settings["labels"]), str(params["train"]["model"])
        rivals = fit_rivals(Task(data.part("train"), data.part("valid"), labels, data.positive, encoder, Path(place)))
        loaded = {folder: load(folder, threads) for folder in [*ours, *rivals]}
        told = tqdm(loaded.items(), desc="quality and memory", unit=" models")
        models: dict[str, Any] = {folder.name: describe(folder, model, data, bare) for folder, model in told}
        answers: dict[str, Answer] = {folder.name: model.logits for folder, model in loaded.items()}
        answers[ALONE], models[ALONE] = len, {"pr_auc": {}}
        figures = rival_figures(loaded, rivals, settings, paths) if beside else {}
        taken = latency_us(answers, Normaliser.from_settings(data.settings["normaliser"]), data.texts, rounds)
    models = {name: entry | {"latency_us": taken[name]} for name, entry in models.items()}
    against = {
        length: {
            way: fastest_teacher(as_evaluated(models, length, way), settings.teacher, settings.margin)
            for way in ("single", "batch")
        }
        for length in map(str, LENGTHS)
    }
    shape = {"teacher": settings.teacher, "threads": threads, "rounds": rounds, "texts": BATCH, "numpy_alone": bare}
    return shape | {"against": against, "models": models}, figures


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="medians are over so many; default 7")
    parser.add_argument("--threads", type=int, default=1, help="of every model, in training too; default 1")
    parser.add_argument("--out", type=Path, default=Path("reports/speed.json"), help="where the figures go as JSON")
    parser.add_argument("--rivals", type=Path, help="where the rivals go as evaluate would judge them (compression.rivals)")
    given = parser.parse_args()
    if given.rivals and given.threads != 1:
        parser.error("--rivals: evaluate times one thread, so --threads must be 1")
    # Tokenizers in Rust would share a batch among all cores, whatever torch and ONNX Runtime were told.
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if given.threads > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(given.threads)
    try:
        report, rivals = measure(Paths(Path.cwd()), given.rounds, given.threads, given.rivals is not None)
    except StageError as error:
        sys.exit(f"speed: {error}")
    write_json(given.out, report)
    if given.rivals:
        write_json(given.rivals, rivals)
    for length in LENGTHS:
        against = " and ".join(dict.fromkeys(report["against"][str(length)].values()))
        print(f"\n{length:,} raw characters, {given.threads} thread(s); times faster than {against}\n")
        print(table(report, str(length)))
    print("\nMB: resident memory of a process with this model alone, over one with NumPy alone.")


if __name__ == "__main__":
    main()
