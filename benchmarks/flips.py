"""Flipped feedback labels through a whole retraining on real mail: does a release that learned from them get through?

    make demo && python -m benchmarks.flips [--shares 0 0.05 0.2] [--world var/replay/world]

Takes the world that the replay left behind, with its champion and the labels that its reviewer gave. For each share it
flips that many of the labels in a copy of the world, writes an intent by hand, and runs the flow restill: snapshot,
training, gate. What is told: the outcome, and the checks that stopped it. Exit code 1 where a release that learned from
flipped labels was promoted. Share 0 is the control: the same retraining with the labels as they were given.
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
from tasks.monitor.state import State
from tasks.replay.world import run_in, world_environment
from tasks.stage import StageError


def flip(folder: Path, share: float, labels: list[str], seed: int) -> tuple[int, int]:
    """Rewrite the feedback in ``folder`` with a share of its labels changed to another one; (how many, of how many)."""
    rng = np.random.default_rng(seed)
    stored = [(path, read(path)) for path in segments(folder)]
    given = [record for _, records in stored for record in records if record["kind"] == "feedback"]
    chosen = rng.choice(len(given), round(share * len(given)), replace=False)
    for record in (given[number] for number in chosen):
        record["label"] = rng.choice([label for label in labels if label != record["label"]]).item()
    for path, records in stored:
        path.write_bytes(b"".join(encode(record) for record in records))
    return len(chosen), len(given)


def retrain(world: Path, share: float, seed: int) -> dict[str, Any]:
    """One retraining in a copy of ``world`` that is thrown away."""
    copy = world.with_name(f"{world.name}-flipped")
    if copy.exists():
        shutil.rmtree(copy)
    shutil.copytree(world, copy, symlinks=True)
    try:
        environment = world_environment(copy)
        labels = json.loads((copy / "data/schema.json").read_text(encoding="utf-8"))["labels"]
        flipped, given = flip(copy / "var/feedback", share, labels, seed)
        state = State(copy / "var/monitor/state.db")
        asked = state.ask(f"{share:.0%} of the labels are flipped", datetime.now(UTC))
        run_in(copy, environment, copy / "flips.log", sys.executable, "-m", "flows.restill")
        intent = state.intent(asked.id)
        report = json.loads(Path(intent.facts["gate"]).read_text(encoding="utf-8"))
        figure = next(check for check in report["checks"] if check["name"] == "labels")
        return {
            "share": share, "flipped": flipped, "labels": given, "outcome": intent.outcome,
            "failed": intent.facts["failed"], "doubted": figure["figure"],
        }  # fmt: skip
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flips", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--world", type=Path, default=Path("var/replay/world"), help="what `make demo` left behind")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.05, 0.2], help="shares of the labels to flip")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if not (given.world / "var/feedback").is_dir():
        sys.exit(f"flips: {given.world} has no feedback: `make demo` makes such a world")
    try:
        found = [retrain(given.world.resolve(), share, given.seed) for share in tqdm(given.shares, desc="retrainings")]
    except StageError as error:
        sys.exit(f"flips: {error}")
    print("flipped  of labels  doubted  outcome    stopped by")
    for entry in found:
        names = ", ".join(reason.split(":")[0] for reason in entry["failed"])
        print(f"{entry['share']:7.0%}  {entry['labels']:9}  {entry['doubted']:7.1%}  {entry['outcome']:9}  {names}")
    print(json.dumps(found, indent=1))
    sys.exit(any(entry["share"] and entry["outcome"] == "promoted" for entry in found))


if __name__ == "__main__":
    main()
