"""Metrics of the frozen, recalibrated and restilled models by period and in total, with paired-bootstrap intervals.

With a positive label they are F1, false-positive rate and miss rate; without one, accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.metrics import interval
from tasks.monitor.policy import JudgedWindow

MODELS = ("frozen", "recalibrated", "restilled")
"""Columns of the answers; the first is the baseline of the comparisons."""
PERIODS = 24
"""Of a stream without times."""


def with_periods(stream: pd.DataFrame) -> pd.DataFrame:
    """``stream`` with a column ``period``: the Monday (UTC) of its week, or the number of the first input of its block."""
    if stream.received.notna().all():
        weeks = stream.received.dt.tz_convert(None).dt.to_period("W").dt.start_time
        return stream.assign(period=weeks.dt.strftime("%Y-%m-%d"))
    size = max(1, -(-len(stream) // PERIODS))
    return stream.assign(period=[f"{number // size * size + 1:,}" for number in range(len(stream))])


def confusion(hits: npt.NDArray[np.bool_], answered: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64]) -> dict[str, Any]:
    """F1, false-positive rate and miss rate, one value per row of ``weights`` ``[resamples, n]``; NaN where undefined."""
    true, false = weights @ (hits & answered), weights @ (~hits & answered)
    missed, passed = weights @ (hits & ~answered), weights @ (~hits & ~answered)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            # Without positives F1 would be 0 for any number of false positives, so it is left undefined.
            "f1": np.where(true + missed > 0, 2 * true / (2 * true + false + missed), np.nan),
            "false_positive_rate": false / (false + passed),
            "miss_rate": missed / (true + missed),
        }


def metrics(rows: pd.DataFrame, model: str, positive: str | None, weights: npt.NDArray[np.float64]) -> dict[str, Any]:
    """The metrics of one model's answers, one value per row of ``weights`` ``[resamples, n]``."""
    if positive is None:
        return {"accuracy": weights @ (rows.label == rows[model]).to_numpy() / weights.sum(axis=1)}
    return confusion((rows.label == positive).to_numpy(), (rows[model] == positive).to_numpy(), weights)


def _figures(rows: pd.DataFrame, positive: str | None) -> dict[str, Any]:
    hits = (rows.label == positive).to_numpy()
    entry: dict[str, Any] = {"inputs": len(rows), "positive": int(hits.sum())}
    for model in MODELS:
        answered = (rows[model] == positive).to_numpy()
        points = metrics(rows, model, positive, np.ones((1, len(rows))))
        entry[model] = {name: _rounded(values[0]) for name, values in points.items()}
        if positive is None:
            entry[model] |= {"wrong": int((rows.label != rows[model]).sum())}
        else:
            entry[model] |= {"false_positives": int((~hits & answered).sum()), "missed": int((hits & ~answered).sum())}
    return entry


def _rounded(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None


def by_period(rows: pd.DataFrame, positive: str | None) -> list[dict[str, Any]]:
    """One entry per period, in order. ``rows``: period, label, and the labels answered by each of MODELS."""
    return [{"period": str(name), **_figures(part, positive)} for name, part in rows.groupby("period", sort=False)]


def total(rows: pd.DataFrame, positive: str | None, resamples: int, seed: int) -> dict[str, Any]:
    """The metrics of all ``rows``; ``difference`` is, by model and metric, the difference to the frozen model."""
    entry = _figures(rows, positive)
    weights = np.random.default_rng(seed).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=resamples)
    resampled = {model: metrics(rows, model, positive, weights.astype(np.float64)) for model in MODELS}
    frozen, *others = MODELS
    entry["difference"] = {
        model: {
            name: {"value": _difference(entry, model, name), "interval": interval(resampled[model][name] - values)}
            for name, values in resampled[frozen].items()
        }
        for model in others
    }
    return entry


def _difference(entry: dict[str, Any], model: str, name: str) -> float | None:
    frozen, other = entry[MODELS[0]][name], entry[model][name]
    return None if frozen is None or other is None else round(other - frozen, 5)


def rollback_change(window: JudgedWindow) -> dict[str, Any]:
    """The change entry of a rollback that the monitor carried out after this window."""
    assert window.decision is not None
    return {"kind": "rollback", "outcome": "rolled back", "release": None, "why": "; ".join(window.decision.reasons)}


def figures(results: Mapping[str, Any], positive: str | None, resamples: int, seed: int) -> dict[str, Any]:
    """Periods, totals, windows and changes of both arms for the report, from the ``results`` of a replay."""
    answers: pd.DataFrame = results["answers"]
    periods = by_period(answers, positive)
    totals = {"The whole stream": total(answers, positive, resamples, seed)}
    promoted = [change for change in results["changes"] if change["release"]]
    later = answers[answers.number > promoted[0]["number"]] if promoted else answers.head(0)
    if len(later):
        totals["After the first promotion"] = total(later, positive, resamples, seed)
    names = [period["period"] for period in periods]
    return {
        "periods": periods,
        "totals": totals,
        "changes": _in_periods(results["changes"], names),
        "recalibrations": _in_periods(results["recalibrations"], names),
        "windows": [_window_entry(window) for window in results["windows"]],
    }


def _in_periods(changes: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The changes with ``place``, the index of the period of each."""
    return [{**change, "place": names.index(change["period"])} for change in changes]


def _window_entry(window: JudgedWindow) -> dict[str, Any]:
    return {
        "number": window.number,
        "release": window.release,
        "action": window.decision.action if window.decision else "",
        "reasons": list(window.decision.reasons) if window.decision else [],
        "surprise": {s.key: round(-log10(max(s.p, 1e-300)), 3) for s in window.signals if s.p is not None},
    }
