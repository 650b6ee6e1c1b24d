"""Stage export: the teacher in ONNX, so that it can answer without torch.

The first step of the compression path: nothing is lost yet, and parity with the torch teacher shows it.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from tasks.compress.onnx_file import write_onnx
from tasks.compress.parity import Limits, compare, enforce
from tasks.model.teacher import load_teacher, predict, tokenize
from tasks.model.variants import load_variant
from tasks.stage import Paths, Settings, folder_bytes, run, whole, write_json
from tasks.tracking import track


class Export(Settings):
    opset: int
    """Version of the ONNX operator set."""
    parity_messages: int
    """How many messages of valid both models are asked."""
    parity: Limits


def export_teacher(teacher: Path, folder: Path, opset: int) -> None:
    """Write the teacher as ``model.onnx`` and its ``tokenizer.json`` into the empty ``folder``."""
    model, tokenizer, shape = load_teacher(teacher)
    example = {name: torch.ones((2, 8), dtype=torch.long) for name in ("input_ids", "attention_mask")}
    free = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens", max=shape.tokens)}
    write_onnx(model, example, ["logits"], (free, free), folder / "model.onnx", opset)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "kind": "onnx-transformer",
        "windows": asdict(shape),
        "padding": tokenizer.pad_token_id or 0,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    write_json(folder / "variant.json", settings)


def export(settings: Export, paths: Paths) -> None:
    """Export the teacher to ONNX and check it against torch, in float32, on messages of valid."""
    rows = pd.read_parquet(paths.prepared, columns=["split", "text"])
    texts = list(rows.text[rows.split == "valid"][: settings.parity_messages])
    model, tokenizer, shape = load_teacher(paths.model("teacher"))
    tokens = tokenize(tokenizer, texts, shape)
    expected = predict(model, tokens, tokenizer.pad_token_id or 0, torch.device("cpu"), bfloat16=False)
    with track("export", settings, paths) as tracker:
        with whole(paths.model("teacher-onnx")) as temporary:
            temporary.mkdir()
            export_teacher(paths.model("teacher"), temporary, settings.opset)
            threads = torch.get_num_threads()
            parity = compare(expected, load_variant(temporary, threads).logits(texts))
            figures = {"parity": enforce(parity, settings.parity, "export.parity"), "bytes": folder_bytes(temporary)}
        write_json(paths.report("export.json"), figures)
        tracker.metrics(figures["parity"])  # type: ignore[arg-type]
    print(f"largest difference {parity.largest:.2g}, {figures['bytes']:,} bytes")


if __name__ == "__main__":
    run(export, Export)
