"""A transformer in ONNX, as the serving half loads it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from service.kinds.text_classification.token_windows import TokenWindows
from tasks.files import write_json
from tasks.kinds.text_classification.model.teacher import Teacher
from tasks.onnx_file import write_onnx


def write_transformer(model: Teacher, tokenizer: Any, shape: TokenWindows, folder: Path, opset: int) -> None:
    """Write ``model.onnx``, ``tokenizer.json`` and ``variant.json`` into the empty ``folder``."""
    example = {name: torch.ones((2, 8), dtype=torch.long) for name in ("input_ids", "attention_mask")}
    dynamic = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens", max=shape.tokens)}
    write_onnx(model, example, ["logits"], (dynamic, dynamic), folder / "model.onnx", opset)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "kind": "text_classification",
        "format": "onnx-transformer",
        "windows": asdict(shape),
        "padding": tokenizer.pad_token_id or 0,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    write_json(folder / "variant.json", settings)
