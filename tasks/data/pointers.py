"""Pointer files: a committed JSON file that names the package with the data, its version and its checksum."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.stage import StageError


class Pointer(BaseModel):
    """What every pointer names; the package's index adds its own checksum and what of the package is the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str
    version: str
    licence: str


P = TypeVar("P", bound=Pointer)


def read_pointer(path: Path, model: type[P], what: str) -> P:
    """The pointer in ``path``; ``what`` names such a file, for errors. Raises StageError."""
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StageError(f"{path}: {error.strerror}; ingest.path must name {what}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise StageError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
