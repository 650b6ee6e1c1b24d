"""What every stage shares: its parameters, its command line, its errors and how it writes.

A stage is a function ``stage(settings, paths)`` in a module of the same name as its block in ``params.yaml`` and
its entry in ``dvc.yaml``. ``run`` turns it into a command: it reads the block, checks it, and maps a
``StageError`` to one line and exit code 1.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class StageError(Exception):
    """Something the user can mend: the message names the file or parameter, the value and the mend."""


class Settings(BaseModel):
    """One stage's block of ``params.yaml``: immutable, nothing unknown in it, no default behind its back."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Settings)


class Paths:
    """Where each artefact lies below the project's root; ``dvc.yaml`` names the same places."""

    def __init__(self, root: Path) -> None:
        self.root = root
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
        self.home = Path(os.environ.get("RESTILL_HOME", "").strip() or root / "var").absolute()
        self.store = self.home / "store"
        self.journal = self.home / "journal"
        self.feedback = self.home / "feedback"
        self.monitor = self.home / "monitor"
        self.gates = self.home / "gates"
        self.evidently = self.home / "evidently"

    def report(self, name: str) -> Path:
        return self.reports / name

    def model(self, variant: str) -> Path:
        return self.models / variant


def read_params(root: Path) -> dict[str, Any]:
    """The whole of ``params.yaml``. Raises StageError where it is missing or is not YAML."""
    path = root / "params.yaml"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StageError(f"{path.name}: cannot be read: {error.strerror}") from error
    try:
        params = yaml.safe_load(content.decode("utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise StageError(yaml_fault(path.name, content, error)) from error
    if not isinstance(params, dict):
        raise StageError(f"{path.name}: expected a block for each stage, found {type(params).__name__}")
    return params


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


def read_settings(model: type[S], name: str, params: dict[str, Any]) -> S:
    """The block ``name`` as a typed object. Raises StageError that names the parameter and its value."""
    try:
        return model.model_validate(params.get(name))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join([name, *map(str, first["loc"])])
        raise StageError(f"params.yaml: {place} = {first.get('input')!r}: {first['msg']}") from error


def run(
    stage: Callable[[S, Paths], None], settings: type[S], instead: Mapping[str, Callable[[Paths], None]] = MappingProxyType({})
) -> None:
    """Run ``stage`` as a command in the current folder. A StageError ends it with one line and exit code 1.

    ``instead``: what is done in its place, without its parameters, by the option that asks for it; of several, the last.
    """
    name = stage.__name__
    parser = argparse.ArgumentParser(
        prog=f"python -m {sys.modules[stage.__module__].__spec__.name}"  # type: ignore[union-attr]
        if sys.modules[stage.__module__].__spec__
        else None,
        description=stage.__doc__,
        epilog=f"Its parameters are the block '{name}' of params.yaml; its files stand in dvc.yaml.",
    )
    for option, other in instead.items():
        parser.add_argument(option, dest="chosen", action="store_const", const=other, help=other.__doc__)
    chosen: Callable[[Paths], None] | None = getattr(parser.parse_args(), "chosen", None)
    try:
        root = project_folder()
        if chosen:
            chosen(Paths(root))
        else:
            stage(read_settings(settings, name, read_params(root)), Paths(root))
    except StageError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        print(f"{name}: {error.filename or root}: {error.strerror or error}", file=sys.stderr)
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


def sqlite_uri(path: Path, driver: str = "sqlite") -> str:
    """The SQLite file ``path`` as SQLAlchemy's URL.

    There a question mark ends the path, and nothing escapes it: such a path goes in SQLite's own form
    (https://www.sqlite.org/uri.html), which is percent-encoded.
    """
    absolute = str(path.absolute())
    return f"{driver}:///file:{quote(absolute)}?uri=true" if "?" in absolute else f"{driver}:///{absolute}"


def as_time(until: datetime | date | None) -> datetime | None:
    """A date is its first moment, UTC; a time without a zone is UTC."""
    if until is None:
        return None
    moment = until if isinstance(until, datetime) else datetime.combine(until, time())
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``; on success it is renamed to it, so no half file ever stands there.

    Works for a file and for a folder that the caller makes (a former folder is replaced).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name for all processes: what a killed run left behind is cleared by the next (DVC lets one run a stage).
    temporary, aside = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.old.tmp")
    _remove(temporary)
    try:
        yield temporary
        if path.is_dir():  # a folder cannot be replaced in one step, but it can be moved aside in one
            _remove(aside)
            path.replace(aside)
        try:
            temporary.replace(path)
        except OSError:
            if aside.exists():  # what stood there is better than nothing
                aside.replace(path)
            raise
    finally:
        _remove(temporary)
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as sorted, indented JSON, whole or not at all. NaN is refused: write None."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
