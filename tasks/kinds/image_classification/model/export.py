"""Export of a network over images to one small ONNX file that reads the pixels as they are.

The scaling of pixels is part of the file, in form of a DequantizeLinear: bytes are quantized values with the data's mean as
zero point and the inverse of its standard deviation as scale. A quantized copy then reads them without any conversion.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from service.kinds.image_classification.images import Shape
from tasks.onnx_file import write_onnx

IMAGES, SCALED = "images", "scaled"


def write_images_onnx(module: nn.Module, shape: Shape, path: Path, opset: int) -> None:
    """Write ``module`` ((logits, features) of scaled images) to ``path``, without its batch normalisation.

    In front there is an input ``images`` of bytes, ``uint8[n, height, width, channels]``. Raises onnx.checker.ValidationError.
    """
    example = {SCALED: torch.zeros((2, shape.channels, shape.height, shape.width))}
    shapes = ({0: torch.export.Dim("n")},)
    write_onnx(folded(module), example, ("logits", "features"), shapes, path, opset)
    model = onnx.load(path)
    _read_bytes(model.graph, shape)
    strip(model)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def folded(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode with each batch normalisation folded into the convolution before it."""
    return _fold(copy.deepcopy(module).eval())


def _fold(module: nn.Module) -> nn.Module:
    for name, child in list(module.named_children()):
        setattr(module, name, _fold(child))
    if not isinstance(module, nn.Sequential):
        return module
    layers: list[nn.Module] = []
    for layer in module:
        if isinstance(layer, nn.BatchNorm2d) and layers and isinstance(layers[-1], nn.Conv2d):
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


def _read_bytes(graph: Any, shape: Shape) -> None:
    """Put the conversion from bytes in front of the graph."""
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param or "n"
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, [batch, *shape.dimensions]))
    channels_first = helper.make_node("Transpose", [IMAGES], ["first"], perm=[0, 3, 1, 2])
    graph.initializer.append(helper.make_tensor("scale", TensorProto.FLOAT, [], [1 / shape.std]))
    graph.initializer.append(helper.make_tensor("zero", TensorProto.UINT8, [], [shape.mean]))
    scale = helper.make_node("DequantizeLinear", ["first", "scale", "zero"], [SCALED])
    for node in (scale, channels_first):
        graph.node.insert(0, node)


def strip(model: Any) -> None:
    """Shorten all names that nobody asks for, and drop what only describes: in a small file they are a third of it."""
    graph = model.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    names: dict[str, str] = {}

    def short(name: str) -> str:
        return name if name in kept or not name else names.setdefault(name, f"_{len(names):x}")

    for tensor in graph.initializer:
        tensor.name = short(tensor.name)
        tensor.doc_string = ""
    for node in graph.node:
        node.name = ""
        node.doc_string = ""
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    del graph.value_info[:]
    del model.metadata_props[:]
    graph.doc_string = model.doc_string = model.producer_version = ""
