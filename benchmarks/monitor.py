"""Throughput of the monitor: windows and answers per second, and the share of time of each step.

    python -m benchmarks.monitor
    python -m benchmarks.monitor --windows 40 --seconds 20 --no-flow

A release's reference and its traffic are synthetic: journals of two workers, and labels for a tenth. The monitor judges slow
traffic, in windows of ``monitor.windows.count``, and traffic at each of the ``--rates``; then the flow itself judges the slow
traffic, including its reports. Prints tables; all figures go to ``--out``.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks.journals import project
from tasks.files import write_json
from tasks.monitor import watch
from tasks.monitor.policy import Decide
from tasks.monitor.settings import Monitor, read_monitor
from tasks.monitor.state import State
from tasks.stage import Paths, StageError, read_params

ROOT = Path(__file__).parents[1]
STEPS = {
    "cut": {("cutting.py", "cut_batch")},
    "read": {("window_records.py", "draw")},
    "signals": {("signals.py", "drift_signals"), ("quality.py", "quality_signals"), ("health.py", "health_signals")},
    "history": {("watch.py", "_before"), ("state.py", "attempts"), ("state.py", "labelled")},
    "decide": {("decide.py", "decide")},
    "write": {("state.py", "judge")},
}
"""Step -> its (file, function) pairs."""


@dataclass(frozen=True)
class Setting:
    """Inputs common to all runs."""

    monitor: Monitor
    policy: Decide
    reference: int
    """Messages of the release's reference."""
    features: int

    def project(self, answers: int, rate: float) -> AbstractContextManager[Paths]:
        return project(self.reference, self.features, answers, rate)


def judge(setting: Setting, paths: Paths) -> dict[str, Any]:
    """Cut and judge all of the traffic; counts and times."""
    start, cpu_start = time.perf_counter(), time.process_time()
    state = State(paths.monitor / "state.db")
    watch.cut(setting.monitor, state, paths)
    watcher = watch.Watcher(setting.monitor, setting.policy, state, paths)
    judgements: list[watch.Judgement] = []
    while batch := watcher.judge_next():
        judgements += batch
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    rows = sum(judgement.window.plan.rows for judgement in judgements)
    actions = Counter(judgement.decision.action for judgement in judgements)
    return {
        "windows": len(judgements), "answers": rows, "seconds": seconds, "cpu_seconds": cpu,
        "windows_a_second": len(judgements) / seconds, "answers_a_second": rows / seconds, "actions": dict(actions),
    }  # fmt: skip


def shares(setting: Setting, paths: Paths) -> dict[str, float]:
    """Share of the time per step, measured by the profiler, which slows all of them."""
    profile = cProfile.Profile()
    profile.runcall(judge, setting, paths)
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    cumulative = {(Path(file).name, name): entry[3] for (file, _, name), entry in stats.items()}
    total = cumulative["monitor.py", "judge"]
    by_step = {step: sum(cumulative.get(function, 0.0) for function in functions) / total for step, functions in STEPS.items()}
    return by_step | {"other": max(0.0, 1 - sum(by_step.values()))}


def run_flow(paths: Paths) -> tuple[float, str]:
    """(seconds of one run of the flow monitor in ``paths``, its last line)."""
    variables = {"RESTILL_HOME": str(paths.root / "var"), "PREFECT_HOME": str(paths.root / "prefect"), "PYTHONPATH": str(ROOT)}
    removed = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-m", "flows.monitor"], cwd=paths.root, capture_output=True, encoding="utf-8", check=False,
        env={name: value for name, value in os.environ.items() if name not in removed} | variables,
    )  # fmt: skip
    if process.returncode:
        raise StageError(f"the flow ended with {process.returncode}: {process.stderr[-2000:]}")
    return time.perf_counter() - start, (process.stdout.splitlines() or [""])[-1]


def measure_flow(setting: Setting, windows: int) -> dict[str, Any]:
    """The flow on slow traffic, and again with nothing to do: the difference is the cost of the windows."""
    with setting.project(windows * setting.monitor.windows.count, 1) as paths:
        shutil.copy(ROOT / "workloads/mail/params.yaml", paths.root)
        (seconds, output), (idle_seconds, _) = run_flow(paths), run_flow(paths)
    return {"windows": windows, "seconds": seconds, "seconds_with_nothing_to_do": idle_seconds, "said": output}


def measure(setting: Setting, windows: int, rates: Sequence[float], seconds: float, flow: bool) -> dict[str, Any]:
    answers = windows * setting.monitor.windows.count
    with setting.project(answers, 1) as paths:
        result: dict[str, Any] = {"slow": judge(setting, paths)}
    with setting.project(answers, 1) as paths:
        result["shares"] = shares(setting, paths)
    result["dense"] = {}
    for rate in rates:
        with setting.project(int(rate * seconds), rate) as paths:
            result["dense"][f"{rate:g}"] = judge(setting, paths)
    if flow:
        result["flow"] = measure_flow(setting, windows)
    return result


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown tables."""
    lines = [
        "| traffic | windows | answers | windows a second | answers a second | CPU milliseconds a window |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    dense = {f"{rate} answers a second": figures for rate, figures in result["dense"].items()}
    for name, figures in {"slow": result["slow"], **dense}.items():
        lines.append(
            f"| {name} | {figures['windows']} | {figures['answers']:,} | {figures['windows_a_second']:.1f} "
            f"| {figures['answers_a_second']:,.0f} | {1000 * figures['cpu_seconds'] / figures['windows']:,.1f} |"
        )
    lines += ["", "| step | share of the time |", "| --- | ---: |"]
    lines += [f"| {step} | {share:.0%} |" for step, share in result["shares"].items()]
    if flow := result.get("flow"):
        idle = f"{flow['seconds_with_nothing_to_do']:.1f} s with nothing to do"
        lines += [
            "",
            f"The flow took {flow['seconds']:.1f} s for {flow['windows']} windows and what it shows of them, {idle}.",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.monitor", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--windows", type=int, default=400, help="of slow traffic")
    parser.add_argument("--rates", type=float, nargs="*", default=[700, 3000], help="answers a second of dense traffic")
    parser.add_argument("--seconds", type=float, default=60, help="of dense traffic")
    parser.add_argument("--reference", type=int, default=1300, help="messages of the release's reference")
    parser.add_argument("--features", type=int, default=8, help="pooled features of its model")
    parser.add_argument("--no-flow", action="store_true", help="leave the flow out")
    parser.add_argument("--out", type=Path, default=Path("reports/benchmarks"))
    arguments = parser.parse_args()
    try:
        setting = Setting(*read_monitor(read_params(ROOT / "workloads/mail")), arguments.reference, arguments.features)
        with threadpool_limits(1):  # small arrays: more threads only slow it down
            result = measure(setting, arguments.windows, arguments.rates, arguments.seconds, not arguments.no_flow)
    except StageError as error:
        sys.exit(f"monitor: {error}")
    result["given"] = {name: value for name, value in vars(arguments).items() if name != "out"}
    write_json(arguments.out / "monitor.json", result)
    (arguments.out / "monitor.md").write_text(table(result) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
