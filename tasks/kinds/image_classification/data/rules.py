"""What is measured of each image, the rules about it, and the rules that are proposed from it."""

from __future__ import annotations

from collections.abc import Iterator

import great_expectations.expectations as gxe
import numpy as np
import pandas as pd

from service.kinds.image_classification.images import decode
from tasks.data.check_result import Bound
from tasks.data.proposal import Line, bound_line, round_down, round_up, upper_bound_line
from tasks.kinds.image_classification.data.settings import RowRules, Validate

MEANINGS = {
    "brightness": "mean grey value of an image, of 255",
    "contrast": "standard deviation of an image's grey values, mean",
    "constant_share": "share of images of one colour",
    "file_bytes": "bytes of an image's file, mean",
    "width_out_of_range": "width in pixels",
    "height_out_of_range": "height in pixels",
    "contrast_too_low": "standard deviation of the grey values",
}
"""What each expectation and each rule measures, for the page about the data."""


def measure(corpus: pd.DataFrame) -> pd.DataFrame:
    """One row per image and no pixel: width, height, mean and contrast of grey values, constant (0, 1), bytes, duplicate."""
    table = pd.DataFrame(
        [_measured(raw) for raw in corpus.image], columns=["width", "height", "mean", "contrast"], index=corpus.index
    )
    return table.assign(
        constant=(table.contrast == 0).astype(int),
        bytes=corpus.image.str.len(),
        duplicate=corpus.image.duplicated().astype(int),
    )


def _measured(raw: bytes) -> tuple[int, int, float, float]:
    image, _ = decode(raw)
    counts, values = np.asarray(image.convert("L").histogram()), np.arange(256)
    size = image.width * image.height
    mean = float(counts @ values) / size
    variance = float(counts @ (values * values)) / size - mean * mean
    return image.width, image.height, mean, max(0.0, variance) ** 0.5


def row_rules(rules: RowRules) -> dict[str, gxe.Expectation]:
    """The expectation of each rule by the name used in the quarantine."""
    sizes = {
        f"{name}_out_of_range": gxe.ExpectColumnValuesToBeBetween(
            column=name, min_value=rules.side_min, max_value=rules.side_max
        )
        for name in ("width", "height")
    }
    return sizes | {
        "contrast_too_low": gxe.ExpectColumnValuesToBeBetween(column="contrast", min_value=rules.contrast_min),
    }


def expectations(settings: Validate) -> dict[str, tuple[Bound, gxe.Expectation]]:
    """Bound and expectation by the parameter that sets it."""
    return {
        name: (bound, gxe.ExpectColumnMeanToBeBetween(column=column, min_value=bound.min, max_value=bound.max))
        for name, column, bound in (
            ("brightness", "mean", settings.brightness),
            ("contrast", "contrast", settings.contrast),
            ("constant_share", "constant", settings.constant_share),
            ("file_bytes", "bytes", settings.file_bytes),
        )
    }


def usable(rows: pd.DataFrame) -> pd.Series:
    """Which measured rows show anything."""
    return rows.constant == 0


def propose_row_rules(rows: pd.DataFrame, usable: pd.Series) -> Iterator[Line]:
    """The sizes that occur, with room for half and twice; images of one colour go."""
    sides = pd.concat([rows.width[usable], rows.height[usable]])
    yield f"side_min: {max(1, int(sides.min()) // 2)}", f"shortest {sides.min():,}"
    yield f"side_max: {2 * int(sides.max())}", f"longest {sides.max():,}, median {sides.median():,.0f}"
    lowest = rows.contrast[usable].min()
    yield "contrast_min: 1", f"lowest {lowest:.3g}; of one colour, so quarantined: {int(rows.constant.sum()):,} rows"


def propose_bounds(snapshot: pd.DataFrame) -> Iterator[Line]:
    """Half the measured mean as a lower bound, half more or twice it as an upper bound."""
    for name, column in (("brightness", "mean"), ("contrast", "contrast")):
        mean = float(snapshot[column].mean())
        yield bound_line(name, low=round_down(mean / 2), high=min(255.0, round_up(1.5 * mean))), f"{mean:.4g}"
    yield upper_bound_line("constant_share", snapshot.constant, 0.01)
    size = float(snapshot.bytes.mean())
    yield bound_line("file_bytes", low=round_down(size / 2), high=round_up(2 * size), severity="soft"), f"{size:,.0f}"
