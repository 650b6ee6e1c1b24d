"""What a student is made of, how much each part matters, and how to take parts out.

A part's sensitivity is the mean size of the loss's gradient by a gate that what the part says goes through (Michel, Levy
and Neubig 2019; Molchanov et al. 2019): what the loss would change by at first order if the part fell silent. It is
measured on texts that training did not learn from. What is taken out is gone: the arrays are smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from service.tokenizer import Tokenizer
from tasks.compress.distillation import DistillData, DistillLoss, distillation_loss
from tasks.compress.networks import Convolution, Network
from tasks.compress.student import BATCH, Hashed, Student
from tasks.compress.transformer import Thin, keep_layers
from tasks.model.teacher import layers_of

Keep = npt.NDArray[np.int64]
"""Numbers of the parts of one place that stay, in order."""


class Prunable:
    """Parts of one kind side by side, as the heads of a layer: ``gate`` silences them, ``cut`` takes them out."""

    def __init__(self, count: int, module: nn.Module, through: Callable[..., Any], before: bool, cut: Callable[[Keep], None]):
        self.count, self.cut = count, cut
        self.gate = torch.ones(count, requires_grad=True)
        self._module, self._through, self._before = module, through, before

    def __enter__(self) -> Prunable:
        def listen(_: nn.Module, given: tuple[Any, ...], said: Any = None) -> Any:
            if self._before:
                return (self._through(self.gate, given[0]), *given[1:])
            return self._through(self.gate, given[0], said)

        hook = self._module.register_forward_pre_hook if self._before else self._module.register_forward_hook
        self._handle = hook(listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def _times(gate: Tensor, given: Tensor) -> Tensor:
    return given * gate.to(given.dtype)


def _rows_of(linear: nn.Linear | nn.Conv1d, keep: Keep) -> None:
    """Leave these outputs of a layer."""
    linear.weight = nn.Parameter(linear.weight.detach()[keep].clone())
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.detach()[keep].clone())


def _columns_of(linear: nn.Linear | nn.Conv1d, keep: Keep) -> None:
    """Leave these inputs of a layer."""
    linear.weight = nn.Parameter(linear.weight.detach()[:, keep].clone())


def _narrow(embedding: nn.Embedding, keep: Keep) -> None:
    embedding.weight = nn.Parameter(embedding.weight.detach()[:, keep].clone())
    embedding.embedding_dim = len(keep)


def _dimensions(network: Network | Convolution) -> list[Prunable]:
    def cut(keep: Keep) -> None:
        _narrow(network.embedding, keep)
        behind = network.convolutions if isinstance(network, Convolution) else [network.hidden or network.head]
        for layer in behind:
            _columns_of(layer, keep)  # type: ignore[arg-type]

    return [Prunable(network.embedding.embedding_dim, network.dimensions, _times, True, cut)]


def _hidden(network: Network) -> list[Prunable]:
    hidden = network.hidden

    def cut(keep: Keep) -> None:
        assert hidden is not None
        _rows_of(hidden, keep)
        _columns_of(network.head, keep)

    return [] if hidden is None else [Prunable(len(hidden.weight), network.units, _times, True, cut)]


def _filters(network: Convolution) -> list[Prunable]:
    def cut(keep: Keep) -> None:
        first, kept = 0, []
        for layer in network.convolutions:
            count = len(layer.weight)  # type: ignore[arg-type]
            own = keep[(keep >= first) & (keep < first + count)] - first
            first += count
            if len(own):
                _rows_of(layer, own)  # type: ignore[arg-type]
                kept.append(layer)
        network.convolutions = nn.ModuleList(kept)
        _columns_of(network.head, keep)

    return [Prunable(network.head.weight.shape[1], network.units, _times, True, cut)]


def _heads(student: Thin) -> list[Prunable]:
    def place(layer: Any) -> Prunable:
        attention, size = layer.attention.self, layer.attention.self.attention_head_size
        heads = attention.query.out_features // size

        def through(gate: Tensor, given: Tensor) -> Tensor:
            return given * gate.repeat_interleave(size).to(given.dtype)

        def cut(keep: Keep) -> None:
            wide = (keep[:, None] * size + np.arange(size)).ravel()
            for part in (attention.query, attention.key, attention.value):
                _rows_of(part, wide)
                part.out_features = len(wide)
            _columns_of(layer.attention.output.dense, wide)
            attention.num_attention_heads, attention.all_head_size = len(keep), len(wide)

        return Prunable(heads, layer.attention.output.dense, through, True, cut)

    return [place(layer) for layer in layers_of(student.network)]


def _feed_forward(student: Thin) -> list[Prunable]:
    def place(layer: Any) -> Prunable:
        def cut(keep: Keep) -> None:
            _rows_of(layer.intermediate.dense, keep)
            _columns_of(layer.output.dense, keep)

        return Prunable(layer.output.dense.weight.shape[1], layer.output.dense, _times, True, cut)

    return [place(layer) for layer in layers_of(student.network)]


def _layers(student: Thin) -> list[Prunable]:
    """One place whose parts are the layers: a silent one hands on what it is given."""

    def through(gate: Tensor, given: Tensor, said: Tensor) -> Tensor:
        return given + (said - given) * gate.to(said.dtype)

    return [Prunable(1, layer, through, False, lambda _: None) for layer in layers_of(student.network)]


def places(student: Student, kind: str) -> list[Prunable]:
    """Where parts of ``kind`` stand in the pupil; none where it has no such parts."""
    if isinstance(student, Thin):
        found = {"heads": _heads, "feed_forward": _feed_forward, "layers": _layers}
        return found[kind](student) if kind in found else []
    if not isinstance(student, Hashed):
        return []
    network = student.network
    if kind == "dimensions":
        return _dimensions(network)
    if kind == "hidden" and isinstance(network, Network):
        return _hidden(network)
    return _filters(network) if kind == "filters" and isinstance(network, Convolution) else []


def sensitivities(
    student: Student, found: Sequence[Prunable], valid: DistillData, distill_loss: DistillLoss
) -> list[npt.NDArray[np.float64]]:
    """The sensitivity of each part, an array a place."""
    student.network.eval()
    sums = [np.zeros(place.count) for place in found]
    with ExitStack() as gates:
        for place in found:
            gates.enter_context(place)
        for start in range(0, len(valid.texts), BATCH):
            part = slice(start, start + BATCH)
            loss = distillation_loss(
                student.ask(valid.texts[part]),
                torch.from_numpy(valid.teacher[part]),
                torch.from_numpy(valid.labels[part]),
                torch.from_numpy(valid.weights[part]).float(),
                distill_loss,
            )
            slopes = torch.autograd.grad(loss, [place.gate for place in found])
            for total, slope in zip(sums, slopes, strict=True):
                total += np.abs(slope.numpy())
    return sums


def least(measured: Sequence[npt.NDArray[np.float64]], share: float) -> list[Keep]:
    """What stays of each place when ``share`` of all parts goes, the least sensitive first; one of each place at least.

    Places are compared after each is scaled to length 1: layers differ in how steep they are (Michel et al. 2019).
    """
    scaled = [values / max(float(np.linalg.norm(values)), 1e-12) if len(measured) > 1 else values for values in measured]
    safe = [int(values.argmax()) for values in scaled]
    rest = sorted(
        (float(value), number, part)
        for number, values in enumerate(scaled)
        for part, value in enumerate(values)
        if part != safe[number]
    )
    gone = {(number, part) for _, number, part in rest[: round(share * sum(map(len, scaled)))]}
    return [np.array([part for part in range(len(v)) if (number, part) not in gone]) for number, v in enumerate(scaled)]


def remove(student: Student, kind: str, share: float, valid: DistillData, distill_loss: DistillLoss) -> None:
    """Take ``share`` of the parts of ``kind`` out of the pupil's network; ``valid`` as the pupil reads it."""
    found = places(student, kind)
    if kind == "layers" and isinstance(student, Thin):
        measured = np.concatenate(sensitivities(student, found, valid, distill_loss))
        keep_layers(student.network, least([measured], share)[0].tolist(), "prune.sweep.transformer: layers")
        return
    for place, keep in zip(found, least(sensitivities(student, found, valid, distill_loss), share), strict=True):
        place.cut(keep)


def halve_rows(student: Hashed, texts: Sequence[str]) -> Hashed:
    """A student of half as many rows: neighbours become one, and every feature finds its way there.

    The one is their mean, each as often as ``texts`` hold it: a row that no text holds has nothing to say. Rows are
    merged, and none is dropped, for rare features carry what a text has that no other has.
    """
    old = student.tokenizer
    tokenizer = Tokenizer(old.char_ngrams, old.bits - 1, old.known, old.salt, old.words)
    embedding = student.network.embedding
    table = embedding.weight.detach()
    counts = np.bincount(np.concatenate([*student.encode(texts), np.zeros(0, np.int64)]), minlength=old.rows)
    often = torch.from_numpy(counts).to(table.dtype).unsqueeze(1).clamp(min=1e-6)  # neither is held: the plain mean
    bigrams = table * often
    merged = torch.cat([table[:1], (bigrams[1::2] + bigrams[2::2]) / (often[1::2] + often[2::2])])
    student.network.embedding = nn.Embedding(len(merged), table.shape[1], padding_idx=0, _weight=merged)
    return Hashed(student.network, tokenizer)
