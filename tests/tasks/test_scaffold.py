"""tasks/scaffold.py: another workload is a folder that is valid at once, and nothing that exists is touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tasks.kinds import settings_class
from tasks.kinds.text_classification.data import Ingest, Prepare
from tasks.release.evaluate import Evaluate
from tasks.scaffold import scaffold
from tasks.stage import StageError, find_workload, read_params, read_settings, workloads
from tasks.tune.space import edit_yaml
from tests.imports import MAIL, ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "workloads/mail").mkdir(parents=True)
    (tmp_path / "params.yaml").write_text(edit_yaml((ROOT / "params.yaml").read_text(), {"workloads": ["mail"]}))
    shutil.copy2(MAIL / "params.yaml", tmp_path / "workloads/mail")
    return tmp_path


def test_a_new_workload_is_valid_and_found(project: Path) -> None:
    before = (project / "params.yaml").read_text()
    folder = scaffold(project, "tickets")
    assert workloads(project) == ["mail", "tickets"]
    assert find_workload("tickets", project).root == folder
    assert find_workload(None, project).workload == "mail"
    assert find_workload(None, folder).workload == "tickets"
    params, first = read_params(folder), read_params(project / "workloads/mail")
    assert set(params) == set(first)
    assert read_settings(Ingest, "ingest", params).source == "table"
    assert read_settings(Prepare, "prepare", params).redact == []
    assert read_settings(Prepare, "prepare", params).positive is None
    assert read_settings(Evaluate, "evaluate", params).slices == {}
    same = set(params) - {"ingest", "prepare", "evaluate", "kind"}
    assert params["kind"] == first["kind"]
    assert {name: params[name] for name in same} == {name: first[name] for name in same}
    assert "# the snapshot" in (folder / "params.yaml").read_text(), "its comments are there"
    after = (project / "params.yaml").read_text()
    assert yaml.safe_load(after) == yaml.safe_load(before) | {"workloads": ["mail", "tickets"]}


def test_a_new_workload_of_another_kind_has_the_parameters_of_the_first_one_of_it(project: Path) -> None:
    with pytest.raises(StageError, match=r"^KIND = image-classification: no workload is of this kind.*are text_classific"):
        scaffold(project, "photos", "image-classification")
    (project / "workloads/fashion").mkdir()
    shutil.copy2(ROOT / "workloads/fashion/params.yaml", project / "workloads/fashion")
    (project / "params.yaml").write_text("workloads: [mail, fashion]\n")
    params = read_params(scaffold(project, "photos", "image-classification"))
    assert params["kind"] == "image_classification"
    settings = read_settings(settings_class(params["kind"], "ingest"), "ingest", params)
    assert (settings.source, settings.label_names) == ("folder", None)


@pytest.mark.parametrize("name", ["mail", "A", "", "../x", "a b", "-x"])
def test_what_cannot_be_a_workload_is_one_line(project: Path, name: str) -> None:
    with pytest.raises(StageError, match=r"^WORKLOAD = "):
        scaffold(project, name)
    assert workloads(project) == ["mail"]


def test_a_workload_that_does_not_exist_is_one_line_with_those_that_do(project: Path) -> None:
    scaffold(project, "tickets")
    with pytest.raises(StageError, match=r"^--workload fashon: there is no such workload; there are mail, tickets$"):
        find_workload("fashon", project)


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        ("null", "expected the names"),
        ("[]", "expected the names"),
        ("[mail, B]", "'B': expected"),
        ("[x]", "no workloads/x/params"),
    ],
)
def test_a_list_of_workloads_that_cannot_be_is_one_line(project: Path, listed: str, says: str) -> None:
    (project / "params.yaml").write_text(f"workloads: {listed}\n")
    with pytest.raises(StageError, match=says):
        find_workload(None, project)
