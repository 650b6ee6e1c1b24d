"""The command around the search: which stages a trial runs, what is shown, and what is written to params.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import copy2

import mlflow
import pytest
import yaml

from flows import tune as command
from flows.file_lock import run_lock
from flows.graph import Node, read_graph
from flows.tune import apply, chain, every_trial, read_needs, step_of, summary, tune
from tasks.compress.distill import distill
from tasks.kinds.text_classification.compress import Distill
from tasks.stage import Paths, StageError
from tasks.tune.search import Search
from tests.conftest import KIND
from tests.imports import MAIL
from tests.tasks.test_tune import RATE, RATES, make_project, searching


def node(name: str, needs: str, deps: str, out: str) -> Node:
    return Node(
        name, "", 0, None, None, None, tuple(needs.split()), f"python -m tasks.compress.{name}", tuple(deps.split()), (out,)
    )


NODES = [
    node("train", "", "data/prepared.parquet", "data/logits.npz"),
    node("export", "train", "models/teacher", "models/teacher-onnx"),
    node("distill", "train", "data/prepared.parquet data/logits.npz tasks/compress/distill.py", "models/student"),
    node("prune", "distill", "data/prepared.parquet data/words.json models/student", "models/student-pruned"),
    node("quantize", "prune", "data/prepared.parquet models/student-pruned", "models/student-quantized"),
    node("evaluate", "export distill quantize", "models/student-quantized", "reports/evaluation.json"),
]


def test_a_trial_runs_what_stands_between_the_logits_and_the_variant() -> None:
    found = chain(NODES, "student-quantized")
    assert [one.name for one in found] == ["distill", "prune", "quantize"]
    assert read_needs(found) == ["data/logits.npz", "data/prepared.parquet", "data/words.json", "tasks/compress/distill.py"]
    assert [one.name for one in chain(NODES, "student")] == ["distill"]
    for variant in ("teacher-onnx", "nothing"):
        with pytest.raises(StageError, match=f"tune.variant = '{variant}': dvc.yaml makes no models/{variant} behind distill"):
            chain(NODES, variant)


def test_the_project_s_own_graph_gives_the_stages_of_a_trial() -> None:
    variant = yaml.safe_load((MAIL / "params.yaml").read_text())["tune"]["variant"]
    nodes = chain(read_graph(Paths(MAIL)), variant)
    steps = [step_of(one, KIND) for one in nodes]
    assert (steps[0].stage, steps[0].settings) == (distill, Distill)
    assert steps[-1].name == "quantize"
    needs = set(read_needs(nodes))
    assert {"data/prepared.parquet", "data/schema.json", "data/logits.npz", "../../tasks/compress"} <= needs
    assert not any(name.startswith(("models/student", "reports/")) for name in needs)


@pytest.fixture(scope="module")
def root(mlflow_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project in which a search has run four trials: three sizes of student, and one that breaks its gate."""
    root = make_project(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy2(mlflow_store, root / 'mlflow.db')}")
        search = search_of(root)
        for bits, rate in ((8, "0.05"), (11, "0.05"), (9, "1e-06")):
            search.study.enqueue_trial({"distill.bits": bits, RATE: rate})
        tune(search, 600, 4)
        yield root


def search_of(root: Path) -> Search:
    return searching(
        root, space={"distill.bits": {"low": 8, "high": 11}, **RATES}, margin=0.5, warmup={"trials": 99, "epochs": 0}
    )


def test_the_front_is_shown_with_what_became_of_the_rest(root: Path) -> None:
    shown = summary(search_of(root)).splitlines()
    assert shown[2].startswith("| 0, chosen |"), "the smallest stands first"
    assert shown[2].endswith("| distill.bits 8 |")
    assert "4 trials: 3 finished, 1 broke a gate" in shown
    assert sum(line.startswith("| 3, now |") and line.endswith("| nothing |") for line in shown) == 1, "where params.yaml is"
    assert shown[-1] == "`python -m flows.tune --apply 0` writes it to params.yaml"
    listed = every_trial(search_of(root)).splitlines()[2:]
    assert len(listed) == 4
    assert "| - | - | - | distill.bits 9, distill.bag.sgd.learning_rate 1e-06 | broke a gate: " in listed[2]
    assert listed[3].endswith("| nothing | finished |"), "what params.yaml says"
    picture = (root / "var/tune/pareto.svg").read_text()
    assert "<!-- now -->" in picture
    client = mlflow.MlflowClient()
    (run,) = client.search_runs(["1"], "attributes.run_name = 'tune'")
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["pareto.svg"]


@pytest.mark.parametrize(
    ("which", "says"),
    [("2", "--apply 2: this trial cannot be applied: broke a gate: .*mean"), ("7", "--apply 7: there is no such trial")],
)
def test_what_is_no_point_cannot_be_applied(root: Path, which: str, says: str) -> None:
    before = (root / "params.yaml").read_text()
    with pytest.raises(StageError, match=says):
        apply(search_of(root), which)
    assert (root / "params.yaml").read_text() == before


def test_a_point_is_written_to_params_yaml_and_nothing_else_is_touched(root: Path) -> None:
    before = (root / "params.yaml").read_text()
    assert apply(search_of(root), "1") == "params.yaml: distill.bits 10 -> 11; `make run` makes it"
    after = (root / "params.yaml").read_text()
    assert after == before.replace("\n  bits: 10 ", "\n  bits: 11 ")
    assert apply(search_of(root), "best") == "params.yaml: distill.bits 11 -> 8; `make run` makes it"
    assert apply(search_of(root), "best") == "trial 0 is what params.yaml says already"
    (root / "params.yaml").write_text(before)


def test_two_searches_are_not_at_work_at_once(root: Path) -> None:
    with run_lock(Paths(root), "tune") as free:
        assert free
        with pytest.raises(StageError, match="another search is at work"):
            tune(search_of(root), 600, 1)


def test_a_mistake_in_the_space_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = yaml.safe_load((MAIL / "params.yaml").read_text())
    params["tune"]["space"] = {"distill.bits": {"low": 18, "high": 12}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tune", "--list"])
    with pytest.raises(SystemExit, match=r"^tune: params\.yaml: tune\.space\.distill\.bits = .*low is above high$"):
        command.main()
