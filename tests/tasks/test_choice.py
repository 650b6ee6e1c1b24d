"""What is measured against what, and what is served: the rules on made tables of figures."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tasks.release.against import compare_with_teacher, fastest_teacher
from tasks.release.package import Package, ranked
from tasks.release.table import evaluation_rows, markdown
from tasks.stage import StageError
from tests.imports import ROOT

PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())["package"]
AMONG = ["student-quantized", "student-pruned", "student"]


def entry(size: int, micros: float, valid: float | None, future: float | None = 0.95) -> dict[str, Any]:
    figures = {split: {"pr_auc": value, "f1": 0.9} for split, value in (("valid", valid), ("future", future))}
    return {"bytes": size, "micros_per_message": micros, "metrics": figures}


def report(**others: dict[str, Any]) -> dict[str, Any]:
    variants = {
        "teacher": entry(9000, 800, 0.99),
        "student": entry(300, 20, 0.985),
        "student-pruned": entry(200, 10, 0.98),
        "student-quantized": entry(100, 30, 0.98),
    }
    return {"teacher": "teacher", "variants": variants | {name.replace("_", "-"): one for name, one in others.items()}}


def order(found: dict[str, Any], **changes: Any) -> list[str]:
    return ranked(Package.model_validate(PARAMS | {"among": AMONG} | changes), found)


def test_the_smallest_or_the_fastest_is_served_and_the_next_best_is_known() -> None:
    assert order(report(), choose="smallest") == ["student-quantized", "student-pruned", "student"]
    assert order(report(), choose="fastest") == ["student-pruned", "student", "student-quantized"]
    tie = report(student=entry(100, 20, 0.985))
    assert order(tie, choose="smallest")[:2] == ["student-quantized", "student"], "the one that is named first"


def test_one_that_is_below_the_teacher_by_more_than_the_margin_is_not_served() -> None:
    assert order(report(), margin=0.01) == AMONG, "just the margin is within it"
    assert order(report(), margin=0.009) == ["student"]
    assert order(report(student_quantized=entry(100, 30, None))) == ["student-pruned", "student"], "no figure is none to trust"
    assert order(report(student=entry(300, 20, 1.0)), margin=0) == ["student"], "better than the teacher is good enough"


def test_where_none_is_good_enough_every_candidate_is_named_with_its_figure() -> None:
    says = (
        r"package\.margin = 0\.001: none is so near to teacher; PR-AUC on valid: "
        r"student-quantized 0\.98, student-pruned 0\.98, student 0\.985, teacher 0\.99"
    )
    with pytest.raises(StageError, match=says):
        order(report(), margin=0.001)
    with pytest.raises(StageError, match="none is so near"):
        order(report(teacher=entry(9000, 800, None)))
    with pytest.raises(StageError, match=r"package\.among: 'student-xxl': evaluate knows teacher, student"):
        order(report(), among=["student-quantized", "student-xxl"])


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
    pace = variants[fastest]["micros_per_message"]
    assert against["student"]["times_faster"] == round(pace / 20, 2)
    assert against[fastest]["times_faster"] == 1
    assert against["student"]["times_smaller"] == 30, "in bytes the teacher is the measure"


def test_the_table_names_the_form_that_it_measures_against() -> None:
    found = report(teacher_int8=entry(2500, 300, 0.99))
    found |= {
        "fastest_teacher": "teacher-int8",
        "against_teacher": compare_with_teacher(found["variants"], "teacher", "teacher-int8"),
    }
    rows = {row["variant"]: row for row in evaluation_rows(found)}
    assert rows["student-quantized"]["times faster than teacher-int8"] == "10.0"
    assert "times faster than teacher-int8" in markdown(list(rows.values())).splitlines()[0]
