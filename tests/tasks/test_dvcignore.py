"""tasks/data/dvcignore.py: DVC passes over what it cannot hash, and a run says so before it begins."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tasks.data.dvcignore import blocking_files, check_folder, pattern
from tasks.release.snapshot import _copy_folder
from tasks.stage import Paths, StageError
from tests.imports import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder of one message beside all that stops DVC, and a stage that depends on it."""
    mail = tmp_path / "data/mail/ham"
    mail.mkdir(parents=True)
    (mail / "1.eml").write_text("Subject: a\n\nb\n", encoding="utf-8")
    (mail / "nowhere [x]?#!.eml ").symlink_to("gone")
    (mail / "self").symlink_to("self")
    os.mkfifo(mail / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(mail)  # a socket's name is at most 107 bytes
        listener.bind("socket")
        os.chdir(here)
    Path(os.fsdecode(os.fsencode(mail) + b"/caf\xe9.eml")).write_text("Subject: c\n\nd\n", encoding="utf-8")
    Path(os.fsdecode(os.fsencode(mail.parent) + b"/h\xe4m")).mkdir()
    (mail / "up").symlink_to("..")
    (tmp_path / "params.yaml").write_text("ingest: {source: folder, path: data/mail}\n", encoding="utf-8")
    stage = {"cmd": "echo read > out", "deps": ["data/mail"], "outs": ["out"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"read": stage}}), encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["dvc", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def test_the_lines_let_dvc_pass_and_without_them_a_run_is_one_line(project: Path) -> None:
    with pytest.raises(
        StageError, match=r"h\\udce4m: its name is not UTF-8, and DVC stops at it \(5 more are like it\): `python"
    ):
        check_folder(Paths(project))
    done = subprocess.run(
        [sys.executable, "-m", "tasks.data.dvcignore"],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    (project / ".dvcignore").write_bytes(done.stdout)
    assert done.stdout.count(b"\n") == 6
    check_folder(Paths(project))
    subprocess.run(["dvc", "repro", "-q"], cwd=project, check=True, timeout=60)
    (project / "data/mail/ham/1.eml").write_text("Subject: other\n\nb\n", encoding="utf-8")
    assert "modified" in subprocess.run(["dvc", "status"], cwd=project, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("ingest", ["{source: table, path: data/mail}", "{source: folder, path: gone}", "{}", "null"])
def test_no_other_source_is_looked_at(project: Path, ingest: str) -> None:
    (project / "params.yaml").write_text(f"ingest: {ingest}\n", encoding="utf-8")
    assert list(blocking_files(Paths(project))) == []


def test_a_plain_folder_needs_no_line(project: Path) -> None:
    plain = project / "plain"
    plain.mkdir()
    (plain / "1.eml").symlink_to(project / "data/mail/ham/1.eml")
    (project / "params.yaml").write_text("ingest: {source: folder, path: plain}\n", encoding="utf-8")
    assert list(blocking_files(Paths(project))) == []


def test_what_is_a_sign_to_gitignore_is_itself_in_a_name() -> None:
    assert pattern(Path("data/a [b]?*!#.eml ")) == r"/data/a \[b\]\?\*!#.eml[ ]"


def test_a_retraining_takes_every_message_under_a_name_that_dvc_can_write(project: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    _copy_folder(project / "data/mail", target)
    assert sorted(path.name for path in target.rglob("*") if path.is_file()) == ["1.eml", "caf%E9.eml"]
