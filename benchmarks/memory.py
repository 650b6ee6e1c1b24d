"""Resident memory of a fresh process that loads a single model and answers one raw text.

The probe imports only what the model needs, so it does not use ``tasks.model.variants``, which imports all libraries.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).parents[1]
Answer = Callable[[str], Any]


def _tfidf(folder: Path) -> Answer:
    import joblib

    model = joblib.load(folder / "model.joblib")
    return lambda text: model.decision_function([text])


def _transformer(folder: Path) -> Answer:
    from tasks.kinds.text_classification.model.learning import load_teacher
    from tasks.model.device import CPU, has_fast_bfloat16

    teacher = load_teacher(folder)
    return lambda text: teacher.predict(teacher.encode([text]), CPU, has_fast_bfloat16(CPU))


def _onnx_transformer(folder: Path) -> Answer:
    from tokenizers import Tokenizer

    from service.session import session

    shape = json.loads((folder / "variant.json").read_text(encoding="utf-8"))["windows"]
    tokenizer, model = Tokenizer.from_file(str(folder / "tokenizer.json")), session(folder / "model.onnx", 1)
    tokenizer.no_padding()
    tokenizer.enable_truncation(shape["tokens"])

    def answer(text: str) -> Any:
        first = tokenizer.encode(text)
        for window in [first, *first.overflowing][: shape["count"]]:
            ids = np.array([window.ids], dtype=np.int64)
            model.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})

    return answer


def _student(folder: Path) -> Answer:
    from service.kinds.text_classification.scorer import Student

    model = Student(folder)
    return lambda text: model.logits([text])


def _rival(folder: Path) -> Answer:
    from benchmarks.rivals import KINDS

    model = KINDS[json.loads((folder / "variant.json").read_text(encoding="utf-8"))["format"]](folder)
    return lambda text: model.logits([text])


LOADERS: dict[str, Callable[[Path], Answer]] = {
    "baseline": _tfidf,
    "teacher": _transformer,
    "onnx-transformer": _onnx_transformer,
    "student": _student,
}


def probe() -> None:
    """Entry point of the fresh process: reads the request as JSON from standard input, and prints the bytes."""
    request = json.load(sys.stdin)
    if request["folder"] is not None:
        from service.kinds.text_classification.text import Normaliser

        folder = Path(request["folder"])
        found = json.loads((folder / "variant.json").read_text(encoding="utf-8"))["format"]
        LOADERS.get(found, _rival)(folder)(Normaliser.from_settings(request["normaliser"])(request["text"]))
    print(psutil.Process().memory_info().rss)


def resident(folder: Path | None, normaliser: dict[str, Any], text: str) -> int:
    """Bytes of a process that loaded the model in ``folder`` and answered ``text``; with NumPy only where it is None."""
    request = {"folder": None if folder is None else str(folder.absolute()), "normaliser": normaliser, "text": text}
    process = subprocess.run(
        [sys.executable, "-c", "from benchmarks.memory import probe; probe()"],
        input=json.dumps(request), capture_output=True, encoding="utf-8", errors="replace", check=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return int(process.stdout.split()[-1])
