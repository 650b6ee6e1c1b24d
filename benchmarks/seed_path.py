"""The part of dvc.yaml that makes the models: which stages lie on it, and which of them are due in a seed's folder."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tasks.lineage import sha256
from tasks.stage import StageError

FIRST, LAST = "train", "quantize"
"""The path: all stages that stand behind the first and before the last, and these two."""
MODEL = re.compile(r"models/([^/]+)$")


@dataclass(frozen=True)
class Step:
    """One stage on the path; its files as ``dvc.yaml`` names them, parameters put in."""

    name: str
    module: str
    code: tuple[str, ...]
    deps: tuple[str, ...]
    """Files and folders that it reads, but for code."""
    outs: tuple[str, ...]

    @property
    def models(self) -> list[str]:
        """Folders below models/ that it makes."""
        return [found[1] for out in self.outs if (found := MODEL.match(out))]


def read_path(root: Path, params: Mapping[str, Any]) -> list[Step]:
    """The path from ``FIRST`` to ``LAST`` in the order of ``dvc.yaml``. Raises StageError where it has no such stages."""
    try:
        stages = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        steps = {name: _step(name, entry, params) for name, entry in stages.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise StageError(f"dvc.yaml cannot be read: {' '.join(str(error).split())}") from error
    makers = {out: name for name, step in steps.items() for out in step.outs}
    needs = {name: {makers[dep] for dep in step.deps if dep in makers} for name, step in steps.items()}
    behind, before = {FIRST}, {LAST}
    for name in steps:  # dvc.yaml names no stage before those that it reads from: a test of the graph holds that
        if needs[name] & behind:
            behind.add(name)
    for name in reversed(steps):
        if name in before:
            before |= needs[name]
    if FIRST not in before or LAST not in behind:
        raise StageError(f"dvc.yaml: no path leads from {FIRST} to {LAST}")
    return [step for name, step in steps.items() if name in behind & before]


def _step(name: str, entry: Mapping[str, Any], params: Mapping[str, Any]) -> Step:
    def names(*kinds: str) -> list[str]:
        listed = [one for kind in kinds for one in entry.get(kind, [])]
        return [_filled(one if isinstance(one, str) else next(iter(one)), params) for one in listed]

    deps = names("deps")
    code = tuple(dep for dep in deps if dep.endswith(".py"))
    outs = tuple(names("outs", "metrics", "plots"))
    return Step(name, entry["cmd"].split()[-1], code, tuple(dep for dep in deps if dep not in code), outs)


def _filled(text: str, params: Mapping[str, Any]) -> str:
    """``${quantize.parent}`` as DVC fills it in."""
    return re.sub(r"\$\{(\w+)\.(\w+)\}", lambda found: str(params[found[1]][found[2]]), text)


def given(path: Sequence[Step]) -> list[str]:
    """What the path reads and does not make itself: the data."""
    made = {out for step in path for out in step.outs}
    return sorted({dep for step in path for dep in step.deps} - made)


def seeded(params: Mapping[str, Any], path: Sequence[Step], seed: int) -> dict[str, Any]:
    """``params`` with the seed of every stage on the path set to ``seed``; a stage without one has no chance in it."""
    changed = copy.deepcopy(dict(params))
    for step in path:
        if "seed" in changed[step.name]:
            changed[step.name]["seed"] = seed
    return changed


def keys(path: Sequence[Step], params: Mapping[str, Any], root: Path) -> dict[str, str]:
    """By stage, a hash of all that its outputs rest on: parameters, data, the stages before it, and its code.

    The code of ``FIRST`` does not count: a training is too dear to be done again for a comment, so whoever changes how
    teachers learn takes another folder.
    """
    found: dict[str, str] = {}
    data = {name: _hash(root / name) for name in given(path)}
    makers = {out: step.name for step in path for out in step.outs}
    for step in path:
        read = [data[dep] if dep in data else found[makers[dep]] for dep in sorted(step.deps)]
        code = [] if step.name == FIRST else [sha256(root / name) for name in sorted(step.code)]
        facts = json.dumps([step.name, params[step.name], read, code], sort_keys=True)
        found[step.name] = hashlib.sha256(facts.encode()).hexdigest()
    return found


def _hash(path: Path) -> str:
    if not path.is_dir():
        return sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return hashlib.sha256(repr([(str(file.relative_to(path)), sha256(file)) for file in files]).encode()).hexdigest()


def due(
    path: Sequence[Step], wanted: Mapping[str, str], done: Mapping[str, str], there: Collection[str], needed: Collection[str]
) -> list[Step]:
    """The stages to run, in order: those whose key is another than when they ran, and those whose output is ``needed``
    (or read by a stage that is due) and not ``there``.
    """
    missing, todo = set(needed) - set(there), []
    for step in reversed(path):
        if done.get(step.name) != wanted[step.name] or missing & set(step.outs):
            todo.append(step)
            missing |= set(step.deps) - set(there)
    return todo[::-1]
