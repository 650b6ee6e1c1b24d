"""Readers of the sources of images: a Debian package, idx files, an .npz file, a folder of image files, a table."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from service.kinds.image_classification.headers import Unreadable as UnreadableImage
from service.kinds.image_classification.images import decode, encode_png
from tasks.data.cells import Unreadable
from tasks.data.sources import Rejected, Row
from tasks.data.tables import labelled, read_labels
from tasks.kinds.image_classification.data import debian
from tasks.kinds.image_classification.data.arrays import Images, read_idx, read_npz
from tasks.kinds.image_classification.data.folders import from_file, read_folder
from tasks.kinds.image_classification.data.settings import Ingest
from tasks.stage import Paths, StageError

CONTENT = ("image",)
"""The bytes of a PNG or JPEG file."""
TABLE = ("id", "received", "source", "label", *CONTENT)
"""The columns of a table of images."""


def read(settings: Ingest, paths: Paths) -> Iterable[Row | Rejected]:
    """The rows of the configured source. Raises StageError."""
    path, table = Path(settings.path), settings.label_table
    if settings.source == "folder":
        rows = read_folder(path, table)
        return labelled(rows, read_labels(path / table), table) if table else rows
    if settings.source == "table":
        return read_table(path)
    if settings.source == "npz":
        return _rows(read_npz(path), settings.label_names)
    if settings.source == "idx":
        return _rows(read_idx(_files_of(path), f"ingest.path = {path}"), settings.label_names)
    pointer = debian.read_pointer(path)
    package = debian.fetch(pointer, paths.downloads)
    return _rows(read_idx(debian.files_in(package, pointer.folder), pointer.package), settings.label_names)


def _files_of(folder: Path) -> dict[str, bytes]:
    try:
        return {file.name: file.read_bytes() for file in folder.iterdir() if "ubyte" in file.name and file.is_file()}
    except OSError as error:
        raise StageError(f"ingest.path = {folder}: {error.strerror}; a folder of idx files is expected") from error


def _rows(arrays: Iterable[Images], names: list[str] | None) -> Iterator[Row]:
    """A row for each image, written as PNG. Raises StageError for a label number without a name."""
    for array in arrays:
        digits = len(str(len(array.images)))
        labels = array.labels.tolist()
        if names is not None and not all(isinstance(label, int) and 0 <= label < len(names) for label in labels):
            raise StageError(
                f"ingest.label_names: {len(names)} names, but {array.group} has labels that are none of their numbers"
            )
        for number, (pixels, label) in enumerate(zip(array.images, labels, strict=True)):
            name = str(label) if names is None else names[label]
            yield Row(f"{array.group}#{number:0{digits}}", None, array.group, name, {"image": encode_png(pixels)}, ())


def read_table(path: Path) -> Iterator[Row | Rejected]:
    """The rows of a Parquet table in the corpus' own columns. Raises StageError."""
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StageError(f"ingest.path = {path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    if missing := [name for name in TABLE if name not in table.columns]:
        raise StageError(f"ingest.path = {path}: has no column {missing[0]!r}; a table of images has {', '.join(TABLE)}")
    for name, received, source, label, raw in table[list(TABLE)].itertuples(index=False):
        text = None if pd.isna(label) else str(label)
        row = from_file(str(name), str(source), text, raw if isinstance(raw, bytes) else b"", "")
        time = None if pd.isna(received) else pd.Timestamp(received).to_pydatetime()
        yield replace(row, received=time) if isinstance(row, Row) else row


def content_of(entry: Mapping[str, object]) -> dict[str, bytes]:
    """The image of a line of feedback, base64 of its file. Raises Unreadable for one that is missing or broken."""
    text = entry.get("image")
    if not isinstance(text, str):
        raise Unreadable("image_missing_or_no_text")
    try:
        raw = base64.b64decode(text, validate=True)
        decode(raw)
    except (binascii.Error, ValueError) as error:  # UnreadableImage is a ValueError
        raise Unreadable(f"image_{error}" if isinstance(error, UnreadableImage) else "image_not_base64") from error
    return {"image": raw}
