"""Settings of the stages ingest, validate and prepare for images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.data import settings
from tasks.data.check_result import Bound
from tasks.stage import Settings


class Ingest(settings.Ingest):
    source: Literal["debian", "idx", "npz", "folder", "table"]
    """What ``path`` is: a pointer file to a Debian package of idx files, a folder of idx files, an .npz file, a folder of image
    files by class, or a Parquet table with the columns id, received, source, label and image (the bytes of the file).
    """
    label_names: list[str] | None
    """debian, idx, npz: the name of each label number, from 0; null: the number, or the text that an .npz has, is the label."""
    label_table: str | None
    """folder: a CSV below ``path`` with the columns file,label; null: the first folder below ``path`` is the label."""


class RowRules(settings.RowRules):
    side_min: int
    side_max: int
    """Of width and height, in pixels, of the image as stored."""
    contrast_min: float
    """Least standard deviation of the grey values, 0 to 255; 0: images of one colour may stay."""


class Validate(settings.Validate):
    row_rules: RowRules
    brightness: Bound
    """Mean over the images of their mean grey value, 0 to 255."""
    contrast: Bound
    """Mean over the images of their standard deviation of grey values."""
    constant_share: Bound
    """Share of images of one colour."""
    file_bytes: Bound
    """Mean size of an image file."""


class Image(Settings):
    """The pixels that the model reads, and how it scales them: ``(value - mean) / std``."""

    height: int = Field(ge=1)
    width: int = Field(ge=1)
    channels: Literal[1, 3]
    mean: int = Field(ge=0, le=255)
    std: float = Field(gt=0)


class NearDuplicates(settings.NearDuplicates):
    grid: int = Field(ge=4)
    """The image is averaged to so many fields a side before it is compared."""
    step: int = Field(ge=1, le=128)
    """Difference of neighbouring fields, of 255, from which it counts as an edge; smaller ones are noise."""


class Prepare(settings.Prepare):
    image: Image
    near_duplicates: NearDuplicates
