"""What is measured against what, and what is served: the rules on made tables of figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from service.decision import Floats
from tasks.metrics import ranking
from tasks.release.choice import Candidate, Choice, better_baseline, judge_all, order_of, passed_over
from tasks.release.package import summary
from tasks.release.table import evaluation_rows, markdown
from tasks.release.teacher_comparison import compare_with_teacher, fastest_teacher
from tasks.stage import StageError
from tests.imports import MAIL

PARAMS = yaml.safe_load((MAIL / "params.yaml").read_text())["package"]
STUDENTS = ["student-quantized", "student-pruned", "student"]


def entry(size: int, latency_us: float, valid: float | None, future: float | None = 0.95) -> dict[str, Any]:
    figures = {split: {"pr_auc": value, "accuracy": 0.9, "f1": 0.9} for split, value in (("valid", valid), ("future", future))}
    return {"bytes": size, "latency_us": latency_us, "metrics": figures}


def report(**others: dict[str, Any]) -> dict[str, Any]:
    variants = {
        "teacher": entry(9000, 800, 0.99),
        "student": entry(300, 20, 0.985),
        "student-pruned": entry(200, 10, 0.98),
        "student-quantized": entry(100, 30, 0.98),
    }
    return {"teacher": "teacher", "variants": variants | {name.replace("_", "-"): one for name, one in others.items()}}


def made_valid(positives: int, others: int = 200) -> pd.DataFrame:
    labels = [1] * positives + [0] * others
    return pd.DataFrame({"label_id": labels, "group": [f"g{number}" for number in range(len(labels))]})


def noisy(valid: pd.DataFrame, strength: float, seed: int, base: Floats | None = None) -> Floats:
    """Logits [n, 2] that tell the labels by ``strength`` standard deviations; or ``base`` with noise of that strength."""
    rng = np.random.default_rng(seed)
    if base is not None:
        return np.stack([base[:, 0], base[:, 1] + rng.normal(0, strength, len(valid))], axis=1)
    scores = strength * valid.label_id.to_numpy() + rng.normal(0, 1, len(valid))
    return np.stack([np.zeros(len(valid)), scores], axis=1)


def not_asked(name: str) -> Floats:
    raise StageError(f"package.among: {name!r}")


def judged_on(valid: pd.DataFrame, logits: dict[str, Floats], positive: int | None = 1, **changes: Any) -> list[Candidate]:
    asked = {name: PARAMS[name] for name in Choice.model_fields} | changes
    return judge_all(Choice.model_validate(asked), logits, valid, "teacher", positive, not_asked)


def with_students(valid: pd.DataFrame, student: Floats, int8: Floats | None = None) -> dict[str, Floats]:
    teacher = noisy(valid, 4, 1)
    return {"teacher": teacher, "teacher-int8": teacher if int8 is None else int8} | dict.fromkeys(STUDENTS, student)


def test_a_baseline_that_is_shown_to_be_better_than_the_teacher_is_said_and_one_that_may_be_is_not() -> None:
    valid = made_valid(300)
    settings = Choice.model_validate({name: PARAMS[name] for name in Choice.model_fields})

    def said(baseline: float, teacher: float) -> str | None:
        logits = {"teacher": noisy(valid, teacher, 1), "baseline": noisy(valid, baseline, 2)}
        return better_baseline(settings, logits, valid, "teacher", 1)

    line = said(baseline=4, teacher=1)
    assert line is not None
    assert line.startswith("The baseline is better than the teacher: PR-AUC on valid 0.9")
    assert "train.steps_per_label" in line
    assert said(baseline=1, teacher=4) is None
    assert said(baseline=3.05, teacher=3) is None, "not shown"
    assert better_baseline(settings, {"teacher": noisy(valid, 1, 1)}, valid, "teacher", 1) is None, "there is none"


def test_on_a_small_valid_a_student_is_released_that_noise_puts_below_the_margin() -> None:
    valid = made_valid(90)
    logits = {"teacher": noisy(valid, 3, 1)} | dict.fromkeys(STUDENTS, noisy(valid, 3, 32))  # each as good as the other
    found = judged_on(valid, logits | {"teacher-int8": logits["teacher"]})
    difference, (low, high) = found[0].difference or 0.0, found[0].interval or [0.0, 0.0]
    assert order_of(found)[:2] == ["student-quantized", "student-pruned"], "the first is served, the next is the fallback"
    assert difference < -PARAMS["margin"], "the point alone would refuse it"
    assert low < difference < 0 < high, "nothing is shown"
    assert passed_over(found) == []
    larger = pd.concat([valid] * 30, ignore_index=True).assign(group=[f"g{number}" for number in range(30 * len(valid))])
    many = {name: np.tile(values, (30, 1)) for name, values in (logits | {"teacher-int8": logits["teacher"]}).items()}
    shown = judged_on(larger, many, largest_loss=1)
    assert shown[0].difference == pytest.approx(difference, abs=1e-6)
    assert shown[0].interval is not None
    assert shown[0].interval[1] < 0, "the same loss on thirty times as many rows is one"
    assert order_of(judged_on(larger, many, largest_loss=1, margin=0.005))[0] == "teacher-int8"


def test_what_was_not_evaluated_is_asked_only_where_too_little_before_it_is_good_enough() -> None:
    valid = made_valid(90)
    settings = Choice.model_validate({name: PARAMS[name] for name in Choice.model_fields})
    asked: list[str] = []

    def found(student: Floats) -> list[Candidate]:
        logits = with_students(valid, student)
        int8 = logits.pop("teacher-int8")

        def ask(name: str) -> Floats:
            asked.append(name)
            return int8

        return judge_all(settings, logits, valid, "teacher", 1, ask)

    good = found(noisy(valid, 4, 1))
    assert asked == []
    assert order_of(good) == [*STUDENTS, "teacher-onnx"]
    assert good[3].reason == "not measured: 2 before it are good enough"
    assert order_of(found(noisy(valid, 1, 3))) == ["teacher-int8", "teacher-onnx"]
    assert asked == ["teacher-int8"]


def test_a_student_that_is_clearly_worse_gives_way_to_the_compressed_teacher_with_its_reason() -> None:
    valid = made_valid(90)
    found = judged_on(valid, with_students(valid, noisy(valid, 1, 3)))
    assert order_of(found) == ["teacher-int8", "teacher-onnx"]
    assert [candidate.variant for candidate in passed_over(found)] == STUDENTS
    difference, (_, high) = found[0].difference or 0.0, found[0].interval or [0.0, 0.0]
    assert high < -PARAMS["margin"]
    assert f"{difference:+.4f} [" in found[0].reason
    assert found[0].reason.endswith(f"shown to be worse by more than {PARAMS['margin']}")


def test_where_nothing_else_is_good_enough_the_exported_teacher_is_released() -> None:
    valid = made_valid(90)
    bad = noisy(valid, 1, 3)
    found = judged_on(valid, with_students(valid, bad, int8=bad))
    assert order_of(found) == ["teacher-onnx"], "it needs no logits of its own"
    none = made_valid(0)
    unknown = judged_on(none, with_students(none, noisy(none, 4, 1)))
    assert order_of(unknown) == ["teacher-onnx"], "no PR-AUC is none to trust"
    assert "too small" in unknown[0].reason
    worse = with_students(valid, bad) | {"teacher-onnx": bad}
    assert judged_on(valid, worse)[-1].good, "whether it was evaluated or not"


def test_few_rows_do_not_let_a_large_measured_loss_through() -> None:
    valid = made_valid(8, 12)
    logits = with_students(valid, noisy(valid, 2.5, 6, noisy(valid, 4, 1)))
    wide = judged_on(valid, logits, largest_loss=1)[0]
    assert wide.good, "the interval is too wide to show anything"
    refused = judged_on(valid, logits)[0]
    assert not refused.good
    assert refused.interval == wide.interval
    assert refused.reason.endswith(f"measured worse by more than {PARAMS['largest_loss']}")


def test_copies_of_a_row_are_no_evidence() -> None:
    valid = made_valid(30, 60)
    logits = with_students(valid, noisy(valid, 1.2, 5, noisy(valid, 4, 1)))
    copied = pd.concat([valid] * 10, ignore_index=True)
    tenfold = {name: np.tile(values, (10, 1)) for name, values in logits.items()}
    alone, together = judged_on(valid, logits)[0], judged_on(copied, tenfold)[0]
    assert together.interval == pytest.approx(alone.interval)


def test_of_many_labels_the_macro_average_counts() -> None:
    rng = np.random.default_rng(1)
    valid = made_valid(0, 300).assign(label_id=rng.integers(0, 3, 300))
    teacher = np.eye(3)[valid.label_id] * 4 + rng.normal(0, 1, (300, 3))
    blind = teacher.copy()
    blind[:, 2] *= -1  # takes one of the three for the others
    logits = {"teacher": teacher, "student": blind, "teacher-int8": teacher}
    student, int8, _ = judged_on(valid, logits, None, among=["student", "teacher-int8", "teacher-onnx"])
    labels = valid.label_id.to_numpy()
    expected = ranking(blind, labels)["pr_auc"] - ranking(teacher, labels)["pr_auc"]
    assert student.difference == pytest.approx(expected, abs=1e-6)
    assert (student.good, int8.good, int8.difference) == (False, True, 0)


def test_a_list_without_the_teacher_may_leave_none_and_says_how_to_always_have_one() -> None:
    valid = made_valid(90)
    logits = with_students(valid, noisy(valid, 1, 3))
    with pytest.raises(StageError, match=r"none is good enough; teacher-onnx as the last always is\. student: PR-AUC on valid"):
        judged_on(valid, logits, among=["student"])
    with pytest.raises(StageError, match=r"package\.among: 'student-xxl'"):
        judged_on(valid, logits, among=["student-quantized", "student-xxl"])


def test_the_last_line_names_what_is_released_what_comes_next_and_why_what_comes_before_is_not() -> None:
    valid = made_valid(90)
    found = judged_on(valid, with_students(valid, noisy(valid, 1, 3)))
    line = summary("0123456789ab", found, 23_000_000)
    assert line.startswith("release 0123456789ab: teacher-int8, fallback teacher-onnx; 23,000,000 bytes; ")
    assert f"not good enough: student-quantized ({found[0].difference:+.4f} [" in line
    assert all(f"{candidate.short}" in line for candidate in found[:3])
    unknown = judged_on(made_valid(0), with_students(made_valid(0), noisy(made_valid(0), 4, 1)))
    assert "student-quantized (not measured), student-pruned (not measured)" in summary("0123456789ab", unknown, 1)
    same = judged_on(valid, with_students(valid, noisy(valid, 4, 1)))
    assert summary("0123456789ab", same, 1).endswith("student-quantized, fallback student-pruned; 1 bytes")


@pytest.mark.parametrize(
    ("forms", "fastest"),
    [
        ({}, "teacher"),
        ({"teacher_onnx": entry(9000, 900, 0.99)}, "teacher"),
        ({"teacher_onnx": entry(9000, 700, 0.99)}, "teacher-onnx"),
        ({"teacher_onnx": entry(9000, 700, 0.99), "teacher_int8": entry(2500, 300, 0.985)}, "teacher-int8"),
        ({"teacher_onnx": entry(9000, 700, 0.99), "teacher_int8": entry(2500, 300, 0.984)}, "teacher-onnx"),
        ({"teacher_int8": entry(2500, 300, 0.99, future=0.94)}, "teacher"),
        ({"teacher_int8": entry(2500, 300, 0.99, future=None)}, "teacher-int8"),
        ({"teacher_int8": entry(2500, 300, 0.999, future=0.99)}, "teacher-int8"),
        ({"teacher": entry(9000, 800, None), "teacher_int8": entry(2500, 300, 0.5)}, "teacher-int8"),
    ],
)
def test_the_fastest_form_of_the_teacher_is_one_that_is_as_good_on_every_split(forms: Any, fastest: str) -> None:
    variants = report(**forms)["variants"]
    assert fastest_teacher(variants, "teacher", 0.005) == fastest
    against = compare_with_teacher(variants, "teacher", fastest)
    pace = variants[fastest]["latency_us"]
    assert against["student"]["times_faster"] == round(pace / 20, 2)
    assert against[fastest]["times_faster"] == 1
    assert against["student"]["times_smaller"] == 30, "in bytes the teacher is the measure"


def test_the_table_names_the_form_that_it_measures_against() -> None:
    found = report(teacher_int8=entry(2500, 300, 0.99))
    found |= {
        "positive": "spam",
        "splits": {"valid": {}, "future": {}},
        "fastest_teacher": "teacher-int8",
        "against_teacher": compare_with_teacher(found["variants"], "teacher", "teacher-int8"),
    }
    rows = {row["variant"]: row for row in evaluation_rows(found)}
    assert rows["student-quantized"]["times faster than teacher-int8"] == "10.0"
    table = markdown(list(rows.values()))
    assert "times faster than teacher-int8" in table.splitlines()[0]
    assert "F1 future" in table
    assert "PR-AUC test" not in table, "there is no such split"
    (of_all, *_) = evaluation_rows(found | {"positive": None})
    assert of_all["accuracy future"] == "0.9000", "where no label is positive"
