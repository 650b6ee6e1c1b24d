"""Effect record: logs a judged window as a run of the MLflow experiment ``restill-WORKLOAD-monitor``.

A signal has the same metric name in every run, so MLflow plots it over the logged windows. What moved, and in which
direction, is in the description. Logging is idempotent: one window is one run.
"""

from __future__ import annotations

from pathlib import Path

import mlflow

from tasks.monitor.decide import Decision, JudgedWindow
from tasks.monitor.signals import Signal
from tasks.stage import Paths
from tasks.tracking import artifacts_of, connect, experiment_of

WINDOW = "restill.window"


def experiment(paths: Paths) -> str:
    """The id of the monitor's experiment, which is created if missing."""
    connect(paths)
    return experiment_of(f"{paths.name}-monitor", (artifacts_of(paths) / "monitor").as_uri())


def record(paths: Paths, window: JudgedWindow, description: str) -> None:
    """Log a judged window's signals, decision and ``description``; a finished run is left as it is."""
    experiment_id = experiment(paths)  # first: a client uses the tracking URI that is set when it is created
    client = mlflow.MlflowClient()
    runs = client.search_runs([experiment_id], f"tags.`{WINDOW}` = '{window.id}'", max_results=1)
    if runs and runs[0].info.status == "FINISHED":
        return
    action = window.decision.action if window.decision else "none"
    tags = {WINDOW: window.id, "release": window.release, "action": action, "mlflow.note.content": description}
    run = runs[0] if runs else client.create_run(experiment_id, run_name=f"window-{window.number}", tags=tags)
    metrics = {_metric_name(signal): signal.value for signal in window.signals if signal.value is not None}
    mlflow.log_metrics(metrics, step=window.number, run_id=run.info.run_id)
    client.set_terminated(run.info.run_id)


def _metric_name(signal: Signal) -> str:
    """The metric's name, the same in every window: without what moved and in which direction."""
    return f"{signal.name}/{signal.windows} windows" if signal.windows > 1 else signal.name


def note(window: JudgedWindow, decision: Decision, page: Path | None) -> str:
    """Summary of a window as Markdown: the decision, its reasons, every signal."""
    measured = min((s.n for s in window.signals if s.kind == "drift" and s.windows == 1), default=window.rows)
    sample = f", {measured} of them measured" if measured < window.rows else ""
    lines = [f"Window {window.number}: **{decision.action}** ({window.rows} answers of release {window.release}{sample})", ""]
    lines += [f"- {reason}" for reason in decision.reasons]
    lines += ["", "| signal | windows | value | interval | reference | p |", "| --- | ---: | ---: | --- | ---: | ---: |"]
    for signal in window.signals:
        if signal.value is None:
            continue
        interval = "" if signal.low is None or signal.high is None else f"{signal.low:.4g} to {signal.high:.4g}"
        reference = "" if signal.reference is None else f"{signal.reference:.4g}"
        p_value = "" if signal.p is None else f"{signal.p:.2g}"
        lines.append(f"| {signal.trend} | {signal.windows} | {signal.value:.4g} | {interval} | {reference} | {p_value} |")
    if page is not None:
        lines += ["", f"[Evidently's report]({page.resolve().as_uri()})"]
    return "\n".join(lines)
