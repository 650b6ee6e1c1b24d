"""Effect record: a judged window that is shown to people as a run of the MLflow experiment ``restill-monitor``.

A signal is a metric of the same name in every run, so MLflow draws its course over the windows shown. What moved, and which
way, stands in the description. Done twice, it is one run.
"""

from __future__ import annotations

from pathlib import Path

import mlflow

from tasks.monitor.decide import Decision, JudgedWindow
from tasks.monitor.signals import Signal
from tasks.tracking import connect, experiment_of

EXPERIMENT = "restill-monitor"
WINDOW = "restill.window"


def experiment(root: Path) -> str:
    """The id of the monitor's experiment, which is made where it is not there."""
    connect(root)
    return experiment_of(EXPERIMENT, (root.resolve() / "mlartifacts/monitor").as_uri())


def record(root: Path, seen: JudgedWindow, told: str) -> None:
    """Log a judged window's signals and decision, and ``told`` as its description; a finished run is left as it is."""
    place = experiment(root)  # first: a client asks the server that is set when it is made
    client = mlflow.MlflowClient()
    found = client.search_runs([place], f"tags.`{WINDOW}` = '{seen.id}'", max_results=1)
    if found and found[0].info.status == "FINISHED":
        return
    action = seen.decision.action if seen.decision else "none"
    tags = {WINDOW: seen.id, "release": seen.release, "action": action, "mlflow.note.content": told}
    run = found[0] if found else client.create_run(place, run_name=f"window-{seen.number}", tags=tags)
    figures = {_metric(signal): signal.value for signal in seen.signals if signal.value is not None}
    mlflow.log_metrics(figures, step=seen.number, run_id=run.info.run_id)
    client.set_terminated(run.info.run_id)


def _metric(signal: Signal) -> str:
    """The same in every window: neither what moved nor which way is part of it."""
    return f"{signal.name}/{signal.windows} windows" if signal.windows > 1 else signal.name


def note(seen: JudgedWindow, decision: Decision, page: Path | None) -> str:
    """What a reviewer should know of a window, as Markdown: the decision, its reasons, every signal."""
    measured = min((s.n for s in seen.signals if s.kind == "drift" and s.windows == 1), default=seen.rows)
    sample = f", {measured} of them measured" if measured < seen.rows else ""
    lines = [f"Window {seen.number}: **{decision.action}** ({seen.rows} answers of release {seen.release}{sample})", ""]
    lines += [f"- {reason}" for reason in decision.reasons]
    lines += ["", "| signal | windows | value | interval | reference | p |", "| --- | ---: | ---: | --- | ---: | ---: |"]
    for signal in seen.signals:
        if signal.value is None:
            continue
        between = "" if signal.low is None or signal.high is None else f"{signal.low:.4g} to {signal.high:.4g}"
        reference = "" if signal.reference is None else f"{signal.reference:.4g}"
        surprise = "" if signal.p is None else f"{signal.p:.2g}"
        lines.append(f"| {signal.trend} | {signal.windows} | {signal.value:.4g} | {between} | {reference} | {surprise} |")
    if page is not None:
        lines += ["", f"[Evidently's report]({page.resolve().as_uri()})"]
    return "\n".join(lines)
