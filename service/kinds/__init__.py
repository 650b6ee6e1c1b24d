"""The kinds of models that the service answers with: the serving half of each.

A kind is a package ``service.kinds.NAME`` whose module ``serving`` has a class ``Serving``, which implements the protocol
here. The server, the release, the journal and feedback know no kind. NumPy and ONNX Runtime only: training calls the very
same functions, so there is no skew.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from service.requests import Verdict


class Model(Protocol):
    """A loaded model: inputs in, scores over a finite set out."""

    parameters: int

    def logits(self, inputs: Sequence[Any]) -> npt.NDArray[np.float32]:
        """``float32[n, labels]`` of at least one input, in order."""

    def outputs(self, inputs: Sequence[Any]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(logits, pooled features ``float32[n, dimensions]``); 0 dimensions where the model outputs none."""


@dataclass(frozen=True)
class Route:
    """A route ``POST PATH`` of a kind."""

    media_types: tuple[str, ...]
    decode: Callable[[bytes, str, Mapping[str, int]], list[tuple[Any, str]]]
    """(body, media type or "", limits) -> each raw input with its place in the body, for errors. Raises Refused."""
    many: bool = False
    """The answer is a list, one entry for each input; else one object."""
    slow: bool = False
    """``decode`` may take long, and runs in a thread."""


@dataclass(frozen=True)
class Reviewed:
    """What a reviewer sent back: the raw input as it was answered, and what is stored of it for a later training."""

    raw: Any
    content: Mapping[str, Any]
    """By the names of the corpus' columns; JSON."""
    received: datetime | None


class Serving(Protocol):
    """The serving half of a kind, under the settings of a release.

    A *raw input* is what a client sends (a text, the bytes of an image); an *input* is what the model reads of it.
    """

    descriptors: ClassVar[tuple[str, ...]]
    """Names of the numbers that are watched for drift; they tell nothing of a person."""
    routes: ClassVar[Mapping[str, Route]]
    formats: ClassVar[Mapping[str, Collection[str]]]
    """Formats of models (``variant.json``) that ``load`` takes, and the packages that one needs beside ``requires``."""
    requires: ClassVar[Collection[str]]
    """Packages that the kind needs, beside those of ``bentofile.yaml``."""
    verdict: ClassVar[type[Verdict]]
    """The body of ``POST /feedback``."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """``settings``: as in ``data/schema.json`` and a release's ``settings.json``. Raises ValueError."""

    @staticmethod
    def load(folder: Path, threads: int) -> Model:
        """The model in ``folder``. Raises ValueError for one that cannot be served."""

    def raw_of(self, content: Mapping[str, Any]) -> Any:
        """The raw input of a row of the corpus, from its columns of content."""

    def check(self, raw: Any, limits: Mapping[str, int], place: str) -> None:
        """Raises Refused (422) for a raw input that is empty or over a limit."""

    def preprocess(self, raw: Any) -> Any:
        """The model's input; empty where nothing in ``raw`` can be read."""

    def is_truncated(self, model_input: Any) -> bool:
        """Whether the rest of the raw input was cut off."""

    def describe(self, raw: Any, model_input: Any, model: Model) -> dict[str, float]:
        """The descriptors by their names."""

    def identity(self, raw: Any) -> bytes:
        """What the journal's salted hash is made of: equal for equal raw inputs."""

    def recorded(self, limits: Mapping[str, int]) -> dict[str, Any]:
        """What else ``review`` needs to know of an answer, for the journal's record."""

    def review(self, verdict: Any, answered: Mapping[str, Any], limits: Mapping[str, int]) -> Reviewed:
        """The input of a verdict on the ``answered`` record. Raises Refused."""

    def to_json(self, raw: Any) -> Any:
        """A raw input as JSON, as probes are stored."""

    def from_json(self, value: Any) -> Any:
        """The inverse of ``to_json``."""

    def warm_up(self, probes: Sequence[Any]) -> Sequence[Any]:
        """Raw inputs made of the ``probes`` that reach all of the model's code, so that no request pays for it."""


def serving_class(kind: str) -> type[Serving]:
    """The serving half of ``kind``. Raises ValueError where there is no such kind."""
    if kind not in (known := kinds()):
        raise ValueError(f"kind {kind!r} is none of {', '.join(known)}")
    return cast(type[Serving], importlib.import_module(f"{__name__}.{kind}.serving").Serving)


def kinds() -> list[str]:
    """The names of all kinds."""
    return sorted(path.parent.name for root in __path__ for path in Path(root).glob("*/serving.py"))
