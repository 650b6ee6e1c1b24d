"""Provenance: hashes of files, the git commit, the hash of dvc.lock, package versions."""

from __future__ import annotations

import hashlib
import os
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml

PACKAGES = (
    "torch", "transformers", "onnx", "onnxruntime", "numpy", "pandas", "scikit-learn", "great-expectations",
    "dvc", "prefect", "mlflow", "bentoml", "evidently", "selectolax", "datasketch",
)  # fmt: skip


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


OTHER_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
"""Variables that git sets for a hook: they would point git at the hook's repository, not at the folder's."""


class NoCommit(Exception):
    """Why a folder has no commit, in one line."""


def git_commit(root: Path) -> tuple[str | None, str | None]:
    """(the commit checked out, with ``-dirty`` appended where tracked files differ, None); or (None, why there is none)."""
    try:
        commit = _git(root, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
        _git(root, "ls-files", "--error-unmatch", "dvc.yaml")  # a folder inside another repository is in none of its commits
    except NoCommit as reason:
        return None, str(reason)
    return commit, None


def commit_text(root: Path) -> str:
    """The commit, or ``none`` and why, as a tag."""
    commit, reason = git_commit(root)
    return commit or f"none: {reason}"


def _git(root: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in OTHER_REPOSITORY} | {"LC_ALL": "C"}
    try:
        process = subprocess.run(
            ["git", *arguments], cwd=root, env=environment, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except OSError as error:
        raise NoCommit(f"git cannot be run: {error.strerror}") from error
    if process.returncode:
        raise NoCommit((process.stderr.strip() or f"git ended with {process.returncode}").splitlines()[0])
    return process.stdout.strip()


def lock_hash(project: Path, workload: str, before: str | None = None) -> str:
    """SHA-256 over the workload's stages locked in ``dvc.lock``, without the stage ``before``; ``none`` where there is no lock.

    The calling stage leaves itself out: its entry is written after it ran, so it would hash its previous run.
    """
    path = project / "dvc.lock"
    if not path.exists():
        return "none"
    locked = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
    stages = {name: entry for name, entry in locked.items() if name.endswith(f"@{workload}") and name != f"{before}@{workload}"}
    return hashlib.sha256(yaml.safe_dump(stages, sort_keys=True).encode()).hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of the installed packages whose behaviour affects a model."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions
