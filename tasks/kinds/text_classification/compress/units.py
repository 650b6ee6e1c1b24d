"""Prunable parts of a student, their sensitivity, and their removal.

A part's sensitivity is the absolute gradient of the loss with respect to a gate that multiplies its output (Michel, Levy and
Neubig 2019; Molchanov et al. 2019): to first order, the change of the loss if the part were zeroed. It is summed over batches
of held-out texts. Removed parts are gone: the arrays get smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from service.kinds.text_classification.tokenizer import Tokenizer
from tasks.compress.distillation import DistillData, DistillLoss, distillation_loss
from tasks.compress.student import BATCH, Student
from tasks.kinds.text_classification.compress.hashed import Hashed
from tasks.kinds.text_classification.compress.networks import Convolution, Network
from tasks.kinds.text_classification.compress.transformer import Thin, keep_layers
from tasks.kinds.text_classification.model.teacher import layers_of

Keep = npt.NDArray[np.int64]
"""Indices of the parts of one place that stay, in order."""


class Prunable:
    """Parts of one kind in one place, such as the heads of a layer: ``gate`` scales their outputs, ``cut`` removes parts."""

    def __init__(self, count: int, module: nn.Module, apply: Callable[..., Any], on_input: bool, cut: Callable[[Keep], None]):
        self.count, self.cut = count, cut
        self.gate = torch.ones(count, requires_grad=True)
        self._module, self._apply, self._on_input = module, apply, on_input

    def __enter__(self) -> Prunable:
        def apply_gate(_: nn.Module, inputs: tuple[Any, ...], output: Any = None) -> Any:
            if self._on_input:
                return (self._apply(self.gate, inputs[0]), *inputs[1:])
            return self._apply(self.gate, inputs[0], output)

        hook = self._module.register_forward_pre_hook if self._on_input else self._module.register_forward_hook
        self._handle = hook(apply_gate)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def _times(gate: Tensor, inputs: Tensor) -> Tensor:
    return inputs * gate.to(inputs.dtype)


def _rows_of(linear: nn.Linear | nn.Conv1d, keep: Keep) -> None:
    """Keep these outputs of a layer."""
    linear.weight = nn.Parameter(linear.weight.detach()[keep].clone())
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.detach()[keep].clone())


def _columns_of(linear: nn.Linear | nn.Conv1d, keep: Keep) -> None:
    """Keep these inputs of a layer."""
    linear.weight = nn.Parameter(linear.weight.detach()[:, keep].clone())


def _narrow(embedding: nn.Embedding, keep: Keep) -> None:
    embedding.weight = nn.Parameter(embedding.weight.detach()[:, keep].clone())
    embedding.embedding_dim = len(keep)


def _dimensions(network: Network | Convolution) -> list[Prunable]:
    def cut(keep: Keep) -> None:
        _narrow(network.embedding, keep)
        next_layers = network.convolutions if isinstance(network, Convolution) else [network.hidden or network.head]
        for layer in next_layers:
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
        first, layers = 0, []
        for layer in network.convolutions:
            count = len(layer.weight)  # type: ignore[arg-type]
            layer_keep = keep[(keep >= first) & (keep < first + count)] - first
            first += count
            if len(layer_keep):
                _rows_of(layer, layer_keep)  # type: ignore[arg-type]
                layers.append(layer)
        network.convolutions = nn.ModuleList(layers)
        _columns_of(network.head, keep)

    return [Prunable(network.head.weight.shape[1], network.units, _times, True, cut)]


def _heads(student: Thin) -> list[Prunable]:
    def prunable(layer: Any) -> Prunable:
        attention, size = layer.attention.self, layer.attention.self.attention_head_size
        heads = attention.query.out_features // size

        def apply_gate(gate: Tensor, inputs: Tensor) -> Tensor:
            return inputs * gate.repeat_interleave(size).to(inputs.dtype)

        def cut(keep: Keep) -> None:
            columns = (keep[:, None] * size + np.arange(size)).ravel()
            for part in (attention.query, attention.key, attention.value):
                _rows_of(part, columns)
                part.out_features = len(columns)
            _columns_of(layer.attention.output.dense, columns)
            attention.num_attention_heads, attention.all_head_size = len(keep), len(columns)

        return Prunable(heads, layer.attention.output.dense, apply_gate, True, cut)

    return [prunable(layer) for layer in layers_of(student.network)]


def _feed_forward(student: Thin) -> list[Prunable]:
    def prunable(layer: Any) -> Prunable:
        def cut(keep: Keep) -> None:
            _rows_of(layer.intermediate.dense, keep)
            _columns_of(layer.output.dense, keep)

        return Prunable(layer.output.dense.weight.shape[1], layer.output.dense, _times, True, cut)

    return [prunable(layer) for layer in layers_of(student.network)]


def _layers(student: Thin) -> list[Prunable]:
    """One ``Prunable`` per layer; a gate of 0 passes the layer's input on."""

    def apply_gate(gate: Tensor, inputs: Tensor, output: Tensor) -> Tensor:
        return inputs + (output - inputs) * gate.to(output.dtype)

    return [Prunable(1, layer, apply_gate, False, lambda _: None) for layer in layers_of(student.network)]


def prunables(student: Student, kind: str) -> list[Prunable]:
    """The prunable parts of ``kind`` in the student, one entry per place; empty where it has none."""
    if isinstance(student, Thin):
        by_kind = {"heads": _heads, "feed_forward": _feed_forward, "layers": _layers}
        return by_kind[kind](student) if kind in by_kind else []
    if not isinstance(student, Hashed):
        return []
    network = student.network
    if kind == "dimensions":
        return _dimensions(network)
    if kind == "hidden" and isinstance(network, Network):
        return _hidden(network)
    return _filters(network) if kind == "filters" and isinstance(network, Convolution) else []


def sensitivities(
    student: Student, targets: Sequence[Prunable], valid: DistillData, distill_loss: DistillLoss
) -> list[npt.NDArray[np.float64]]:
    """The sensitivity of each part, one array per ``Prunable``."""
    student.network.eval()
    sums = [np.zeros(prunable.count) for prunable in targets]
    with ExitStack() as gates:
        for prunable in targets:
            gates.enter_context(prunable)
        for start in range(0, len(valid.inputs), BATCH):
            batch = slice(start, start + BATCH)
            loss = distillation_loss(
                student.forward(valid.inputs[batch]),
                torch.from_numpy(valid.teacher[batch]),
                torch.from_numpy(valid.labels[batch]),
                torch.from_numpy(valid.weights[batch]).float(),
                distill_loss,
            )
            gradients = torch.autograd.grad(loss, [prunable.gate for prunable in targets])
            for total, gradient in zip(sums, gradients, strict=True):
                total += np.abs(gradient.numpy())
    return sums


def parts_to_keep(measured: Sequence[npt.NDArray[np.float64]], share: float) -> list[Keep]:
    """The parts of each place that stay when ``share`` of all is removed, least sensitive first; at least one per place.

    Sensitivities of each place are scaled to L2 norm 1, as gradients differ in size between layers (Michel et al. 2019).
    """
    scaled = [values / max(float(np.linalg.norm(values)), 1e-12) if len(measured) > 1 else values for values in measured]
    protected = [int(values.argmax()) for values in scaled]
    candidates = sorted(
        (float(sensitivity), number, part)
        for number, values in enumerate(scaled)
        for part, sensitivity in enumerate(values)
        if part != protected[number]
    )
    removed = {(number, part) for _, number, part in candidates[: round(share * sum(map(len, scaled)))]}
    return [
        np.array([part for part in range(len(place_values)) if (number, part) not in removed])
        for number, place_values in enumerate(scaled)
    ]


def remove(student: Student, kind: str, share: float, valid: DistillData, distill_loss: DistillLoss) -> None:
    """Remove ``share`` of the parts of ``kind`` from the student's network; ``valid`` as the student encodes it."""
    targets = prunables(student, kind)
    if kind == "layers" and isinstance(student, Thin):
        measured = np.concatenate(sensitivities(student, targets, valid, distill_loss))
        keep_layers(student.network, parts_to_keep([measured], share)[0].tolist(), "prune.sweep.transformer: layers")
        return
    for prunable, keep in zip(targets, parts_to_keep(sensitivities(student, targets, valid, distill_loss), share), strict=True):
        prunable.cut(keep)


def halve_rows(student: Hashed, texts: Sequence[str]) -> Hashed:
    """A student with half as many rows: adjacent rows are merged, and every feature is mapped to the merged row.

    The merged row is the mean of both, weighted by how often ``texts`` hold each. Rows are merged, not dropped, because rare
    features carry what a text shares with no other.
    """
    old = student.tokenizer
    tokenizer = Tokenizer(old.char_ngrams, old.bits - 1, old.known, old.salt, old.words)
    embedding = student.network.embedding
    embeddings = embedding.weight.detach()
    counts = np.bincount(np.concatenate([*student.encode(texts), np.zeros(0, np.int64)]), minlength=old.rows)
    weights = torch.from_numpy(counts).to(embeddings.dtype).unsqueeze(1).clamp(min=1e-6)  # in no text: the plain mean
    weighted = embeddings * weights
    merged = torch.cat([embeddings[:1], (weighted[1::2] + weighted[2::2]) / (weights[1::2] + weights[2::2])])
    student.network.embedding = nn.Embedding(len(merged), embeddings.shape[1], padding_idx=0, _weight=merged)
    return Hashed(student.network, tokenizer)
