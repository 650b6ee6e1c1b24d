"""Effect snapshot: the world as it is known now, in a clean worktree, as a new version of the data.

A retraining must not touch the checkout in which people work, and must be able to say what it was made of. So it runs
in a git worktree of the last commit, on a branch of its own, with DVC's cache shared; the snapshot's time and the
confirmed feedback are all that differs. Every step can be done twice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides

from tasks.data.feedback import collect, write_rows
from tasks.data.tree import entries, in_utf8
from tasks.kinds import data_part, kind_of
from tasks.lineage import sha256
from tasks.stage import Paths, StageError, read_params
from tasks.tracking import INVOCATION_VARIABLE

SOURCES = ("dvc.yaml", "bentofile.yaml", "constraints.txt", "service", "tasks", "flows")
OWN = ("params.yaml", "data/*.json")
"""What a retraining takes from the last commit, ``OWN`` below the workload: an uncommitted change of it would be left out."""
QUARANTINE = "data/quarantine/feedback.csv"
AUTHOR = ("-c", "user.name=restill", "-c", "user.email=restill@localhost")


class NotReady(StageError):
    """Nothing is wrong with the intent: it waits until a person has committed, or put back, what it needs."""


def command(folder: Path, *words: str) -> str:
    """What a command says, run in ``folder``. Raises StageError with its last line where it fails."""
    marked = {INVOCATION_VARIABLE: folder.name} | os.environ  # by it the next run knows it, where this one is killed
    done = subprocess.run(words, cwd=folder, env=marked, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise StageError(f"{' '.join(words[:3])}: {said}")
    return done.stdout.strip()


def branch_of(paths: Paths, name: str) -> str:
    return "/".join(filter(None, ["restill", paths.workload, name]))


def open_worktree(paths: Paths, name: str) -> Path:
    """The workload in a clean worktree of the last commit, on the branch ``restill/WORKLOAD/NAME``; an old one is made anew.

    Raises NotReady where the project holds changes that a retraining would leave out, StageError where it is no git repository.
    """
    demand_committed(paths)
    root, folder = paths.project, paths.home / "worktrees" / name
    close_worktree(paths, name)
    command(root, "git", "worktree", "add", "--quiet", "-B", branch_of(paths, name), str(folder), "HEAD")
    local = root / ".dvc/config.local"
    if local.exists():  # remotes with their credentials
        shutil.copy2(local, folder / ".dvc/config.local")
    command(folder, "dvc", "config", "--local", "cache.dir", command(root, "dvc", "cache", "dir"))
    made = folder / paths.root.relative_to(root)
    if paths.downloads.exists():
        (made / "data/downloads").symlink_to(paths.downloads.resolve())
    return made


def demand_committed(paths: Paths) -> None:
    """Raises NotReady where the project holds changes that a retraining would leave out, StageError where it has no git."""
    _demand_committed(paths.project, *SOURCES)
    _demand_committed(paths.root, *OWN)
    source = Path(read_params(paths.root)["ingest"]["path"])
    if held_by_git(paths.root, source):
        _demand_committed(paths.root, str(source))


def _demand_committed(root: Path, *sources: str) -> None:
    changed = command(root, "git", "status", "--porcelain", "--", *sources)
    if changed:
        first = changed.splitlines()[0].split()[-1]
        raise NotReady(f"{first} is not as it was committed: a retraining starts from a commit, so commit the change first")


def held_by_git(root: Path, source: Path) -> bool:
    """Whether git knows all of ``source``. A folder of which it knows a part, as its .gitkeep, is in no commit as it is."""
    if source.is_absolute():
        return False
    known, unknown = (command(root, "git", "ls-files", kind, "--", str(source)) for kind in ("--cached", "--others"))
    return bool(known) and not unknown


def close_worktree(paths: Paths, name: str) -> None:
    """Remove the worktree; its branch, its outputs in DVC's cache and its release in the store stay."""
    folder = paths.home / "worktrees" / name
    if folder.exists():
        shutil.rmtree(folder)
    command(paths.project, "git", "worktree", "prune")


def take_snapshot(root: Path, folder: Path, feedback: Path, until: datetime) -> dict[str, Any]:
    """Write the data of the snapshot into the workload's ``folder`` of a worktree and hand it to DVC; facts of what was taken.

    The corpus is what ``ingest.path`` holds now, the feedback what was confirmed before ``until``.
    """
    ingest = read_params(folder)["ingest"]
    try:
        apply_overrides(str(folder / "params.yaml"), [f"ingest.until='{until.isoformat()}'"])
    except DvcException as error:
        raise StageError(f"params.yaml: ingest.until cannot be written: {error}") from error
    taken = [_take_source(root, folder, Path(ingest["path"]))] if not Path(ingest["path"]).is_absolute() else []
    rows, quarantine = collect(feedback, until, data_part(kind_of(Paths(folder))).CONTENT)
    target = folder / ingest["feedback"]
    write_rows(rows, target)
    (folder / QUARANTINE).parent.mkdir(parents=True, exist_ok=True)
    quarantine.to_csv(folder / QUARANTINE, index=False)
    _hand_to_dvc(folder, Path(ingest["feedback"]))
    return {
        "until": until.isoformat(),
        "corpus": [name for name in taken if name],
        "feedback_rows": len(rows),
        "feedback_quarantined": len(quarantine),
        "feedback_sha256": sha256(target),
    }


def _take_source(root: Path, folder: Path, source: Path) -> str | None:
    """A source that git does not hold is taken as it lies in the checkout, and becomes a version of DVC's."""
    if held_by_git(root, source):
        return None
    if not (root / source).exists():
        raise StageError(f"ingest.path = {source}: there is no such file or folder to take a snapshot of")
    target = folder / source
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        shutil.rmtree(target)
    (_copy_folder if (root / source).is_dir() else shutil.copy2)(root / source, target)
    _hand_to_dvc(folder, source)
    return str(source)


def _copy_folder(folder: Path, target: Path) -> None:
    """Copy what ``ingest`` opens, links as the files that they lead to, under names that DVC can write down."""
    for entry in entries(folder):
        if entry.reason is None:
            copy = target.joinpath(*(in_utf8(name) for name in entry.parts))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(folder.joinpath(*entry.parts), copy)


def _hand_to_dvc(folder: Path, path: Path) -> None:
    if command(folder, "git", "ls-files", "--", str(path)):
        command(folder, "git", "rm", "-r", "--quiet", "--cached", "--", str(path))
    command(folder, "dvc", "add", "--quiet", str(path))


def keep_quarantine(folder: Path, kept: Path) -> str | None:
    """Copy what reviewers contradict each other in from the worktree to ``kept``; None where there is nothing."""
    quarantine = folder / QUARANTINE
    if len(quarantine.read_text(encoding="utf-8").splitlines()) < 2:  # the names of the columns alone
        return None
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(quarantine, kept)
    return str(kept)


def commit_snapshot(made: Paths, message: str) -> str:
    """Commit the lock, the parameters and DVC's pointers on the worktree's branch; the commit's hash."""
    folder = made.project
    listed = command(folder, "git", "ls-files", "-zco", "--exclude-standard", "--", "*.dvc", ".gitignore", "*/.gitignore")
    pointers = [name for name in listed.split("\0") if name and not name.startswith(".dvc/")]
    command(folder, "git", "add", "--", "dvc.lock", str(made.root.relative_to(folder) / "params.yaml"), *pointers)
    if command(folder, "git", "diff", "--cached", "--name-only"):
        command(folder, "git", *AUTHOR, "commit", "--quiet", "--no-verify", "-m", message)
    return command(folder, "git", "rev-parse", "HEAD")


def push_data(folder: Path) -> str:
    """``dvc push`` where a remote is set; a sentence that says what was done."""
    if not command(folder, "dvc", "remote", "list"):
        return "no remote is set: nothing to push"
    return command(folder, "dvc", "push", "--quiet") or "pushed"
