"""A kind that the project does not have (``tests/made_kind``) goes through the whole graph, and no file is changed for it."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import Any

import numpy as np
import pytest
import yaml

from tasks.tune.space import edit_yaml
from tests.imports import ROOT
from tests.made_kind.sequences import LABELS, write_sequences
from tests.project import Project

KIND, WORKLOAD = "sequence_classification", "sequences"
MADE = ROOT / "tests/made_kind"
OWN = (f"service/kinds/{KIND}", f"tasks/kinds/{KIND}", f"workloads/{WORKLOAD}")
"""Where in the project the kind and its workload are, and nothing else."""
REPRO = f"dvc repro --glob '*@{WORKLOAD}'"

ASK = """
import json
from pathlib import Path
from starlette.testclient import TestClient
from service.app import http
from service.release import Release

release = Release(Path("workloads/sequences/release"))
(answer,) = release.answer([release.serving.from_json([3, 1, 4, 1, 5, 9, 2, 6])])
found = {"id": release.id, "kind": release.kind, "labels": release.labels, "label": answer.label}
with TestClient(http, client=("127.0.0.1", 1)) as client:
    for name, path, body in (
        ("right", "/classify", {"sequence": [3, 1, 4, 1, 5, 9, 2, 6]}),
        ("other kind", "/classify_mail", {"sequence": [3]}),
        ("wrong", "/classify", {"text": "3 1 4"}),
        ("negative", "/classify", {"sequence": [-1]}),
        ("empty", "/classify", {"sequence": []}),
        ("long", "/classify", {"sequence": [1] * 101}),
    ):
        response = client.post(path, json=body)
        found[name] = [response.status_code, response.json()]
    given = {"id": found["right"][1]["id"], "label": "beta", "sequence": [3, 1, 4, 1, 5, 9, 2, 6]}
    for name, verdict in (("feedback", given), ("of another", given | {"sequence": [3]})):
        found[name] = client.post("/feedback", json=verdict).status_code
print(json.dumps(found))
"""
"""Run in the copy of the project, as the kind is only there: the release by itself, and behind the service."""

CHECK = f"""
import json
import sys
from pathlib import Path
import pytest
from tasks import kinds
from tasks.data.tables import read_feedback

parts = dict(Data=kinds.data_part, Model=kinds.model_part, Compress=kinds.compress_part, Release=kinds.release_part)
missing = []
for name, part in parts.items():
    protocol = getattr(kinds, name + "Part")
    names = [*protocol.__annotations__, *(found for found in vars(protocol) if not found.startswith("_"))]
    missing += [found for found in names if not hasattr(part("{KIND}"), found)]
(row,) = read_feedback(Path("../feedback.jsonl"), kinds.data_part("{KIND}").content_of)
if code := pytest.main(["-q", "-p", "no:cacheprovider", "tests/test_architecture.py", "-k", "sequence"]):
    sys.exit(code)
print(json.dumps([missing, row.id, row.label, row.content["sequence"].hex()]))
"""
"""Run there too: what the kind lacks of the protocols, a reviewer's label as ingest reads it, and the house rules, as far as
they ask each kind, workload and module.
"""


def hashes(project: Project) -> dict[str, str]:
    """SHA-256 of each file of the project that is in git."""
    names = project.run("git ls-files").stdout.splitlines()
    return {name: hashlib.sha256((project.root / name).read_bytes()).hexdigest() for name in names}


def run_in(project: Project, script: str, variables: str = "") -> Any:
    """What ``script`` prints last, as JSON."""
    (project.root.parent / "script.py").write_text(script, encoding="utf-8")
    return json.loads(project.run(f"{variables} PYTHONPATH=. python ../script.py").stdout.splitlines()[-1])


def report(project: Project, name: str) -> Any:
    return json.loads((project.folder / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, str]]:
    """(the project with the kind and all that its graph makes, what each file was before)."""
    project = Project(tmp_path_factory.mktemp("kind") / "clone")
    before = hashes(project)
    for source, target in zip(("service", "tasks", "workload"), OWN, strict=True):
        shutil.copytree(MADE / source, project.root / target, ignore=shutil.ignore_patterns("__pycache__"))
    project.folder = project.root / OWN[-1]
    (project.folder / "data").mkdir()
    write_sequences(project.folder / "data/sequences.jsonl", rows=600)
    (project.folder / "data/feedback.jsonl").touch()
    (project.folder / "data/rivals.json").write_text("{}\n", encoding="utf-8")
    shared = project.root / "params.yaml"
    text = shared.read_text(encoding="utf-8")
    known = yaml.safe_load(text)["workloads"]
    shared.write_text(edit_yaml(text, {"workloads": [*known, WORKLOAD]}), encoding="utf-8")  # as `make new` does
    project.environment["RESTILL_HOME"] = str(project.root.parent / "home")
    project.run(REPRO)
    return project, before


@pytest.fixture(scope="module")
def project(cloned: tuple[Project, dict[str, str]]) -> Project:
    return cloned[0]


@pytest.fixture(scope="module")
def asked(project: Project) -> dict[str, Any]:
    """What ``ASK`` found."""
    found: dict[str, Any] = run_in(
        project, ASK, f"RESTILL_RELEASE=workloads/{WORKLOAD}/release RESTILL_WORKLOAD={WORKLOAD} RESTILL_DEV=1"
    )
    return found


def test_every_variant_is_evaluated_and_the_student_is_smaller_than_its_teacher(project: Project) -> None:
    params = yaml.safe_load((project.folder / "params.yaml").read_text(encoding="utf-8"))
    evaluation = report(project, "reports/evaluation.json")
    assert set(evaluation["variants"]) == set(params["evaluate"]["variants"])
    teacher, student = (evaluation["variants"][name] for name in ("teacher", "student"))
    assert student["parameters"] < teacher["parameters"] / 4
    assert student["bytes"] < teacher["bytes"]
    for name, variant in evaluation["variants"].items():
        assert variant["metrics"]["test"]["pr_auc"] > 0.7, name
        assert variant["metrics"]["test"]["pr_auc"] < 1, f"{name}: the made data are trivial"
    removed = report(project, "reports/prune.json")["sweep"]
    assert [entry["bytes"] for entry in removed] == sorted((entry["bytes"] for entry in removed), reverse=True)


def test_the_release_is_whole_and_of_this_kind(project: Project, asked: dict[str, Any]) -> None:
    verified = project.run(f"python -m service.release workloads/{WORKLOAD}/release").stdout.strip()
    assert (asked["id"], asked["kind"], asked["labels"]) == (verified, KIND, list(LABELS))
    assert asked["label"] in LABELS
    assert report(project, "release/settings.json")["kind"] == KIND


def test_the_service_answers_with_the_kinds_own_routes_and_no_others(asked: dict[str, Any]) -> None:
    status, answer = asked["right"]
    assert status == 200
    assert (answer["label"], answer["release"]) == (asked["label"], asked["id"])
    assert asked["other kind"][0] == 404
    for name in ("wrong", "negative", "empty", "long"):
        assert asked[name][0] == 422, asked[name]
    assert asked["wrong"][1]["error"].endswith('an object with "sequence" is expected.')
    assert (asked["feedback"], asked["of another"]) == (200, 409)


def test_it_lacks_nothing_keeps_the_house_rules_and_reads_a_reviewers_label(project: Project, asked: dict[str, Any]) -> None:
    project.run(f"python -m tasks.data.feedback --workload {WORKLOAD} export ../feedback.jsonl")
    missing, name, label, content = run_in(project, CHECK)
    assert not missing
    assert (name, label) == (asked["right"][1]["id"], "beta")
    assert np.frombuffer(bytes.fromhex(content), dtype=np.int64).tolist() == [3, 1, 4, 1, 5, 9, 2, 6]


def test_nothing_outside_of_the_kind_names_it(cloned: tuple[Project, dict[str, str]]) -> None:
    project, before = cloned
    files = [project.root / name for name in before if not name.startswith("tests/")]
    assert len(files) > 150
    assert not [file for file in files if KIND in file.read_text(encoding="utf-8", errors="replace")]


def test_no_file_of_the_project_was_changed(cloned: tuple[Project, dict[str, str]]) -> None:
    project, before = cloned
    after = hashes(project)
    assert {name for name in before if after.get(name) != before[name]} == {"params.yaml"}
    lines = project.run("git status --porcelain --untracked-files=all").stdout.splitlines()
    new = {line[3:] for line in lines} - {"params.yaml"}
    assert {name for name in new if not name.startswith(OWN)} == {"dvc.lock"}


def test_a_second_run_does_nothing(project: Project) -> None:
    lock = (project.root / "dvc.lock").read_bytes()
    done = project.run(REPRO)
    assert "Running stage" not in done.stdout
    assert (project.root / "dvc.lock").read_bytes() == lock
