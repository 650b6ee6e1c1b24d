"""Retraining on flipped feedback labels of real mail: does the gate reject a release trained on them?

    make demo && python -m benchmarks.flips [--shares 0 0.05 0.2] [--world var/mail/replay/world]

Uses the world that the replay left behind, with its champion and its reviewer's labels. For each share it flips that share
of the labels in a copy of the world, creates an intent by hand, and runs the flow restill: snapshot, training, gate. Prints
the outcome and the failed checks. Exit code 1 where a release trained on flipped labels was promoted. Share 0 is the
control: the same retraining with the original labels.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from service.segments import encode, read, segments
from tasks.files import read_json
from tasks.monitor.state import State
from tasks.replay.world import run_in, world_environment
from tasks.stage import Paths, StageError


def flip(folder: Path, share: float, labels: list[str], seed: int) -> tuple[int, int]:
    """Change a share of the feedback labels in ``folder`` to another one; (number changed, number of labels)."""
    rng = np.random.default_rng(seed)
    stored = [(path, read(path)) for path in segments(folder)]
    feedback = [record for _, records in stored for record in records if record["kind"] == "feedback"]
    chosen = rng.choice(len(feedback), round(share * len(feedback)), replace=False)
    for record in (feedback[number] for number in chosen):
        record["label"] = rng.choice([label for label in labels if label != record["label"]]).item()
    for path, records in stored:
        path.write_bytes(b"".join(encode(record) for record in records))
    return len(chosen), len(feedback)


def retrain(world: Path, share: float, seed: int) -> dict[str, Any]:
    """One retraining in a temporary copy of ``world``."""
    copy = world.with_name(f"{world.name}-flipped")
    if copy.exists():
        shutil.rmtree(copy)
    shutil.copytree(world, copy, symlinks=True)
    try:
        environment = world_environment(copy)
        (feedback,) = copy.glob("var/*/feedback")
        paths = Paths(copy / "workloads" / feedback.parent.name, feedback.parent)
        labels = read_json(paths.schema)["labels"]
        flipped, total = flip(paths.feedback, share, labels, seed)
        state = State(paths.monitor / "state.db")
        intent = state.ask(f"{share:.0%} of the labels are flipped", datetime.now(UTC))
        run_in(paths.root, environment, copy / "flips.log", sys.executable, "-m", "flows.restill")
        intent = state.intent(intent.id)
        report = json.loads(Path(intent.facts["gate"]).read_text(encoding="utf-8"))
        label_check = next(check for check in report["checks"] if check["name"] == "labels")
        return {
            "share": share, "flipped": flipped, "labels": total, "outcome": intent.outcome,
            "failed": intent.facts["failed"], "doubted": label_check["figure"],
        }  # fmt: skip
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flips", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--world", type=Path, default=Path("var/mail/replay/world"), help="what `make demo` left behind")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.05, 0.2], help="shares of the labels to flip")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if not list(arguments.world.glob("var/*/feedback")):
        sys.exit(f"flips: {arguments.world} has no feedback: `make demo` makes such a world")
    try:
        results = [
            retrain(arguments.world.resolve(), share, arguments.seed) for share in tqdm(arguments.shares, desc="retrainings")
        ]
    except StageError as error:
        sys.exit(f"flips: {error}")
    print("flipped  of labels  doubted  outcome    stopped by")
    for entry in results:
        names = ", ".join(reason.split(":")[0] for reason in entry["failed"])
        print(f"{entry['share']:7.0%}  {entry['labels']:9}  {entry['doubted']:7.1%}  {entry['outcome']:9}  {names}")
    print(json.dumps(results, indent=1))
    sys.exit(any(entry["share"] and entry["outcome"] == "promoted" for entry in results))


if __name__ == "__main__":
    main()
