"""Vector quantization of the embedding table in an ONNX file: each row becomes a short code for one of few vectors.

Vector quantization (Gersho and Gray 1992): the codewords are the k-means centroids of the rows, and a row costs 4 or 8 bits,
however wide its vector. A vector wider than a codeword is cut into parts with codewords of their own: product quantization
(Jégou, Douze and Schmid 2011, "Product quantization for nearest neighbor search"). Rows are weighted by how often they are
looked up, since that is where an error matters. The layers after the table hold few numbers and stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from joblib import Parallel, delayed
from onnx import numpy_helper
from onnx.helper import make_node
from pydantic import Field
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from tasks.stage import Settings, StageError

Codes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SAMPLE = 1 << 15
"""Rows that k-means is fitted to: more than a hundred per codeword of 8 bits."""


class Codebook(Settings):
    bits: Literal[4, 8]
    """Width of a code: a part has at most 2**bits codewords. Two codes of 4 bits share a byte."""
    dimensions: int = Field(ge=1)
    """Largest width of a codeword: a wider row is cut into as few parts of similar width as possible."""


@dataclass(frozen=True)
class Part:
    """Some columns of a table: ``codes uint8[rows]`` of ``words float32[words, dimensions]``. Word 0 is all zeros."""

    codes: Codes
    words: Floats


def encode(table: Floats, counts: npt.NDArray[np.int64], codebook: Codebook, seed: int) -> list[Part]:
    """The parts of a table ``[rows, width]`` whose rows are looked up ``counts`` times. Rows of zeros stay zero.

    The codewords of a part are fitted to at most ``SAMPLE`` of its rows, so the time grows with the width alone.
    """
    count = -(-table.shape[1] // codebook.dimensions)
    weights = counts.astype(np.float64) + 1  # a row that these texts do not use may occur in the next
    jobs = (
        delayed(_encode_part)(np.ascontiguousarray(columns), weights, 1 << codebook.bits, seed)
        for columns in np.array_split(table, count, axis=1)
    )
    with threadpool_limits(1):  # BLAS threads, which all workers share
        parts = Parallel(n_jobs=-1, prefer="threads", return_as="generator")(jobs)
        return list(tqdm(parts, total=count, desc="quantize", unit=" parts", disable=count == 1))


def _encode_part(vectors: Floats, weights: npt.NDArray[np.float64], words: int, seed: int) -> Part:
    nonzero = np.flatnonzero(vectors.any(axis=1))  # the others get codeword 0
    if len(nonzero) > SAMPLE:
        nonzero = np.sort(np.random.default_rng(seed).choice(nonzero, SAMPLE, replace=False))
    clusters = min(words - 1, len(np.unique(vectors[nonzero], axis=0)))
    centroids = np.zeros((0, vectors.shape[1]), np.float32)
    if clusters:
        # One thread per part: the order of summation decides the last bit of a mean.
        with threadpool_limits(1, user_api="openmp"):
            centroids = (
                KMeans(clusters, n_init=2, random_state=seed)
                .fit(vectors[nonzero], sample_weight=weights[nonzero])
                .cluster_centers_
            )
    codewords = np.concatenate([np.zeros((1, vectors.shape[1])), centroids]).astype(np.float32)
    return Part(pairwise_distances_argmin(vectors, codewords).astype(np.uint8), codewords)


def decode(parts: Sequence[Part]) -> Floats:
    """The table ``[rows, width]`` that the codes stand for."""
    return np.concatenate([part.words[part.codes] for part in parts], axis=1)


def pack(codes: Codes) -> Codes:
    """4-bit codes packed two to a byte, ``[(rows + 1) // 2]``: the upper bits hold the codes of the second half of the rows."""
    half = (len(codes) + 1) // 2
    packed = codes[:half].copy()
    packed[: len(codes) - half] |= codes[half:] << np.uint8(4)
    return packed


def lookup(
    rows: str, output: str, parts: Sequence[Part], bits: int
) -> tuple[list[onnx.NodeProto], dict[str, npt.NDArray[np.generic]]]:
    """The nodes that map the tensor ``rows`` to the vectors ``output`` that their codes stand for, and their constants.

    ONNX has no Gather of 4-bit numbers. Nodes with constant inputs only unpack the bytes, which ONNX Runtime does once, when
    it loads the file: a code takes 4 bits on disk and 8 in memory.
    """
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, npt.NDArray[np.generic]] = {}
    if bits == 4:
        constants |= {"codes.four": np.asarray(4, np.uint8), "codes.lower": np.asarray(15, np.uint8)}
    vectors = [f"codes.{number}.vectors" for number in range(len(parts))] if len(parts) > 1 else [output]
    for number, (part, vector) in enumerate(zip(parts, vectors, strict=True)):
        name = f"codes.{number}"
        constants |= {f"{name}.stored": pack(part.codes) if bits == 4 else part.codes, f"{name}.words": part.words}
        nodes += _unpacked(name) if bits == 4 else []
        nodes += [
            make_node("Gather", [f"{name}.{'unpacked' if bits == 4 else 'stored'}", rows], [name]),
            make_node("Cast", [name], [f"{name}.index"], to=onnx.TensorProto.INT32),
            make_node("Gather", [f"{name}.words", f"{name}.index"], [vector]),
        ]
    if len(parts) > 1:
        nodes.append(make_node("Concat", vectors, [output], axis=-1))
    return nodes, constants


def _unpacked(name: str) -> list[onnx.NodeProto]:
    """The nodes that unpack two codes a byte to one a byte, in the order of the rows; there may be one too many."""
    return [
        make_node("BitwiseAnd", [f"{name}.stored", "codes.lower"], [f"{name}.low"]),
        make_node("BitShift", [f"{name}.stored", "codes.four"], [f"{name}.high"], direction="RIGHT"),
        make_node("Concat", [f"{name}.low", f"{name}.high"], [f"{name}.unpacked"], axis=0),
    ]


def write_codebook(parent: Path, path: Path, counts: npt.NDArray[np.int64], codebook: Codebook, seed: int) -> None:
    """Write a copy of the ONNX file ``parent`` to ``path`` in which the rows of its input are looked up as codewords.

    ``counts[rows]`` says how often texts look a row up. Raises StageError where the file looks its input up in no table or in
    more than one, or where the table cannot be cut into parts.
    """
    model = onnx.load(parent)
    graph, rows = model.graph, model.graph.input[0].name
    lookups = _lookups(graph)
    if len(lookups) != 1:
        where = f"{parent.parent.name}/{parent.name}"
        raise StageError(
            f"{where}: quantize.method = codebook needs one float table that '{rows}' is looked up in, found {len(lookups)}"
        )
    ((position, table),) = lookups
    parts = encode(numpy_helper.to_array(table), counts, codebook, seed)
    nodes, constants = lookup(rows, graph.node[position].output[0], parts, codebook.bits)
    rewritten = [*graph.node[:position], *nodes, *graph.node[position + 1 :]]
    del graph.node[:]
    graph.node.extend(rewritten)
    graph.initializer.remove(table)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _lookups(graph: onnx.GraphProto) -> list[tuple[int, onnx.TensorProto]]:
    """Where the graph's input is looked up in a float table: the node's position, and the table."""
    tables = {
        tensor.name: tensor
        for tensor in graph.initializer
        if len(tensor.dims) == 2 and tensor.data_type == onnx.TensorProto.FLOAT
    }
    return [
        (position, tables[node.input[0]])
        for position, node in enumerate(graph.node)
        if node.op_type == "Gather" and node.input[0] in tables and node.input[1] == graph.input[0].name
    ]
