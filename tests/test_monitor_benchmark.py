"""benchmarks/monitor.py: it judges all of the traffic that it makes, and its figures fit together."""

from __future__ import annotations

import pytest

from benchmarks.monitor import STEPS, Setting, measure, table
from tests.tasks.traffic import settings


def test_all_of_the_made_traffic_is_judged_and_told() -> None:
    monitor, policy = settings()
    rules, rate, seconds = monitor.windows, 50, 25
    result = measure(Setting(monitor, policy, 300, 3), 3, [rate], seconds, flow=False)
    slow, dense = result["slow"], result["dense"]["50"]
    assert (slow["windows"], slow["answers"]) == (3, 3 * rules.count)
    assert dense["answers"] == rate * seconds
    assert dense["windows"] == pytest.approx(seconds / rules.least_seconds, abs=1)
    for found in (slow, dense):
        assert found["answers_a_second"] == pytest.approx(found["answers"] / found["seconds"])
        assert sum(found["actions"].values()) == found["windows"]
    assert set(result["shares"]) == {*STEPS, "other"}
    assert sum(result["shares"].values()) == pytest.approx(1)
    assert all(result["shares"][step] > 0 for step in STEPS), "each step has a function of that name"
    told = table(result)
    assert f"| 50 answers a second | {dense['windows']} | {dense['answers']:,} |" in told
    flow = {"windows": 3, "seconds": 20.0, "seconds_with_nothing_to_do": 15.0}
    assert "The flow took 20.0 s for 3 windows" in table(result | {"flow": flow})
