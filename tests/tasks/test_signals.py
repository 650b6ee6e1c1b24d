"""tasks/monitor/signals.py and its neighbours: calibrated where nothing moved, awake where something did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from tasks.monitor.health import HealthLimits, Traffic, health_signals, traffic_from_records
from tasks.monitor.quality import QUALITY, quality_signals
from tasks.monitor.reference import Reference
from tasks.monitor.sample import Labelled, Sample, labels_from_feedback, sample_from_answers
from tasks.monitor.signals import DRIFT, Signal, Signals, drift_signals
from tasks.monitor.statistics import Centre, Columns, fisher_greater, fisher_two_sided, rank_test, wilson
from tests.tasks.traffic import LABELS, RELEASE, answers, feedback, settings, world

NAMES = [str(name) for name in world(1, np.random.default_rng(0))["names"]]
RULES = Signals(scales=(1, 2, 4), uncertain=0.2)


def sample_of(arrays: dict[str, np.ndarray[Any, Any]]) -> Sample:
    probabilities = arrays["probabilities"]
    answered = (probabilities[:, 1] >= 0.5).astype(np.int64)
    return Sample(arrays["descriptors"], probabilities, arrays["features"].astype(float), answered)


def reference(seed: int = 0, count: int = 600) -> Reference:
    arrays = world(count, np.random.default_rng(seed))
    return Reference(sample_of(arrays), arrays["label_ids"], NAMES, 1)


def window(seed: int, count: int = 125, **changes: float) -> Sample:
    return sample_of(world(count, np.random.default_rng(seed), **changes))


def by_key(found: list[Signal]) -> dict[str, Signal]:
    return {signal.key: signal for signal in found}


# Statistics


def test_wilson_is_scipys() -> None:
    for hits, n in ((0, 10), (3, 10), (10, 10), (41, 1000)):
        expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits, n) == pytest.approx((expected.low, expected.high))
    assert wilson(0, 0) == (0.0, 1.0)


def test_more_is_fishers_exact_test() -> None:
    expected = stats.fisher_exact([[9, 11], [20, 180]], alternative="greater").pvalue
    assert fisher_greater(9, 20, 20, 200) == pytest.approx(expected)


def test_two_sided_says_which_side() -> None:
    few, many = np.arange(100) < 10, np.arange(100) < 40
    assert fisher_two_sided(many, few)[1] == "up"
    assert fisher_two_sided(few, many)[1] == "down"
    assert fisher_two_sided(few, many)[0] < 1e-5 < 0.5 < fisher_two_sided(few, few)[0]


@pytest.mark.parametrize(("hits", "n", "others", "m"), [(0, 5, 0, 7), (5, 5, 7, 7), (3, 40, 90, 1300), (700, 900, 20, 1300)])
def test_both_tails_are_scipys(hits: int, n: int, others: int, m: int) -> None:
    law = stats.hypergeom(n + m, hits + others, n)
    half = law.pmf(hits) / 2
    up, down = law.sf(hits - 1) - half, law.cdf(hits) - half
    assert fisher_greater(hits, n, others, m) == pytest.approx(law.sf(hits - 1), rel=1e-9)
    assert fisher_two_sided(np.arange(n) < hits, np.arange(m) < others)[0] == pytest.approx(min(1, 2 * min(up, down)), rel=1e-9)


def test_rank_test_is_scipys_with_ties() -> None:
    rng = np.random.default_rng(1)
    base, values = rng.integers(0, 6, (300, 3)).astype(float), rng.integers(0, 6, (80, 3)).astype(float)
    columns = Columns(base)
    p, _, superiority = rank_test(columns, columns.rank(values))
    for column in range(3):
        expected = stats.mannwhitneyu(values[:, column], base[:, column], use_continuity=False, method="asymptotic")
        assert p[column] == pytest.approx(expected.pvalue)
        assert superiority[column] == pytest.approx(expected.statistic / (300 * 80))


def test_a_constant_column_says_nothing() -> None:
    columns = Columns(np.ones((50, 1)))
    p, z, superiority = rank_test(columns, columns.rank(np.ones((20, 1))))
    assert (p[0], z[0], superiority[0]) == (1.0, 0.0, 0.5)
    assert Centre(np.ones((50, 2))).hotelling(np.ones((20, 2))) == (1.0, 0.0)


def test_midranks_lie_between_0_and_1() -> None:
    columns = Columns(np.array([[2.0], [1.0], [3.0], [2.0]]))
    assert columns.midranks(columns.rank(np.array([[0.0], [2.0], [9.0]]))).ravel().tolist() == [0, 0.5, 1]


def test_hotelling_is_the_square_of_students_t_on_one_column() -> None:
    rng = np.random.default_rng(2)
    base, values = rng.normal(size=(400, 1)), rng.normal(0.3, 1, (5000, 1))
    t = (values.mean() - base.mean()) / (base.std(ddof=1) * np.sqrt(1 / 400 + 1 / 5000))
    assert Centre(base).hotelling(values)[0] == pytest.approx(2 * stats.t.sf(abs(t), 399))


# Drift


def test_calm_p_values_keep_their_level() -> None:
    """Both sides are samples: 120 references and windows anew, and no signal is below 5 % too often."""
    found: dict[str, list[float]] = {}
    for seed in range(120):
        for signal in drift_signals(reference(2 * seed, 300), [window(2 * seed + 1)], RULES):
            if signal.p is not None:
                found.setdefault(signal.name, []).append(signal.p)
    assert set(found) == set(DRIFT)
    for name, p in found.items():
        low = int((np.array(p) < 0.05).sum())
        assert low <= 14, f"{name}: {low} of 120"  # more than 14 of 120 at 5 % are seen once in a thousand times


@pytest.mark.parametrize(
    ("changes", "name", "trend"),
    [
        ({"spam": 0.7}, "label_mix", "label_mix spam up"),
        ({"spam": 0.1}, "label_mix", "label_mix spam down"),
        ({"moved": 0.8}, "unseen_vocabulary", "unseen_vocabulary up"),
        ({"moved": 0.8}, "joint", "joint away"),
    ],
)
def test_what_moved_is_seen_and_named(changes: dict[str, float], name: str, trend: str) -> None:
    found = by_key(drift_signals(reference(), [window(5, **changes)], RULES))[f"{name}@1"]
    assert found.p is not None
    assert found.p < 1e-5
    assert found.trend.replace("1 ", "spam ") == trend


def test_the_descriptor_that_moved_is_named() -> None:
    moved = window(5)
    moved.descriptors[:, NAMES.index("links")] *= 8
    found = by_key(drift_signals(reference(), [moved], RULES))["descriptors@1"]
    assert (found.direction, found.p is not None and found.p < 1e-6) == ("links up", True)


def test_features_alone_are_seen() -> None:
    moved = window(5)
    moved.features[:] += 1.0
    found = by_key(drift_signals(reference(), [moved], RULES))
    assert (found["features@1"].p or 1) < 1e-6 < 0.001 < (found["descriptors@1"].p or 0)


def test_unsure_scores_lower_the_estimate_of_quality() -> None:
    unsure = window(5)
    unsure.probabilities[:] = 0.5 + (unsure.probabilities - 0.5) * 0.4
    found, base = by_key(drift_signals(reference(), [unsure], RULES)), by_key(drift_signals(reference(), [window(5)], RULES))
    assert found["uncertain_share@1"].trend == "uncertain_share up"
    assert found["estimated_accuracy@1"].trend == "estimated_accuracy down"
    assert (found["estimated_accuracy@1"].p or 1) < 1e-6
    assert (found["estimated_f1@1"].value or 1) < (base["estimated_f1@1"].low or 0)


def test_estimates_without_labels_cover_what_is_true() -> None:
    """Labels drawn from the calibrated probabilities: the interval holds the true figure in some 95 %."""
    rng, held = np.random.default_rng(3), 0
    for seed in range(100):
        sample = window(seed, 200)
        truth = (rng.random(200) < sample.probabilities[:, 1]).astype(int)
        estimate = by_key(drift_signals(reference(1), [sample], RULES))
        accuracy = estimate["estimated_accuracy@1"]
        held += (accuracy.low or 0) <= (truth == sample.answered).mean() <= (accuracy.high or 0)
    assert held >= 88


def test_windows_are_merged_at_every_scale_there_is() -> None:
    windows = [window(seed) for seed in range(3)]
    found = by_key(drift_signals(reference(), windows, RULES))
    assert {key.split("@")[1] for key in found} == {"1", "2"}
    assert found["label_mix@2"].n == 250
    assert drift_signals(reference(), [], RULES) == []
    assert drift_signals(reference(), [window(0), window(0, 0)], RULES) == []


def test_a_release_without_features_or_positive_label_is_watched_too() -> None:
    arrays = world(400, np.random.default_rng(0))
    bare = Sample(arrays["descriptors"], arrays["probabilities"], np.empty((400, 0)), sample_of(arrays).answered)
    found = by_key(drift_signals(Reference(bare, arrays["label_ids"], NAMES, None), [bare.take(np.arange(100))], RULES))
    assert "features@1" not in found
    assert "estimated_f1@1" not in found
    assert (found["joint@1"].p or 0) > 1e-3


# Quality


def test_more_errors_than_the_reference_has_are_seen() -> None:
    labels = np.array([0, 1] * 40)
    right, wrong = Labelled(labels, labels.copy()), Labelled(labels, np.zeros(80, dtype=np.int64))
    calm, worse = by_key(quality_signals(reference(), [right], RULES)), by_key(quality_signals(reference(), [wrong], RULES))
    assert (calm["realised_error@1"].value, worse["realised_error@1"].value) == (0.0, 0.5)
    assert (calm["realised_error@1"].p or 0) > 0.05 > 1e-6 > (worse["realised_error@1"].p or 1)
    assert (worse["realised_recall@1"].value, worse["realised_recall@1"].trend) == (0.0, "realised_recall down")
    assert (worse["realised_precision@1"].value, worse["realised_precision@1"].n) == (None, 0)
    assert {signal.name for signal in calm.values()} == set(QUALITY)


def test_only_labels_of_answers_of_this_release_count() -> None:
    records = answers(world(4, np.random.default_rng(0)))
    records[0]["release"] = "another00000"
    found = feedback(records, [0, 1, 0, 1])
    found[1]["answered"] = None
    found[2]["label"] = "unheard of"
    assert labels_from_feedback(found, RELEASE, LABELS).labels.tolist() == [-1, 1]


# Health and trust


def limits(**changes: float) -> HealthLimits:
    return settings()[0].limits.model_copy(update=changes)


def measured(records: list[dict[str, Any]], lost: int = 0, earlier: list[Traffic] | None = None) -> dict[str, Signal]:
    sample = sample_from_answers(records, NAMES, LABELS)
    found = health_signals(reference(), traffic_from_records(records, lost), sample, earlier or [], limits())
    return {signal.name: signal for signal in found}


def over(found: dict[str, Signal]) -> set[str]:
    return {name for name, s in found.items() if s.value is not None and s.reference is not None and s.value > s.reference}


def calm_records(seed: int = 0) -> list[dict[str, Any]]:
    return answers(world(125, np.random.default_rng(seed)))


def status(**facts: Any) -> dict[str, Any]:
    base = {"kind": "status", "n": 999, "time": "", "release": RELEASE, "requests": 125, "errors": 0, "empty": 0, "lost": 0}
    return base | {"rss_bytes": 100, "pid": 1} | facts


def test_calm_traffic_breaks_no_limit() -> None:
    found = measured([*calm_records(), status(), status()], earlier=[traffic_from_records(calm_records(1), 0)])
    assert over(found) == set()
    assert set(found) == {
        "latency_p50", "latency_p99", "errors", "memory_growth", "journal_loss", "client_burst", "copies", "near_copies",
        "empty", "truncated",
    }  # fmt: skip


def spoiled(name: str) -> dict[str, Signal]:
    records, usual = calm_records(), [traffic_from_records(calm_records(1), 0)]
    if name == "near_copies":
        for record in records[30:]:
            record["descriptors"], record["features"] = records[0]["descriptors"], records[0]["features"]
    changes: dict[str, dict[str, Any]] = {
        "copies": {"hash": "same"}, "client_burst": {"client": "one"}, "truncated": {"truncated": True},
    }  # fmt: skip
    for record in records[30:]:
        record |= changes.get(name, {})
    if name in ("latency_p50", "latency_p99"):
        for record in records[: {"latency_p50": 100, "latency_p99": 4}[name]]:
            record["latency_us"] = {"latency_p50": 30_000, "latency_p99": 900_000}[name]
    facts: dict[str, dict[str, Any]] = {
        "errors": {"errors": 20}, "empty": {"empty": 90}, "memory_growth": {"rss_bytes": 300},
    }  # fmt: skip
    records += [status(), status(**facts.get(name, {}))]
    return measured(records, 20 if name == "journal_loss" else 0, usual)


@pytest.mark.parametrize(
    "name",
    [
        "latency_p50", "latency_p99", "errors", "memory_growth", "journal_loss", "client_burst", "copies", "near_copies",
        "empty", "truncated",
    ],
)  # fmt: skip
def test_each_limit_is_broken_alone(name: str) -> None:
    assert over(spoiled(name)) == {name}


def test_clients_that_change_their_names_and_a_lone_client_are_no_burst() -> None:
    records, before = calm_records(), calm_records(1)
    for record in records:
        record["client"] += " renamed"
    assert over(measured(records, earlier=[traffic_from_records(before, 0)])) == set()
    for record in [*records, *before]:
        record["client"] = "the only mail server"
    assert over(measured(records, earlier=[traffic_from_records(before, 0)])) == set()


def test_a_loss_that_a_worker_reports_counts() -> None:
    found = measured([*calm_records(), status(lost=75)])
    assert found["journal_loss"].value == pytest.approx(75 / 201)


def test_a_record_that_took_its_number_is_lost_once() -> None:
    """What was dropped on a full buffer is a gap in the numbers, and the worker counts it too."""
    assert measured([*calm_records(), status(lost=75)], lost=75)["journal_loss"].value == pytest.approx(75 / 201)
    assert measured([*calm_records(), status(lost=5)], lost=75)["journal_loss"].value == pytest.approx(75 / 201)


def test_health_and_trust_need_no_reference_but_for_near_copies() -> None:
    records = [*calm_records(), status(errors=20)]
    found = {signal.name: signal for signal in health_signals(None, traffic_from_records(records, 0), None, [], limits())}
    assert set(found) == {
        "latency_p50", "latency_p99", "errors", "memory_growth", "journal_loss", "copies", "empty", "truncated",
    }  # fmt: skip
    assert over(found) == {"errors"}
