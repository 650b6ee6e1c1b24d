"""The kinds of models that can be trained: the training half of each.

A kind is a package ``tasks.kinds.NAME`` with five parts, each a package, as ``dvc.yaml`` names its folder: ``data`` (reading,
checks, model inputs), ``model`` (baseline and teacher), ``compress`` (students), ``release`` (probes, model card) and
``replay`` (traffic for a demo). The protocols here say what a part holds. No stage names a kind, and no kind imports another.
The serving half is ``service.kinds.NAME``.

A workload names its kind in its ``params.yaml``. A part is loaded by name, so a stage depends on its own part only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from service.kinds import kinds
from tasks.stage import Paths, StageError, read_params

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prepared:
    """The model inputs of some rows of the corpus; the lists are as long as the rows."""

    raws: list[Any]
    """As a client would send them: str or bytes."""
    inputs: list[Any]
    """As the model reads them: str or bytes, equal where the model cannot tell them apart."""
    reasons: list[str | None]
    """Why a row cannot be used; None: it can."""
    counts: dict[str, int]
    """What was done to how many rows, for the report."""


class DataPart(Protocol):
    """``tasks.kinds.NAME.data``: from a source to model inputs."""

    Ingest: type[Any]
    Validate: type[Any]
    Prepare: type[Any]
    """The kind's own settings of these stages: subclasses of the stage's."""
    CONTENT: tuple[str, ...]
    """The columns of the corpus that hold what the model answers to; the last one is never missing."""

    OWN_INGEST: str
    """The block ``ingest`` of a new workload's params.yaml, with comments, for a user's own data."""
    EMPTIED: Mapping[str, str]
    """Parameters that only fit the data of the workload they are copied from, by their last name, and what they become."""

    def read(self, settings: Any, paths: Paths) -> Iterable[Any]:
        """``Row`` or ``Rejected`` of every record of the source. Raises StageError where it cannot be used at all."""

    def content_of(self, entry: Mapping[str, object]) -> dict[str, Any]:
        """The content of a line of feedback, by column. Raises Unreadable for one that is missing or broken."""

    MEANINGS: Mapping[str, str]
    """What each of the kind's bounds and row rules measures, for the page about the data."""

    def measure(self, corpus: pd.DataFrame) -> pd.DataFrame:
        """Numbers of each row that rules check, and ``duplicate``; none of them shows the content."""

    def row_rules(self, rules: Any) -> dict[str, Any]:
        """By reason of quarantine: an expectation of a measured column."""

    def expectations(self, settings: Any) -> dict[str, tuple[Any, Any]]:
        """By name of the parameter: its bound, and an expectation of all rows together."""

    def usable(self, rows: pd.DataFrame) -> pd.Series:
        """Which measured rows a proposal of rules is measured on."""

    def propose_row_rules(self, rows: pd.DataFrame, usable: pd.Series) -> Iterator[tuple[str, str]]:
        """Lines of YAML with their comments, for the kind's own row rules."""

    def propose_bounds(self, snapshot: pd.DataFrame) -> Iterator[tuple[str, str]]:
        """Lines of YAML with their comments, for the kind's own bounds."""

    def prepare_inputs(self, rows: pd.DataFrame, settings: Any) -> Prepared:
        """The raw and the model's inputs of rows of the corpus. Raises ValueError for a parameter that cannot be."""

    def serving_settings(self, settings: Any) -> dict[str, Any]:
        """What the serving half needs to make the same inputs: part of ``data/schema.json`` and of a release."""

    def fingerprint(self, model_input: Any, settings: Any) -> Collection[bytes]:
        """A set that near-duplicates share most of (Jaccard similarity)."""


class Teacher(Protocol):
    """A large model in training."""

    network: Any
    """The ``torch.nn.Module``: tensors of ``epoch`` in, logits ``float[batch, labels]`` out."""

    def parameter_groups(self, settings: Any) -> list[dict[str, Any]]:
        """Parameters and learning rates, for the optimizer."""

    def encode(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Model inputs as ``epoch`` and ``predict`` take them."""

    def epoch(
        self, encoded: Sequence[Any], batch_size: int, seed: int, number: int, start: int
    ) -> Iterator[tuple[list[int], tuple[Any, ...]]]:
        """(rows, tensors) of the batches of an epoch from batch ``start`` on, the same for the same seed and number."""

    def predict(self, encoded: Sequence[Any], device: Any, bfloat16: bool, desc: str | None = None) -> Logits:
        """Logits ``float32[n, labels]`` in order; ``desc`` names a progress bar."""

    def save(self, folder: Path) -> None:
        """Write it into the empty ``folder``, with its ``variant.json``."""

    def export(self, folder: Path, opset: int) -> None:
        """Write it as ONNX into the empty ``folder``, as the serving half loads it."""


class ModelPart(Protocol):
    """``tasks.kinds.NAME.model``: the baseline and the teacher."""

    Baseline: type[Any]
    Train: type[Any]

    def vectorizer(self, settings: Any, schema: Mapping[str, Any]) -> Any:
        """A transformer of scikit-learn from model inputs, as in ``data/schema.json``, to features of the baseline."""

    def quick_features(self, inputs: Sequence[Any], min_documents: int) -> Any:
        """A matrix ``[n, features]`` for fast linear models; a feature of fewer inputs is left out."""

    def new_teacher(self, settings: Any, labels: int, schema: Mapping[str, Any]) -> Teacher:
        """An untrained teacher for inputs as in ``data/schema.json``; torch was seeded. Raises StageError."""

    def load_teacher(self, folder: Path) -> Teacher:
        """As saved."""


class CompressPart(Protocol):
    """``tasks.kinds.NAME.compress``: students."""

    Distill: type[Any]
    Prune: type[Any]
    Quantize: type[Any]

    def families(self, settings: Any, labels: int) -> list[Any]:
        """The settings of each student to try in turn, cheapest first."""

    def context(self, inputs: Sequence[Any], settings: Any) -> Any:
        """What students need to know of all training inputs."""

    def saved_context(self, folder: Path) -> Any:
        """The context of the student saved in ``folder``."""

    def new_student(self, settings: Any, labels: int, context: Any, teacher: Path) -> Any:
        """An untrained ``tasks.compress.student.Student``; torch was seeded. Raises StageError."""

    def learn(
        self,
        student: Any,
        train: Any,
        valid: Any,
        settings: Any,
        checkpoint: Any = None,
        watch: Any = None,
        epochs: int | None = None,
    ) -> list[dict[str, float]]:
        """Train the student in place; the history. ``epochs`` overrides the settings."""

    def forecast(self, student: Any, train: Any, settings: Any) -> float:
        """Seconds that ``learn`` will take."""

    def extra_inputs(self, inputs: Sequence[Any], settings: Any, teacher: Path) -> list[Any]:
        """More inputs made of these, for the teacher to label; each counts as much as ``settings.extra_weight``."""

    def remove_share(self, student: Any, part: str, share: float, parent: Any) -> Any:
        """The student without this share of its parts. Raises StageError where that cannot be."""

    def quantize_student(self, parent: Path, folder: Path, settings: Any, inputs: Sequence[Any]) -> None:
        """Write a quantized copy of the student in ``parent`` into the empty ``folder``. Raises StageError."""


class ReleasePart(Protocol):
    """``tasks.kinds.NAME.release``: what a release tells of itself."""

    Package: type[Any]
    TASK: ClassVar[str]
    """What the model does, for the card; ``{labels}`` stands for them."""

    def probes(self, rows: pd.DataFrame, settings: Any) -> list[Any]:
        """Raw inputs that exercise the model and show no row of the data. Raises StageError."""

    def show(self, raw: Any) -> dict[str, str]:
        """A raw input for a page: ``text``, or ``image`` as a data URL."""

    def cautions(self, schema: Mapping[str, Any]) -> list[str]:
        """What the card warns of, beside what every model's does."""


class ReplayPart(Protocol):
    """``tasks.kinds.NAME.replay``: traffic of the kind."""

    CHANGES: Mapping[str, Callable[[Any, np.random.Generator], Any]]
    """By name: a change of a raw input that a monitor must see."""

    def as_request(self, raw: Any) -> dict[str, Any]:
        """The fields that hold a raw input in the bodies of ``POST /classify`` and ``POST /feedback``."""

    def as_content(self, raw: Any) -> dict[str, Any]:
        """The columns of the corpus that hold a raw input."""

    def ingest_table(self, path: str) -> dict[str, Any]:
        """The parameters of ``ingest`` that read a Parquet table of the corpus' own columns at ``path``."""


def kind_of(paths: Paths) -> str:
    """The kind of the workload, of its ``params.yaml``. Raises StageError."""
    params = read_params(paths.root)
    kind = params.get("kind")
    if kind not in kinds():
        raise StageError(f"{params.file}: kind = {kind!r}: expected one of {', '.join(kinds())}")
    return str(kind)


def data_part(kind: str) -> DataPart:
    return cast(DataPart, _part(kind, "data"))


def model_part(kind: str) -> ModelPart:
    return cast(ModelPart, _part(kind, "model"))


def compress_part(kind: str) -> CompressPart:
    return cast(CompressPart, _part(kind, "compress"))


def release_part(kind: str) -> ReleasePart:
    return cast(ReleasePart, _part(kind, "release"))


def replay_part(kind: str) -> ReplayPart:
    return cast(ReplayPart, _part(kind, "replay"))


PARTS = {
    "ingest": "data",
    "validate": "data",
    "prepare": "data",
    "baseline": "model",
    "train": "model",
    "distill": "compress",
    "prune": "compress",
    "quantize": "compress",
    "package": "release",
}
"""In which part of a kind the settings of a stage are, where the kind adds to them."""


def settings_class(kind: str, stage: str) -> type[Any]:
    """The settings of ``stage``, one of ``PARTS``."""
    return cast(type[Any], getattr(_part(kind, PARTS[stage]), stage.capitalize()))


def settings_of(stage: str) -> Callable[[Paths], type[Any]]:
    """What finds the settings of ``stage`` for a workload, by its kind."""
    return lambda paths: settings_class(kind_of(paths), stage)


def _part(kind: str, name: str) -> Any:
    return importlib.import_module(f"{__name__}.{kind}.{name}")
