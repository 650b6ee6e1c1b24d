"""Our training of the teacher against transformers.Trainer with the same encoder, messages, seed and rates.

    python -m benchmarks.training [--out reports/training.json] [--epochs N]

Ours is the stage train: windows, batches of similar lengths, bfloat16 where the processor benefits. The plain run takes
epochs, batch size, learning rate, warm-up, weight decay and threads from the same block of params.yaml, and otherwise
Trainer's defaults: float32, random batches, padding to the longest message of a batch, truncated to `train.window_tokens`,
and in a second run to as many tokens as our windows read together. Both evaluate on valid equally often, with their own
tokenization. Seconds count from raw texts on; evaluations (in ours with the checkpoint) are timed separately. There is no
early stopping. Finished runs are stored in the JSON file: a second call makes the missing ones.

Trainer needs accelerate: `pip install -c constraints.txt -e '.[bench]'`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers

from benchmarks.curves import OURS, Clock, compare, reached_by_all, table
from benchmarks.plain_training import Plain, Task, fit_plain, longest_input, require_accelerate
from benchmarks.workload import parse
from tasks.files import read_json, write_json
from tasks.kinds.text_classification.model.learning import new_teacher
from tasks.kinds.text_classification.model.settings import Train
from tasks.lineage import sha256
from tasks.metrics import mean_one
from tasks.model.checkpoint import Checkpoint
from tasks.model.device import make_deterministic
from tasks.model.train import Data, Training
from tasks.stage import Paths, StageError, read_params, read_settings
from tasks.tracking import Tracker


class TimedTraining(Training):
    """Our training with its evaluations on valid timed separately."""

    clock: Clock

    def _evaluate(self, batches: int, loss: float, tracker: Tracker | None) -> None:
        with self.clock.look():
            super()._evaluate(batches, loss, tracker)
        self.clock.note(batches, self.progress.history[-1]["valid_pr_auc"])


def fit_ours(task: Task) -> Clock:
    """One run of the stage's training from raw texts to its last batch; its checkpoints are discarded."""
    settings = task.settings
    make_deterministic(settings.seed, settings.threads)
    teacher = new_teacher(settings.model_copy(update={"frozen_layers": None}), task.labels, {})
    valid = teacher.encode(list(task.valid.input))
    with tempfile.TemporaryDirectory(prefix="restill-") as folder:
        clock = Clock()
        data = Data(
            teacher.encode(list(task.train.input)),
            task.train.label_id.to_numpy(),
            mean_one(task.train.weight.to_numpy()),
            valid,
            task.valid.label_id.to_numpy(),
            task.valid.weight.to_numpy(),
        )
        training = TimedTraining(settings, teacher, data, torch.device("cpu"), Checkpoint(Path(folder), OURS))
        training.clock = clock
        training.fit(tracker=None)
    return clock


def runs(settings: Train, longest: int, tuned: bool) -> dict[str, Callable[[Task], Clock]]:
    """Name in the table -> training; the plain ones with each truncation length."""
    trainings: dict[str, Callable[[Task], Clock]] = {OURS: fit_ours}
    for is_tuned in (False, True) if tuned else (False,):
        for tokens in sorted({min(settings.window_tokens, longest), longest}):
            name = f"Trainer{', tuned' if is_tuned else ''}, {tokens} tokens"
            trainings[name] = partial(fit_plain, plain=Plain(tokens, is_tuned))
    return trainings


def read_task(paths: Paths, limit: int | None = None, **overrides: float | None) -> Task:
    """Train and valid with the project's settings, except for ``overrides``; on the CPU, without early stopping."""
    for needed in (paths.prepared, paths.schema):
        if not needed.exists():
            raise StageError(f"{needed.relative_to(paths.root)} is missing: `make run` makes it")
    settings = read_settings(Train, "train", read_params(paths.root))
    changes = {name: value for name, value in overrides.items() if value is not None}
    settings = settings.model_copy(update=changes | {"device": "cpu", "patience": sys.maxsize})
    rows = pd.read_parquet(paths.prepared, columns=["split", "label_id", "weight", "input"])
    train, valid = (rows[rows.split == split] for split in ("train", "valid"))
    if limit:
        train, valid = (part.sample(min(limit, len(part)), random_state=settings.seed) for part in (train, valid))
    if valid.label_id.nunique() < 2:
        raise StageError(f"--limit {limit}: valid has one label only, and no PR-AUC: take more")
    return Task(settings, train, valid, len(read_json(paths.schema)["labels"]))


def identity(task: Task, paths: Paths, name: str) -> str:
    """The cache key of a stored run."""
    threads = task.settings.threads or os.cpu_count()
    facts = (name, task.settings.model_dump_json(), sha256(paths.prepared), len(task.train), len(task.valid), threads)
    return hashlib.sha256(f"{facts} {torch.__version__} {transformers.__version__}".encode()).hexdigest()


def measure(paths: Paths, task: Task, out: Path, tuned: bool) -> dict[str, Any]:
    """Name -> run: those stored in ``out`` already and those made now, each stored there when it ends."""
    require_accelerate()
    stored: dict[str, Any] = read_json(out)["runs"] if out.exists() else {}
    trainings = runs(task.settings, longest_input(task.settings), tuned)
    for name, fit in trainings.items():
        key = identity(task, paths, name)
        if stored.get(name, {}).get("key") == key:
            continue
        print(f"training: {name}", file=sys.stderr)
        with redirect_stdout(sys.stderr):  # Trainer prints its log; stdout is for the table
            stored[name] = {"key": key, "curve": fit(task).curve}
        write_json(out, {"runs": stored})
    return {name: stored[name] for name in trainings}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--epochs", type=int, help="default: train.epochs")
    parser.add_argument("--every", type=float, help="epochs between two looks at valid; default: train.evaluate_every")
    parser.add_argument("--threads", type=int, help="of torch, in every run; default: train.threads")
    parser.add_argument("--score", type=float, help="PR-AUC to reach; default: 0.002 below the best of the weakest run")
    parser.add_argument("--tuned", action="store_true", help="also Trainer with bfloat16 and batches of like lengths")
    parser.add_argument("--limit", type=int, help="so many messages of each split only, for a quick try")
    parser.add_argument("--out", type=Path, default=Path("reports/training.json"), help="where the figures go as JSON")
    arguments = parse(parser)
    paths = Paths(Path.cwd())
    try:
        task = read_task(
            paths, arguments.limit, epochs=arguments.epochs, evaluate_every=arguments.every, threads=arguments.threads
        )
        stored_runs = measure(paths, task, arguments.out, arguments.tuned)
    except StageError as error:
        sys.exit(f"training: {error}")
    curves = {name: run["curve"] for name, run in stored_runs.items()}
    score = arguments.score if arguments.score is not None else reached_by_all(list(curves.values()))
    figures = compare(curves, score)
    threads = task.settings.threads or os.cpu_count()
    facts = {"score": score, "threads": threads, "settings": task.settings.model_dump(mode="json", exclude={"patience"})}
    write_json(arguments.out, read_json(arguments.out) | facts | {"figures": figures})
    setup = f"{len(task.train):,} messages, {task.settings.epochs} epoch(s), {threads} thread(s)"
    print(f"\n{setup}; times ours: how many times as long as ours\n")
    print(table(figures, score))


if __name__ == "__main__":
    main()
