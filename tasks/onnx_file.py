"""Export of a torch module to one ONNX file without traces of the machine it was made on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn


def write_onnx(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], shapes: Any, path: Path, opset: int
) -> None:
    """Export ``module`` with named ``inputs`` and ``outputs``; ``shapes`` says which dimensions are dynamic.

    Raises onnx.checker.ValidationError where the exported graph is not valid.
    """
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside torch itself
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                dynamo=True,
                dynamic_shapes=shapes,
                opset_version=opset,
                input_names=list(inputs),
                output_names=list(outputs),
                verbose=False,
            )
    finally:
        exporter.setLevel(level)
    model = program.model_proto  # type: ignore[union-attr]
    del model.graph.value_info[:]  # stale shapes there make the quantizer fail
    del model.graph.metadata_props[:]
    for node in model.graph.node:  # stack traces, with paths of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(model)
    onnx.save(model, path)
