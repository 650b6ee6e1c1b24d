"""Where something came from: hashes of files, the git commit, the state of the DVC lock, package versions."""

from __future__ import annotations

import hashlib
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml

PACKAGES = (
    "torch", "transformers", "onnx", "onnxruntime", "numpy", "pandas", "scikit-learn", "great-expectations",
    "dvc", "prefect", "mlflow", "bentoml", "evidently", "selectolax", "datasketch",
)  # fmt: skip


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_commit(root: Path) -> str:
    """The commit checked out, with ``-dirty`` behind it where tracked files differ; ``none`` outside of git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "none"


def lock_hash(root: Path, before: str | None = None) -> str:
    """SHA-256 over the stages locked in ``dvc.lock``, without the stage ``before``; ``none`` where there is no lock.

    The stage that asks leaves itself out: its own entry is written after it ran, so it would hash its past.
    """
    path = root / "dvc.lock"
    if not path.exists():
        return "none"
    stages = yaml.safe_load(path.read_text())["stages"]
    stages.pop(before, None)
    return hashlib.sha256(yaml.safe_dump(stages, sort_keys=True).encode()).hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of the installed packages whose behaviour ends up in a model."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
