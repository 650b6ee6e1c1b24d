"""What every stage shares: its parameters, its command line, its errors and how it writes.

A stage is a function ``stage(settings, paths)`` in a module of the same name as its block in ``params.yaml`` and
its entry in ``dvc.yaml``. ``run`` turns it into a command: it reads the block, checks it, and maps a
``StageError`` to one line and exit code 1.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class StageError(Exception):
    """Something the user can mend: the message names the file or parameter, the value and the mend."""


class Settings(BaseModel):
    """One stage's block of ``params.yaml``: immutable, nothing unknown in it, no default behind its back."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Settings)


WORKLOADS = "workloads"
"""The folder of the project below which each workload has its own."""


class Paths:
    """Where each artefact of a workload lies; ``dvc.yaml`` names the same places.

    ``root`` is the workload's folder, ``project`` the one that holds ``dvc.yaml``, the code and all workloads. A folder that
    is not below ``workloads/`` is a project of its own. ``home`` holds the runtime state; by default it is below RESTILL_HOME.
    """

    def __init__(self, root: Path, home: Path | None = None) -> None:
        self.root = root
        inside = root.absolute().parent.name == WORKLOADS
        self.project = root.absolute().parent.parent if inside else root
        self.workload = root.absolute().name if inside else ""
        self.name = f"restill-{self.workload}" if inside else "restill"  # of its experiment, registered model and Bento
        self.corpus = root / "data/corpus.parquet"
        self.validated = root / "data/validated.parquet"
        self.prepared = root / "data/prepared.parquet"
        self.schema = root / "data/schema.json"
        self.quarantine = root / "data/quarantine"
        self.downloads = root / "data/downloads"
        self.logits = root / "data/logits.npz"
        self.models = root / "models"
        self.runs = root / "models/runs"
        self.checkpoints = root / ".checkpoints"
        self.reports = root / "reports"
        self.release = root / "release"
        # What happens, and not what is computed, lies outside of the graph: it is one place for all clones that share it.
        base = Path(os.environ.get("RESTILL_HOME", "").strip() or self.project / "var").absolute()
        self.home = home or base / self.workload
        self.store = self.home / "store"
        self.journal = self.home / "journal"
        self.feedback = self.home / "feedback"
        self.monitor = self.home / "monitor"
        self.gates = self.home / "gates"
        self.evidently = (home or base) / "evidently"  # one page for all workloads

    def report(self, name: str) -> Path:
        return self.reports / name

    def model(self, variant: str) -> Path:
        return self.models / variant


class Params(dict[str, Any]):
    """What a ``params.yaml`` holds."""

    file = "params.yaml"
    """How errors call it."""


def read_params(root: Path) -> Params:
    """The whole of ``params.yaml``. Raises StageError where it is missing or is not YAML."""
    path = root / "params.yaml"
    workload = Paths(root).workload
    name = f"{WORKLOADS}/{workload}/{path.name}" if workload else path.name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StageError(f"{name}: cannot be read: {error.strerror}") from error
    try:
        params = yaml.safe_load(content.decode("utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise StageError(yaml_fault(name, content, error)) from error
    if not isinstance(params, dict):
        raise StageError(f"{name}: expected a block for each stage, found {type(params).__name__}")
    found = Params(params)
    found.file = name
    return found


def yaml_fault(name: str, content: bytes, error: Any) -> str:
    """``NAME: line 12, column 3: what is wrong`` of an error of PyYAML, of ruamel.yaml (which DVC uses), or of decoding."""
    if isinstance(error, UnicodeDecodeError):
        before, what = content[: error.start].decode("utf-8"), "this is not UTF-8"
    elif hasattr(error, "reason"):  # of the reader, which knows no lines
        before, what = content.decode("utf-8")[: error.position], f"{error.reason}: U+{error.character:04X}"
    elif mark := getattr(error, "problem_mark", None):
        context = f", {error.context}" if error.context else ""
        context += f" (from line {error.context_mark.line + 1})" if error.context_mark else ""
        return f"{name}: line {mark.line + 1}, column {mark.column + 1}: {' '.join(f'{error.problem}{context}'.split())}"
    else:
        return f"{name}: {' '.join(str(error).split())}"
    return f"{name}: line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}: {what}"


def read_settings(model: type[S], name: str, params: Mapping[str, Any]) -> S:
    """The block ``name`` as a typed object. Raises StageError that names the parameter and its value."""
    try:
        return model.model_validate(params.get(name))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join([name, *map(str, first["loc"])])
        file = getattr(params, "file", Params.file)
        raise StageError(f"{file}: {place} = {first.get('input')!r}: {first['msg']}") from error


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workload",
        metavar="NAME",
        help="a folder below workloads/; default: the one called in, else the first in params.yaml",
    )


def find_workload(name: str | None = None, folder: Path | None = None) -> Paths:
    """The workload ``name`` of the project in ``folder`` (default: the current one).

    Raises StageError that says which there are where there is none of this name.
    """
    current = Paths(folder or project_folder())
    if not name:
        if current.workload or not (current.project / "params.yaml").is_file() or WORKLOADS not in read_params(current.project):
            return current
        return find_workload(workloads(current.project)[0], current.project)
    if name not in (known := workloads(current.project)):
        raise StageError(f"--workload {name}: there is no such workload; there are {', '.join(known)}")
    return Paths(current.project / WORKLOADS / name)


def workloads(project: Path) -> list[str]:
    """The workloads of the project, in the order of its ``params.yaml``. Raises StageError where it names none."""
    listed = read_params(project).get(WORKLOADS)
    if not isinstance(listed, list) or not listed or not all(isinstance(name, str) for name in listed):
        raise StageError(f"params.yaml: workloads = {listed!r}: expected the names of one folder below workloads/ or more")
    if invalid := [name for name in listed if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name)]:
        raise StageError(f"params.yaml: workloads: {invalid[0]!r}: expected a name of small letters, digits, - and _")
    if missing := [name for name in listed if not (project / WORKLOADS / name / "params.yaml").is_file()]:
        raise StageError(f"params.yaml: workloads: there is no workloads/{missing[0]}/params.yaml")
    return listed


def run(
    stage: Callable[[S, Paths], None],
    settings: type[S] | Callable[[Paths], type[S]],
    instead: Mapping[str, Callable[[Paths], None]] = MappingProxyType({}),
) -> None:
    """Run ``stage`` as a command on one workload. A StageError ends it with one line and exit code 1.

    ``settings``: of its block, or what finds them, where they depend on the workload's kind. ``instead``: what is done in its
    place, without its parameters, by the option that asks for it; of several, the last.
    """
    name = stage.__name__
    parser = argparse.ArgumentParser(
        prog=f"python -m {sys.modules[stage.__module__].__spec__.name}"  # type: ignore[union-attr]
        if sys.modules[stage.__module__].__spec__
        else None,
        description=stage.__doc__,
        epilog=f"Its parameters are the block '{name}' of params.yaml; its files stand in dvc.yaml.",
    )
    add_option(parser)
    for option, other in instead.items():
        parser.add_argument(option, dest="chosen", action="store_const", const=other, help=other.__doc__)
    arguments = parser.parse_args()
    chosen: Callable[[Paths], None] | None = getattr(arguments, "chosen", None)
    try:
        paths = find_workload(arguments.workload)
        os.chdir(paths.root)  # as DVC does: what params.yaml names is below it
        if chosen:
            chosen(paths)
        else:
            found = settings if isinstance(settings, type) else settings(paths)
            stage(read_settings(found, name, read_params(paths.root)), paths)
    except StageError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        print(f"{name}: {error.filename or Path.cwd()}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)


OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
"""Errors that say what to mend by themselves: it is full, read-only, or not ours to write."""


def project_folder() -> Path:
    """The current folder. Raises StageError where its name is none that every library can write down."""
    root = Path.cwd()
    if braces := set("{}") & set(str(root)):
        raise StageError(f"{root}: DVC cannot work in a folder whose name holds a {braces.pop()}: rename it")
    if os.fsencode(root) == str(root).encode(errors="replace"):
        return root
    mend = "set PYTHONUTF8=1: in this locale its name is read in another charset"
    if sys.getfilesystemencoding() == "utf-8":
        mend = "rename the project's folder: its name is not UTF-8"
    raise StageError(f"{str(root)!a}: {mend}")


def as_time(until: datetime | date | None) -> datetime | None:
    """A date is its first moment, UTC; a time without a zone is UTC."""
    if until is None:
        return None
    moment = until if isinstance(until, datetime) else datetime.combine(until, time())
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
