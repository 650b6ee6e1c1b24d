"""How fast the monitor judges: windows a second, answers a second that it keeps up with, and what each step costs.

    python -m benchmarks.monitor
    python -m benchmarks.monitor --windows 40 --seconds 20 --no-flow

A release's reference and its traffic are made, as journals of two workers and a tenth of the labels. Judged is calm traffic
that comes slowly, in windows of ``monitor.windows.count``, and traffic that comes at each of the ``--rates``; then the flow
itself judges the slow one, with what it does for people. Prints tables; all figures go to ``--out``.
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
from tasks.monitor import watch
from tasks.monitor.policy import Decide
from tasks.monitor.settings import Monitor, read_monitor
from tasks.monitor.state import State
from tasks.stage import Paths, StageError, read_params, write_json

ROOT = Path(__file__).parents[1]
STEPS = {
    "cut": {("cutting.py", "cut_some")},
    "read": {("loaded.py", "draw")},
    "signals": {("signals.py", "drift_signals"), ("quality.py", "quality_signals"), ("health.py", "health_signals")},
    "history": {("watch.py", "_before"), ("state.py", "attempts"), ("state.py", "labelled")},
    "decide": {("decide.py", "decide")},
    "write": {("state.py", "judge")},
}
"""Step -> the files and functions that do it."""


@dataclass(frozen=True)
class Setting:
    """What every run needs."""

    monitor: Monitor
    policy: Decide
    reference: int
    """Messages of the release's reference."""
    features: int

    def project(self, answers: int, rate: float) -> AbstractContextManager[Paths]:
        return project(self.reference, self.features, answers, rate)


def judge(setting: Setting, paths: Paths) -> dict[str, Any]:
    """Cut and judge all of the traffic; what it took."""
    begin, busy = time.perf_counter(), time.process_time()
    state = State(paths.monitor / "state.db")
    watch.cut(setting.monitor, state, paths)
    watcher = watch.Watcher(setting.monitor, setting.policy, state, paths)
    found: list[watch.Judgement] = []
    while judged := watcher.judge_next():
        found += judged
    seconds, cpu = time.perf_counter() - begin, time.process_time() - busy
    rows = sum(one.window.plan.rows for one in found)
    actions = Counter(one.decision.action for one in found)
    return {
        "windows": len(found), "answers": rows, "seconds": seconds, "cpu_seconds": cpu,
        "windows_a_second": len(found) / seconds, "answers_a_second": rows / seconds, "actions": dict(actions),
    }  # fmt: skip


def shares(setting: Setting, paths: Paths) -> dict[str, float]:
    """The share of the time that each step takes, by the profiler, which slows all of them."""
    profile = cProfile.Profile()
    profile.runcall(judge, setting, paths)
    found = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    spent = {(Path(file).name, name): entry[3] for (file, _, name), entry in found.items()}
    whole = spent["monitor.py", "judge"]
    taken = {step: sum(spent.get(function, 0.0) for function in functions) / whole for step, functions in STEPS.items()}
    return taken | {"other": max(0.0, 1 - sum(taken.values()))}


def run_flow(paths: Paths) -> tuple[float, str]:
    """(seconds of one run of the flow monitor in ``paths``, its last line), from its start to its end."""
    own = {"RESTILL_HOME": str(paths.root / "var"), "PREFECT_HOME": str(paths.root / "prefect"), "PYTHONPATH": str(ROOT)}
    names = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "flows.monitor"], cwd=paths.root, capture_output=True, encoding="utf-8", check=False,
        env={name: value for name, value in os.environ.items() if name not in names} | own,
    )  # fmt: skip
    if done.returncode:
        raise StageError(f"the flow ended with {done.returncode}: {done.stderr[-2000:]}")
    return time.perf_counter() - begin, (done.stdout.splitlines() or [""])[-1]


def measure_flow(setting: Setting, windows: int) -> dict[str, Any]:
    """The flow on slow traffic, and once more with nothing to do: what is left is what the windows cost."""
    with setting.project(windows * setting.monitor.windows.count, 1) as paths:
        shutil.copy(ROOT / "params.yaml", paths.root)
        (seconds, said), (nothing, _) = run_flow(paths), run_flow(paths)
    return {"windows": windows, "seconds": seconds, "seconds_with_nothing_to_do": nothing, "said": said}


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
    """The figures as Markdown."""
    lines = [
        "| traffic | windows | answers | windows a second | answers a second | CPU milliseconds a window |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    dense = {f"{rate} answers a second": found for rate, found in result["dense"].items()}
    for name, found in {"slow": result["slow"], **dense}.items():
        lines.append(
            f"| {name} | {found['windows']} | {found['answers']:,} | {found['windows_a_second']:.1f} "
            f"| {found['answers_a_second']:,.0f} | {1000 * found['cpu_seconds'] / found['windows']:,.1f} |"
        )
    lines += ["", "| step | share of the time |", "| --- | ---: |"]
    lines += [f"| {step} | {share:.0%} |" for step, share in result["shares"].items()]
    if flow := result.get("flow"):
        nothing = f"{flow['seconds_with_nothing_to_do']:.1f} s with nothing to do"
        lines += [
            "",
            f"The flow took {flow['seconds']:.1f} s for {flow['windows']} windows and what it shows of them, {nothing}.",
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
    given = parser.parse_args()
    try:
        setting = Setting(*read_monitor(read_params(ROOT)), given.reference, given.features)
        with threadpool_limits(1):  # small arrays: threads only wait for each other
            result = measure(setting, given.windows, given.rates, given.seconds, not given.no_flow)
    except StageError as error:
        sys.exit(f"monitor: {error}")
    result["given"] = {name: value for name, value in vars(given).items() if name != "out"}
    write_json(given.out / "monitor.json", result)
    (given.out / "monitor.md").write_text(table(result) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
