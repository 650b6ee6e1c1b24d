"""benchmarks/: what their figures rest on. They are run by hand; that they still fit to the code is mypy's to say."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.flips import flip
from service.journal import Journal
from service.segments import read, segments
from tests.imports import ROOT

NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py"))
COMMANDS = [name for name in NAMES if "__main__" in (ROOT / f"benchmarks/{name}.py").read_text()]


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_imports(name: str) -> None:
    importlib.import_module(f"benchmarks.{name}")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does_and_stands_in_a_document(name: str) -> None:
    said = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"python -m benchmarks.{name}" in said.stdout
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert any(f"benchmarks.{name}" in path.read_text() for path in documents)


def labelled(folder: Path, count: int) -> None:
    journal = Journal(folder)
    for number in range(count):
        journal.append({"kind": "feedback", "id": str(number), "label": "ham" if number % 3 else "spam", "text": "words"})
    journal.close()


@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_exactly_a_share_of_the_labels_is_flipped_and_nothing_else(tmp_path: Path, share: float) -> None:
    labelled(tmp_path, 40)
    before = [record for path in segments(tmp_path) for record in read(path)]
    assert flip(tmp_path, share, ["ham", "spam"], seed=1) == (round(40 * share), 40)
    after = [record for path in segments(tmp_path) for record in read(path)]
    changed = [old["id"] for old, new in zip(before, after, strict=True) if old["label"] != new["label"]]
    assert len(changed) == round(40 * share)
    assert [record | {"label": ""} for record in before] == [record | {"label": ""} for record in after]
