"""Loading of any model on the compression path from its folder, behind one interface.

A folder's ``variant.json`` names its kind and its format. The baseline and the teacher in torch are loaded here, every other
format by the kind's serving half.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from service.kinds import serving_class
from tasks.files import read_json
from tasks.kinds import model_part
from tasks.model import baseline
from tasks.model.device import CPU, has_fast_bfloat16
from tasks.stage import StageError

TEACHER_FORMAT = "teacher"


class Variant(Protocol):
    """A model for inference: inputs in, ``float32[n, labels]`` out."""

    parameters: int

    def logits(self, inputs: Sequence[Any]) -> npt.NDArray[np.float32]: ...


class BaselineVariant:
    def __init__(self, folder: Path) -> None:
        self._model = baseline.load(folder)
        self.parameters = int(read_json(folder / "variant.json")["parameters"])

    def logits(self, inputs: Sequence[Any]) -> npt.NDArray[np.float32]:
        return baseline.logits(self._model, inputs)


class TeacherVariant:
    """The teacher in torch on the CPU, in bfloat16 where that is faster."""

    def __init__(self, folder: Path, kind: str, threads: int) -> None:
        self._threads, self._teacher = threads, model_part(kind).load_teacher(folder)
        self.parameters = sum(parameter.numel() for parameter in self._teacher.network.parameters())

    def logits(self, inputs: Sequence[Any]) -> npt.NDArray[np.float32]:
        torch.set_num_threads(self._threads)
        return self._teacher.predict(self._teacher.encode(inputs), CPU, has_fast_bfloat16(CPU))


def load_variant(folder: Path, threads: int) -> Variant:
    """The model in ``folder``, to run on ``threads`` threads. Raises StageError for a folder without a model."""
    try:
        found = read_json(folder / "variant.json")
    except OSError as error:
        raise StageError(f"{folder}: no variant.json, so no model that this project made") from error
    if found["format"] == baseline.FORMAT:
        return BaselineVariant(folder)
    if found["format"] == TEACHER_FORMAT:
        return TeacherVariant(folder, found["kind"], threads)
    try:
        return serving_class(found["kind"]).load(folder, threads)
    except ValueError as error:
        raise StageError(str(error)) from error
