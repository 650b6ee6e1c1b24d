"""The model-building path of dvc.yaml: its stages, their cache keys, and which of them are due in a seed's folder."""

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
from tasks.stage import Paths, StageError

FIRST, LAST = "train", "quantize"
"""Ends of the path: all stages downstream of the first and upstream of the last, and these two."""
MODEL = re.compile(r"models/([^/]+)$")


@dataclass(frozen=True)
class Step:
    """One stage on the path; its files as in ``dvc.yaml``, with parameters substituted."""

    name: str
    module: str
    code: tuple[str, ...]
    deps: tuple[str, ...]
    """Files and folders that it reads, without code."""
    outs: tuple[str, ...]

    @property
    def models(self) -> list[str]:
        """Folders below models/ that it creates."""
        return [match[1] for out in self.outs if (match := MODEL.match(out))]


def read_path(root: Path, params: Mapping[str, Any]) -> list[Step]:
    """The path from ``FIRST`` to ``LAST`` of the workload in ``root``, as ``dvc.yaml`` orders it. Raises StageError if none."""
    try:
        stages = yaml.safe_load((Paths(root).project / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        steps = {name: _step(name, entry, params) for name, entry in stages.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise StageError(f"dvc.yaml cannot be read: {' '.join(str(error).split())}") from error
    producers = {out: name for name, step in steps.items() for out in step.outs}
    needs = {name: {producers[dep] for dep in step.deps if dep in producers} for name, step in steps.items()}
    downstream, upstream = {FIRST}, {LAST}
    for name in steps:  # dvc.yaml lists stages after those that they read from, which a test of the graph ensures
        if needs[name] & downstream:
            downstream.add(name)
    for name in reversed(steps):
        if name in upstream:
            upstream |= needs[name]
    if FIRST not in upstream or LAST not in downstream:
        raise StageError(f"dvc.yaml: no path leads from {FIRST} to {LAST}")
    return [step for name, step in steps.items() if name in downstream & upstream]


def _step(name: str, entry: Mapping[str, Any], params: Mapping[str, Any]) -> Step:
    def names(*kinds: str) -> list[str]:
        entries = [item for kind in kinds for item in entry.get(kind, [])]
        return [_substitute(item if isinstance(item, str) else next(iter(item)), params) for item in entries]

    deps = names("deps")
    code = tuple(dep for dep in deps if dep.startswith("../"))
    outs = tuple(names("outs", "metrics", "plots"))
    return Step(name, entry["cmd"].split()[-1], code, tuple(dep for dep in deps if dep not in code), outs)


def _substitute(text: str, params: Mapping[str, Any]) -> str:
    """``text`` with templates such as ``${quantize.parent}`` substituted as by DVC."""
    text = text.replace("${kind}", str(params["kind"]))
    return re.sub(r"\$\{(\w+)\.(\w+)\}", lambda match: str(params[match[1]][match[2]]), text)


def path_inputs(path: Sequence[Step]) -> list[str]:
    """The files that the path reads but does not create: the data."""
    outputs = {out for step in path for out in step.outs}
    return sorted({dep for step in path for dep in step.deps} - outputs)


def with_seed(params: Mapping[str, Any], path: Sequence[Step], seed: int) -> dict[str, Any]:
    """``params`` with the seed of every stage on the path set to ``seed``; a stage without a seed is deterministic."""
    changed = copy.deepcopy(dict(params))
    for step in path:
        if "seed" in changed[step.name]:
            changed[step.name]["seed"] = seed
    return changed


def keys(path: Sequence[Step], params: Mapping[str, Any], root: Path) -> dict[str, str]:
    """Stage -> cache key: a hash of its parameters, data, upstream stages and code.

    The code of ``FIRST`` is excluded, as training is too expensive to repeat for a comment: after a change of the training
    code use another folder.
    """
    key_of: dict[str, str] = {}
    data = {name: _hash(root / name) for name in path_inputs(path)}
    producers = {out: step.name for step in path for out in step.outs}
    for step in path:
        inputs = [data[dep] if dep in data else key_of[producers[dep]] for dep in sorted(step.deps)]
        code = [] if step.name == FIRST else [_hash(root / name) for name in sorted(step.code)]
        facts = json.dumps([step.name, params[step.name], inputs, code], sort_keys=True)
        key_of[step.name] = hashlib.sha256(facts.encode()).hexdigest()
    return key_of


def _hash(path: Path) -> str:
    if not path.is_dir():
        return sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix != ".pyc")
    return hashlib.sha256(repr([(str(file.relative_to(path)), sha256(file)) for file in files]).encode()).hexdigest()


def due(
    path: Sequence[Step],
    current_keys: Mapping[str, str],
    done: Mapping[str, str],
    existing: Collection[str],
    needed: Collection[str],
) -> list[Step]:
    """The stages to run, in order: those whose key has changed since they ran, and those with an output that is ``needed``
    (or read by a due stage) and does not exist.
    """
    missing, stages = set(needed) - set(existing), []
    for step in reversed(path):
        if done.get(step.name) != current_keys[step.name] or missing & set(step.outs):
            stages.append(step)
            missing |= set(step.deps) - set(existing)
    return stages[::-1]
