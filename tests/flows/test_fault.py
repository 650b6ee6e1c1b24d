"""flows/fault.py: what DVC cannot read is one line that says where."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flows.graph import read_graph
from tasks.stage import Paths, StageError

GRAPH = "stages:\n  read:\n    cmd: cat ${data.path}\n    deps:\n      - ${data.path}\n    params:\n      - data\n"
PARAMS = "data:\n  path: x\n  labels: [ham, spam]\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("it's #1")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["dvc", "init", "-q"], cwd=root, check=True)
    (root / "x").touch()
    return root


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("params.yaml", "  labels", "\tlabels", "line 3, column 1: found "),
        ("params.yaml", "spam]\n", "spam\nb: 1\n", "line 4, column 2: "),
        ("params.yaml", "labels: ", "path: ", 'line 3, column 3: found duplicate key "path"'),
        ("params.yaml", "ham", "h\x07m", "characters are not allowed: U+0007"),
        ("params.yaml", "ham", "h\udce9m", "line 3, column 13: this is not UTF-8"),
        ("dvc.yaml", "      - data", "    - [data", "line 8, column 1: "),
        ("dvc.yaml", "    cmd", "    cmds", "line 3, column 5: stages.read.cmds: extra keys not allowed (1 more)"),
        ("dvc.yaml", "      - data", "      - 3", "line 7, column 9: stages.read.params.0: "),
        ("dvc.yaml", "stages:", "stagse:", "line 1, column 1: stagse: extra keys not allowed"),
    ],
)
def test_a_fault_of_a_yaml_file_names_its_line_and_column(root: Path, name: str, old: str, new: str, says: str) -> None:
    files = {"dvc.yaml": GRAPH, "params.yaml": PARAMS}
    assert files[name].count(old) == 1
    for file, text in (files | {name: files[name].replace(old, new)}).items():
        (root / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StageError) as caught:
        read_graph(Paths(root))
    said = str(caught.value)
    assert "\n" not in said
    assert said.partition(": line ")[0].endswith(name)
    assert says in said


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        (GRAPH.replace("data.path", "data.pfad"), "failed to parse 'stages.read.cmd' in"),
        ("stages: {a: {cmd: a, outs: [o]}, b: {cmd: b, outs: [o]}}\n", "specified in: - "),
    ],
)
def test_another_fault_of_the_graph_is_one_line_too(root: Path, graph: str, says: str) -> None:
    (root / "dvc.yaml").write_text(graph, encoding="utf-8")
    (root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    with pytest.raises(StageError) as caught:
        read_graph(Paths(root))
    said = str(caught.value)
    assert says in said
    assert "\n" not in said
    assert said.count(says) == 1
