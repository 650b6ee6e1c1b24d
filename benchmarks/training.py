"""Our training of the teacher against a plain one: the same encoder, messages, seed and rates under transformers.Trainer.

    python -m benchmarks.training [--out reports/training.json] [--epochs N]

Ours is the stage train as it stands: windows, batches of like lengths, bfloat16 where the processor gains from it. The
plain run has its epochs, batch size, learning rate, warm-up, weight decay and threads from the same block of params.yaml,
and all else from Trainer's defaults: float32, random batches, padding to the longest message of a batch, which is cut to
`train.window_tokens`, and in a second run to as many tokens as our windows read together. Both look at valid equally often,
each in its own way of reading a message. Seconds run from raw texts on; the looks (with ours the checkpoint too) are counted
apart. Nobody stops early. Runs are kept in the JSON file as they end: a second call makes those that are missing.

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
from service.token_windows import TokenWindows, tokenize
from tasks.lineage import sha256
from tasks.metrics import mean_one
from tasks.model.batches import Data
from tasks.model.checkpoint import Checkpoint
from tasks.model.teacher import Teacher, load_encoder
from tasks.model.train import Train, Training, make_deterministic
from tasks.stage import Paths, StageError, read_json, read_params, read_settings, write_json
from tasks.tracking import Tracker


class TimedTraining(Training):
    """Our training, the time of its looks at valid taken apart."""

    clock: Clock

    def _evaluate(self, batches: int, loss: float, tracker: Tracker | None) -> None:
        with self.clock.look():
            super()._evaluate(batches, loss, tracker)
        self.clock.note(batches, self.progress.history[-1]["valid_pr_auc"])


def fit_ours(task: Task) -> Clock:
    """One run of the stage's training from raw texts to its last batch, its checkpoints thrown away."""
    settings = task.settings
    make_deterministic(settings.seed, settings.threads)
    encoder, tokenizer = load_encoder(settings.model)
    model = Teacher(encoder, task.labels, settings.dropout)
    shape = TokenWindows(settings.window_tokens, settings.windows)
    valid = tokenize(tokenizer, list(task.valid.text), shape)
    with tempfile.TemporaryDirectory(prefix="restill-") as folder:
        clock = Clock()
        data = Data(
            tokenize(tokenizer, list(task.train.text), shape),
            task.train.label_id.to_numpy(),
            mean_one(task.train.weight.to_numpy()),
            valid,
            task.valid.label_id.to_numpy(),
            task.valid.weight.to_numpy(),
            tokenizer.pad_token_id or 0,
        )
        training = TimedTraining(settings, model, data, torch.device("cpu"), Checkpoint(Path(folder), OURS))
        training.clock = clock
        training.fit(tracker=None)
    return clock


def runs(settings: Train, longest: int, tuned: bool) -> dict[str, Callable[[Task], Clock]]:
    """Every training by its name in the table; the plain ones with each length at which a message is cut."""
    found: dict[str, Callable[[Task], Clock]] = {OURS: fit_ours}
    for switched in (False, True) if tuned else (False,):
        for tokens in sorted({min(settings.window_tokens, longest), longest}):
            name = f"Trainer{', tuned' if switched else ''}, {tokens} tokens"
            found[name] = partial(fit_plain, plain=Plain(tokens, switched))
    return found


def read_task(paths: Paths, limit: int | None = None, **given: float | None) -> Task:
    """The messages of train and valid under the project's own settings, but for what is ``given``; on the CPU, to the end."""
    for needed in (paths.prepared, paths.schema):
        if not needed.exists():
            raise StageError(f"{needed.relative_to(paths.root)} is missing: `make run` makes it")
    settings = read_settings(Train, "train", read_params(paths.root))
    changes = {name: value for name, value in given.items() if value is not None}
    settings = settings.model_copy(update=changes | {"device": "cpu", "patience": sys.maxsize})
    rows = pd.read_parquet(paths.prepared, columns=["split", "label_id", "weight", "text"])
    train, valid = (rows[rows.split == split] for split in ("train", "valid"))
    if limit:
        train, valid = (part.sample(min(limit, len(part)), random_state=settings.seed) for part in (train, valid))
    if valid.label_id.nunique() < 2:
        raise StageError(f"--limit {limit}: valid has one label only, and no PR-AUC: take more")
    return Task(settings, train, valid, len(read_json(paths.schema)["labels"]))


def identity(task: Task, paths: Paths, name: str) -> str:
    """What a kept run must agree in to count as this one."""
    threads = task.settings.threads or os.cpu_count()
    facts = (name, task.settings.model_dump_json(), sha256(paths.prepared), len(task.train), len(task.valid), threads)
    return hashlib.sha256(f"{facts} {torch.__version__} {transformers.__version__}".encode()).hexdigest()


def measure(paths: Paths, task: Task, out: Path, tuned: bool) -> dict[str, Any]:
    """Every run by its name, those that ``out`` holds already and those made now, each kept there as it ends."""
    require_accelerate()
    kept: dict[str, Any] = read_json(out)["runs"] if out.exists() else {}
    wanted = runs(task.settings, longest_input(task.settings), tuned)
    for name, fit in wanted.items():
        key = identity(task, paths, name)
        if kept.get(name, {}).get("key") == key:
            continue
        print(f"training: {name}", file=sys.stderr)
        with redirect_stdout(sys.stderr):  # Trainer prints what it logs; stdout is the table's
            kept[name] = {"key": key, "curve": fit(task).curve}
        write_json(out, {"runs": kept})
    return {name: kept[name] for name in wanted}


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
    given = parser.parse_args()
    paths = Paths(Path.cwd())
    try:
        task = read_task(paths, given.limit, epochs=given.epochs, evaluate_every=given.every, threads=given.threads)
        found = measure(paths, task, given.out, given.tuned)
    except StageError as error:
        sys.exit(f"training: {error}")
    curves = {name: run["curve"] for name, run in found.items()}
    score = given.score if given.score is not None else reached_by_all(list(curves.values()))
    figures = compare(curves, score)
    threads = task.settings.threads or os.cpu_count()
    facts = {"score": score, "threads": threads, "settings": task.settings.model_dump(mode="json", exclude={"patience"})}
    write_json(given.out, read_json(given.out) | facts | {"figures": figures})
    asked = f"{len(task.train):,} messages, {task.settings.epochs} epoch(s), {threads} thread(s)"
    print(f"\n{asked}; times ours: how many times as long as ours\n")
    print(table(figures, score))


if __name__ == "__main__":
    main()
