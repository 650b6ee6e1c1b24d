"""Arrays of images with their labels: idx files, as MNIST has them, and .npz files.

All images of an array have one size and cannot be broken singly: what is wrong makes the whole file unusable (StageError).
"""

from __future__ import annotations

import gzip
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.kinds.image_classification.images import MODES, PIXELS
from tasks.stage import StageError

_IDX_NAME = re.compile(r"(?P<group>.*?)[-_.]?(?P<what>images|labels)[-.]idx[134]-ubyte(?P<packed>\.gz)?")
_BYTES = 0x08
"""The type of unsigned bytes in an idx file."""
_PAIRS = (("images", "labels"), ("x_train", "y_train"), ("x_test", "y_test"))
"""Names of arrays in an .npz file that belong together; the first is what we write ourselves, the others are Keras'."""


@dataclass(frozen=True)
class Images:
    """Images of one size with their labels."""

    group: str
    images: npt.NDArray[np.uint8]
    """``uint8[n, height, width]``, or with 1 or 3 channels behind."""
    labels: npt.NDArray[Any]
    """Whole numbers or texts, ``[n]``."""


def read_idx(files: Mapping[str, bytes], where: str) -> Iterator[Images]:
    """The pairs of images and labels among idx files, by name; other files are skipped. Raises StageError."""
    parts: dict[str, dict[str, str]] = {}
    for name in sorted(files):
        if match := _IDX_NAME.fullmatch(name):
            parts.setdefault(match["group"], {})[match["what"]] = name
    if not parts:
        raise StageError(f"{where}: no file is named like train-images-idx3-ubyte or train-images-idx3-ubyte.gz")
    for group, names in parts.items():
        if missing := {"images", "labels"} - names.keys():
            raise StageError(f"{where}: {next(iter(names.values()))} has no {missing.pop()} beside it")
        images, labels = (_idx(files[names[what]], names[what], where) for what in ("images", "labels"))
        yield _checked(Images(group or "images", images, labels), f"{where}: {names['images']}")


def _idx(content: bytes, name: str, where: str) -> npt.NDArray[np.uint8]:
    try:
        if name.endswith(".gz"):
            content = gzip.decompress(content)
        zero, kind, count = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{count}I", content, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise StageError(f"{where}: {name}: is broken: {error}") from error
    if zero or kind != _BYTES:
        raise StageError(f"{where}: {name}: is no idx file of unsigned bytes")
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * count)
    if values.size != np.prod(shape, dtype=object):
        raise StageError(f"{where}: {name}: has {values.size} values, its header says {' x '.join(map(str, shape))}")
    return values.reshape(shape)


def read_npz(path: Path) -> Iterator[Images]:
    """The pairs of arrays in an .npz file. Raises StageError."""
    where = f"ingest.path = {path}"
    try:
        with np.load(path, allow_pickle=False) as file:
            pairs = [names for names in _PAIRS if names[0] in file.files]
            if not pairs:
                raise StageError(f"{where}: has the arrays {', '.join(file.files)}; images and labels are expected")
            for image_name, label_name in pairs:
                if label_name not in file.files:
                    raise StageError(f"{where}: has {image_name} and no {label_name}")
                yield _checked(
                    Images(path.stem if image_name == "images" else image_name[2:], file[image_name], file[label_name]), where
                )
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise StageError(f"{where}: cannot be read as .npz: {error}") from error


def _checked(found: Images, where: str) -> Images:
    """``found``, its labels in one dimension. Raises StageError where shapes or types do not fit."""
    images, labels = found.images, found.labels
    if images.dtype != np.uint8:
        raise StageError(f"{where}: images are {images.dtype}; store them as uint8, 0 to 255")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in MODES):
        raise StageError(f"{where}: images have the shape {images.shape}; [n, height, width] or [n, height, width, 1 or 3]")
    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras stores CIFAR's
        labels = labels[:, 0]
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iuU":
        raise StageError(
            f"{where}: {len(images)} images and labels {labels.dtype} of the shape {labels.shape}: one number or text each"
        )
    if not images.size or images.shape[1] * images.shape[2] > PIXELS:
        raise StageError(f"{where}: images of {images.shape[1]} x {images.shape[2]} pixels; 1 to {PIXELS} pixels each")
    return Images(found.group, images, labels)
