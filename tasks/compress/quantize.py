"""Stage quantize: the student's weights in fewer bits, above all its embedding table.

In a model this small the aim is size; the student must still agree with its parent. ``dynamic`` and ``static`` write 8-bit
integers (tasks/compress/int8.py); what else there is, is a matter of the kind.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from service.kinds import serving_class
from tasks.compress.parity import ParityRows, compare, reported
from tasks.compress.settings import Quantize
from tasks.files import atomic_write, folder_bytes, read_json, write_json
from tasks.kinds import compress_part, settings_of
from tasks.stage import Paths, StageError, run
from tasks.tracking import track


def calibration(train: pd.DataFrame, settings: Quantize) -> list[Any]:
    """The inputs of train for calibration: all, or a random sample of the configured size."""
    count = min(settings.calibration_inputs, len(train))
    return list(train.input.iloc[np.random.default_rng(settings.seed).permutation(len(train))[:count]])


def student_folder(name: str, paths: Paths, formats: Collection[str]) -> Path:
    """The parent's folder. Raises StageError where it does not exist or holds no student."""
    folder = paths.model(name)
    if not (folder / "variant.json").exists() or read_json(folder / "variant.json")["format"] not in formats:
        raise StageError(f"quantize.parent = {name!r}: models/{name} holds no student")
    return folder


def quantize(settings: Quantize, paths: Paths) -> None:
    """Quantize the parent by the configured method and check that it still agrees with the parent on valid."""
    schema = read_json(paths.schema)
    serving = serving_class(schema["kind"])
    parent = student_folder(settings.parent, paths, serving.formats)
    rows = pd.read_parquet(paths.prepared, columns=["split", "source", "input", "label_id", "weight"])
    train, valid = (rows[rows.split == split] for split in ("train", "valid"))
    parity_rows = ParityRows.of(valid, schema, settings.parity.slice_rows)
    with track("quantize", settings, paths) as tracker:
        with atomic_write(paths.model("student-quantized")) as temporary:
            temporary.mkdir()
            compress_part(schema["kind"]).quantize_student(parent, temporary, settings, calibration(train, settings))
            inputs = list(valid.input)
            parent_logits, quantized_logits = (serving.load(folder, 1).logits(inputs) for folder in (parent, temporary))
            parity = compare(parent_logits, quantized_logits, parity_rows)
            over = reported(parity, settings.parity, "quantize.parity")
            sizes = {"before": folder_bytes(parent), "after": folder_bytes(temporary)}
        write_json(paths.report("quantize.json"), {"parity": parity.figures(), "over": over, "bytes": sizes})
        tracker.metrics(parity.figures() | {f"bytes_{name}": float(size) for name, size in sizes.items()})
        tracker.file(paths.report("quantize.json"))
    print(f"{sizes['before']:,} -> {sizes['after']:,} bytes, largest difference {parity.largest:.4f}")


if __name__ == "__main__":
    run(quantize, settings_of("quantize"))
