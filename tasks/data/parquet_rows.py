"""The rows of a Parquet file, or of a folder of its parts, with lossless values.

It uses pyarrow directly: pandas converts integers with nulls to floats, and cannot hold times outside of 1677 to 2262.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from tasks.data.cells import datetime_since_1970

_BATCH = 4096
"""Rows per batch: one may be large."""
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_PLAIN = (
    types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_timestamp, types.is_date, types.is_null,
)  # fmt: skip
_BYTES = (
    types.is_string, types.is_large_string, types.is_string_view,
    types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary,
)  # fmt: skip


def read_parquet(
    path: Path, needed: Collection[str], check: Callable[[Collection[str]], None]
) -> Iterator[tuple[int, dict[str, object]]]:
    """(row number from 0, value by column) of each row, of the ``needed`` columns.

    A folder is read as the parts (``*.parquet``) below it, sorted by name; ``label=spam`` in a part's path is a text column.
    A part need not hold every column. Raises ValueError, also for a needed column of a nested type, OSError and
    ArrowException.
    """
    parts = [(part, _partition_values(part.relative_to(path))) for part in _parts(path)] if path.is_dir() else [(path, {})]
    check(_columns(parts, needed))
    number = 0
    for part, partition in parts:
        with pq.ParquetFile(part, coerce_int96_timestamp_unit="us") as file:
            present = [name for name in dict.fromkeys(needed) if name in file.schema_arrow.names]
            # If none is present, the batches still have the right number of rows.
            for batch in file.iter_batches(_BATCH, columns=present):
                cells = [_values(batch.column(batch.schema.get_field_index(name))) for name in present]
                for row in range(batch.num_rows):
                    yield number, {**partition, **{name: column[row] for name, column in zip(present, cells, strict=True)}}
                    number += 1


def _parts(folder: Path) -> list[Path]:
    """The parts in a folder, without files whose names begin with ``_`` or ``.``, which Spark and others put beside them."""
    paths = sorted(path for path in folder.rglob("*.parquet") if path.is_file())
    parts = [path for path in paths if not any(name[0] in "._" for name in path.relative_to(folder).parts)]
    if not parts:
        raise ValueError("the folder holds no *.parquet file")
    return parts


def _partition_values(part: Path) -> dict[str, object]:
    pairs = [folder.partition("=") for folder in part.parts[:-1] if "=" in folder]
    return {unquote(key): None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value) for key, _, value in pairs}


def _columns(parts: list[tuple[Path, dict[str, object]]], needed: Collection[str]) -> list[str]:
    """The columns of all parts, after checking their names and types."""
    columns: dict[str, None] = {}
    for part, partition in parts:
        schema = pq.read_schema(part)
        names = [*partition, *schema.names]
        if duplicates := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"the column {duplicates[0]!r} stands twice in {part.name}; rename or remove one")
        nested = [f"{field.name!r} is {field.type}" for field in schema if field.name in needed and not _is_scalar(field.type)]
        if nested:
            raise ValueError(f"the column {', the column '.join(nested)}: it must be of text, numbers, booleans or timestamps")
        columns.update(dict.fromkeys(names))
    return list(columns)


def _is_scalar(kind: pa.DataType) -> bool:
    if types.is_dictionary(kind):
        return _is_scalar(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _is_scalar(kind.storage_type)
    return any(is_kind(kind) for is_kind in (*_PLAIN, *_BYTES))


def _values(column: pa.Array) -> list[object]:
    """Text as bytes, as a column of strings may hold invalid UTF-8; floats as Decimals of their shortest digits."""
    kind = column.type
    if types.is_dictionary(kind):
        return _values(column.cast(kind.value_type))
    if isinstance(kind, pa.UuidType):
        return [None if value is None else str(value) for value in column.to_pylist()]
    if isinstance(kind, pa.BaseExtensionType):
        return _values(column.storage)
    if types.is_timestamp(kind):
        counts = column.cast(pa.int64()).to_pylist()  # UTC, whatever zone the type names
        return [None if count is None else datetime_since_1970(count, _PER_SECOND[kind.unit]) for count in counts]
    if types.is_date(kind):
        days = column.cast(pa.date32()).cast(pa.int32()).to_pylist()
        times = [None if day is None else datetime_since_1970(day * 86_400, per_second=1) for day in days]
        return [time.date().isoformat() if isinstance(time, datetime) else time for time in times]
    if types.is_floating(kind):
        return [None if digits is None else Decimal(digits) for digits in column.cast(pa.string()).to_pylist()]
    if any(is_kind(kind) for is_kind in _BYTES) and not types.is_fixed_size_binary(kind):
        column = column.cast(pa.large_binary())
    values: list[object] = column.to_pylist()
    return values
