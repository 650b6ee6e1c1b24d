"""A snapshot of a real clone: what a retraining takes, and what it leaves alone."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tasks.data.feedback import import_table
from tasks.release.snapshot import (
    NotReady,
    close_worktree,
    commit_snapshot,
    keep_quarantine,
    open_worktree,
    push_data,
    take_snapshot,
)
from tasks.stage import Paths, StageError
from tests.conftest import made_table
from tests.project import Project

MAIL = "workloads/mail"
UNTIL = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A clone whose source is a table that git does not hold."""
    (tmp_path / "clone").mkdir()
    made = Project(tmp_path / "clone")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    made_table(["ham", "spam"], 60).to_parquet(made.folder / "data/own.parquet")
    made.set(ingest={"source": "table", "path": "data/own.parquet"})
    made.run("git commit -qam parameters")
    return made


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def give_feedback(project: Project, rows: int) -> Paths:
    paths = Paths(project.folder)
    table = project.folder / "labels.csv"
    made_table(["ham", "spam"], rows, seed=5).to_csv(table, index=False)
    columns = {"id": "id", "received": "received", "label": "label", "subject": "subject", "text": "text", "source": None}
    import_table(table, columns, "anna", paths)
    table.unlink()
    return paths


def test_the_snapshot_is_a_version_of_its_own_on_a_branch_of_its_own(project: Project) -> None:
    paths = give_feedback(project, 12)
    before = git(project.root, "status", "--porcelain")
    folder = open_worktree(paths, "intent-1")
    facts = take_snapshot(project.folder, folder, paths.feedback, UNTIL)
    assert facts["feedback_rows"] == 12
    assert facts["corpus"] == ["data/own.parquet"]
    params = yaml.safe_load((folder / "params.yaml").read_text())
    assert params["ingest"]["until"] == UNTIL.isoformat()
    assert isinstance(params["ingest"]["until"], str), "DVC cannot read a time that is not quoted"
    project.run(f"cd {Paths(folder).project} && dvc repro ingest@mail")
    commit_snapshot(Paths(folder), "a snapshot")
    held = git(project.root, "ls-tree", "-r", "--name-only", "restill/mail/intent-1").splitlines()
    assert {"dvc.lock", f"{MAIL}/data/feedback.jsonl.dvc", f"{MAIL}/data/own.parquet.dvc"} <= set(held)
    assert not {f"{MAIL}/data/feedback.jsonl", f"{MAIL}/data/own.parquet"} & set(held), "messages do not go into git"
    assert git(project.root, "status", "--porcelain") == before, "the checkout is as it was"
    close_worktree(paths, "intent-1")
    assert not folder.exists()
    assert "restill/mail/intent-1" in git(project.root, "branch", "--list", "restill/mail/*")


def test_every_step_can_be_done_twice(project: Project) -> None:
    paths = give_feedback(project, 3)
    first = take_snapshot(project.folder, open_worktree(paths, "intent-1"), paths.feedback, UNTIL)
    folder = open_worktree(paths, "intent-1")
    assert take_snapshot(project.folder, folder, paths.feedback, UNTIL) == first
    assert take_snapshot(project.folder, folder, paths.feedback, UNTIL) == first
    assert push_data(folder).startswith("no remote is set")


def test_data_are_pushed_where_a_remote_is_set(project: Project, tmp_path: Path) -> None:
    paths = give_feedback(project, 3)
    project.run(f"dvc remote add --local -d shelf {tmp_path / 'shelf'}")
    folder = open_worktree(paths, "intent-1")
    take_snapshot(project.folder, folder, paths.feedback, UNTIL)
    assert push_data(folder) == "pushed"
    assert any(path.is_file() for path in (tmp_path / "shelf").rglob("*"))


def test_a_change_that_is_not_committed_is_not_left_out_in_silence(project: Project) -> None:
    project.set(train={"epochs": 9})
    with pytest.raises(StageError, match=r"params\.yaml is not as it was committed"):
        open_worktree(Paths(project.folder), "intent-1")


def test_a_source_that_is_gone_is_one_clear_line(project: Project) -> None:
    (project.folder / "data/own.parquet").unlink()
    folder = open_worktree(Paths(project.folder), "intent-1")
    with pytest.raises(StageError, match=r"ingest\.path = data/own\.parquet: there is no such file"):
        take_snapshot(project.folder, folder, project.root / "var/feedback", UNTIL)


def take(project: Project, name: str = "intent-1") -> Path:
    paths = Paths(project.folder)
    folder = open_worktree(paths, name)
    take_snapshot(project.folder, folder, paths.feedback, UNTIL)
    return folder


def test_a_source_that_git_holds_is_taken_as_it_was_committed_or_not_at_all(project: Project) -> None:
    table = project.folder / "data/own.parquet"
    project.run("git add -f workloads/mail/data/own.parquet && git commit -qm source")
    assert (take(project) / "data/own.parquet").read_bytes() == table.read_bytes()
    made_table(["ham", "spam"], 61).to_parquet(table)
    with pytest.raises(NotReady, match=r"data/own\.parquet is not as it was committed"):
        take(project)


def test_a_folder_of_which_git_knows_a_part_is_taken_whole_wherever_it_lies(project: Project) -> None:
    (project.folder / "mail/spam").mkdir(parents=True)
    (project.folder / "mail/.gitkeep").touch()
    (project.folder / "mail/.gitignore").write_text("*.eml\n")
    project.set(ingest={"source": "folder", "path": "mail/"})
    project.run("git add -f workloads/mail/mail && git commit -qam folder")
    (project.folder / "mail/spam/1.eml").write_text("Subject: one\n\ntext\n")
    folder = take(project)
    assert (folder / "mail/spam/1.eml").exists()
    (Paths(folder).project / "dvc.lock").touch()
    commit_snapshot(Paths(folder), "a snapshot")
    held = git(Paths(folder).project, "ls-tree", "-r", "--name-only", "HEAD").splitlines()
    assert f"{MAIL}/mail.dvc" in held
    assert not [name for name in held if name.startswith(f"{MAIL}/mail/")], "messages do not go into git"
    assert "/mail" in git(folder, "show", f"HEAD:{MAIL}/.gitignore")


def test_what_reviewers_contradict_each_other_in_outlives_the_worktree(project: Project) -> None:
    paths = give_feedback(project, 3)
    kept = paths.monitor / "quarantine/intent-1.csv"
    assert keep_quarantine(take(project), kept) is None
    table = project.folder / "labels.csv"
    other = {"ham": "spam", "spam": "ham"}
    made_table(["ham", "spam"], 3, seed=5).assign(label=lambda rows: rows.label.map(other)).to_csv(table)
    columns = {"id": "id", "received": "received", "label": "label", "subject": "subject", "text": "text", "source": None}
    import_table(table, columns, "bela", paths)
    table.unlink()
    assert keep_quarantine(take(project), kept) == str(kept)
    close_worktree(paths, "intent-1")
    assert kept.read_text().count("anna, bela") == 3
