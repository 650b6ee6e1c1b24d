"""Serving half of sequence classification: lists of whole numbers in, the first of them for the model."""

# ruff: noqa: I001 - its own packages are not where it imports them from, so ruff takes them for somebody else's

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from json import loads
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from service.kinds import Model, Reviewed, Route
from service.kinds.sequence_classification.packing import first, numbers_of, packed, padded
from service.refused import Empty, Refused
from service.requests import JSON, Body, Verdict, parse
from service.session import session

Numbers = list[Annotated[int, Field(ge=0, lt=2**31)]]


class OneSequence(Body):
    expected = '"sequence"'
    sequence: Numbers


class SequenceVerdict(Verdict):
    expected = '"id", "label" and "sequence"'
    sequence: Numbers


def one_sequence(body: bytes, media_type: str, limits: Mapping[str, int]) -> list[tuple[Any, str]]:
    return [(packed(parse(OneSequence, body).sequence), "sequence")]


class Network:
    """A model loaded from a folder with ``model.onnx`` and ``variant.json``; it tells no features."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.parameters = int(loads((folder / "variant.json").read_text(encoding="utf-8"))["parameters"])
        self._session = session(folder / "model.onnx", threads)

    def logits(self, inputs: Sequence[bytes]) -> npt.NDArray[np.float32]:
        return np.asarray(self._session.run(["logits"], {"rows": padded(inputs)})[0])

    def outputs(self, inputs: Sequence[bytes]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        return self.logits(inputs), np.empty((len(inputs), 0), dtype=np.float32)


class Serving:
    """``service.kinds.Serving``. A raw input is the bytes of ``int64[n]``; the model's input is the same, cut to ``length``."""

    descriptors: ClassVar[tuple[str, ...]] = ("length", "mean", "spread", "distinct")
    routes: ClassVar[Mapping[str, Route]] = {"/classify": Route(JSON, one_sequence)}
    formats: ClassVar[Mapping[str, Collection[str]]] = {"onnx": ()}
    requires: ClassVar[Collection[str]] = ()
    verdict: ClassVar[type[Verdict]] = SequenceVerdict

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.length = int(settings["sequence"]["length"])

    @staticmethod
    def load(folder: Path, threads: int) -> Network:
        return Network(folder, threads)

    def raw_of(self, content: Mapping[str, Any]) -> bytes:
        return bytes(content["sequence"])

    def check(self, raw: bytes, limits: Mapping[str, int], place: str) -> None:
        if not raw:
            raise Empty(f"{place} is empty.")
        if (length := len(numbers_of(raw))) > limits["length"]:
            raise Refused(422, f"{place} has {length} numbers; at most {limits['length']} are allowed.")

    def preprocess(self, raw: bytes) -> bytes:
        return first(raw, self.length)

    def is_truncated(self, model_input: bytes) -> bool:
        return len(numbers_of(model_input)) >= self.length

    def describe(self, raw: bytes, model_input: bytes, model: Model) -> dict[str, float]:
        numbers = numbers_of(raw)
        figures = len(numbers), numbers.mean(), numbers.std(), len(np.unique(numbers))
        return dict(zip(self.descriptors, map(float, figures), strict=True))

    def identity(self, raw: bytes) -> bytes:
        return raw

    def recorded(self, limits: Mapping[str, int]) -> dict[str, Any]:
        return {}

    def review(self, verdict: SequenceVerdict, answered: Mapping[str, Any], limits: Mapping[str, int]) -> Reviewed:
        return Reviewed(packed(verdict.sequence), {"sequence": " ".join(map(str, verdict.sequence))}, None)

    def to_json(self, raw: bytes) -> list[int]:
        return list(map(int, numbers_of(raw)))

    def from_json(self, value: list[int]) -> bytes:
        return packed(value)

    def warm_up(self, probes: Sequence[bytes]) -> Sequence[bytes]:
        return probes[:1]
