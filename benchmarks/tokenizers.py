"""Latency of tokenizers: the student's against compiled ones, on the same normalised texts, one thread.

    python -m benchmarks.tokenizers [--rounds 7] [--out reports/tokenizers.json]

scikit-learn's HashingVectorizer (compiled MurmurHash3) makes the same kinds of features, with character n-grams as in its
analyzer `char`; the graph is ONNX Runtime's own Tokenizer and MurmurHash3, which supports words only, no bigrams or
character n-grams; WordPiece (Rust) is the teacher's, with all its windows. Texts are messages of the test split of 200,
1,500 and 10,000 raw characters after the release's normaliser. All take turns in every round.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
from onnx import TensorProto, helper
from sklearn.feature_extraction.text import HashingVectorizer
from tqdm import tqdm
from transformers import AutoTokenizer

from benchmarks.speed import BATCH, LENGTHS, cut_or_join
from benchmarks.workload import parse
from service.kinds.text_classification.scorer import load_student
from service.kinds.text_classification.text import Normaliser
from service.kinds.text_classification.token_windows import TokenWindows, tokenize
from service.kinds.text_classification.tokenizer import Tokenizer
from tasks.files import read_json, write_json
from tasks.release.compression import Compression
from tasks.stage import Paths, StageError, read_params, read_settings

WORD = r"[0-9A-Za-z_]+|[^ ]"
OURS = "student"

Tokenize = Callable[[str], Any]
"""Tokenizes a normalised text."""


def in_a_graph() -> ort.InferenceSession:
    """Word hashing in an ONNX graph: input ``text`` string[n], output ``rows`` uint32[n, words]."""
    nodes = [
        helper.make_node(
            "Tokenizer", ["text"], ["words"], domain="com.microsoft", mark=0, mincharnum=1, pad_value="", tokenexp=WORD
        ),
        helper.make_node("MurmurHash3", ["words"], ["rows"], domain="com.microsoft", positive=1, seed=0),
    ]
    inputs_and_outputs = [
        [helper.make_tensor_value_info("text", TensorProto.STRING, ["n"])],
        [helper.make_tensor_value_info("rows", TensorProto.UINT32, ["n", "words"])],
    ]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph(nodes, "tokenizer", *inputs_and_outputs), opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def hashing(tokenizer: Tokenizer) -> Tokenize:
    """The same kinds of features by scikit-learn, with separate vectorizers for words and character n-grams."""
    options: dict[str, Any] = {"n_features": 2**tokenizer.bits, "alternate_sign": False, "binary": True, "norm": None}
    words = HashingVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\w+|[^\w\s]", **options)  # noqa: S106  (no password)
    ngrams = [HashingVectorizer(analyzer="char", ngram_range=(length, length), **options) for length in tokenizer.char_ngrams]
    return lambda text: [vectorizer.transform([text]) for vectorizer in (words, *ngrams)]


def tokenizers(paths: Paths, student: str) -> dict[str, Tokenize]:
    """Name -> tokenizer."""
    own = load_student(paths.model(student), 1).tokenizer
    if not isinstance(own, Tokenizer):
        raise StageError(f"compression.student = {student!r}: it reads as its teacher does, there is nothing to compare")
    graph = in_a_graph()
    settings = read_json(paths.model("teacher-onnx") / "variant.json")
    wordpiece: Any = AutoTokenizer.from_pretrained(str(paths.model("teacher")))
    return {
        OURS: own.encode,
        "HashingVectorizer": hashing(own),
        "ONNX graph, words alone": lambda text: graph.run(None, {"text": np.array([text], dtype=object)}),
        "WordPiece": lambda text: tokenize(wordpiece, [text], TokenWindows(**settings["windows"])),
    }


def latency_us(read: Mapping[str, Tokenize], texts: Mapping[int, Sequence[str]], rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds per text by tokenizer and length: medians over rounds in which all take turns."""
    times = {(name, length): np.zeros((rounds, len(batch))) for name in read for length, batch in texts.items()}
    for turn in tqdm(range(-1, rounds), desc="tokenizers", unit=" rounds"):  # the first is a warm-up, and is overwritten
        for (name, length), seconds in times.items():
            for index, text in enumerate(texts[length]):
                begin = time.perf_counter()
                read[name](text)
                seconds[turn, index] = time.perf_counter() - begin
    medians = {key: float(np.median(seconds, axis=0).mean() * 1e6) for key, seconds in times.items()}
    return {name: {str(length): round(medians[name, length], 1) for length in texts} for name in read}


def table(report: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown table: each tokenizer's microseconds, and their ratio to the student's."""
    lines = [["tokenizer", *(part for length in LENGTHS for part in (f"µs at {length:,}", "times ours"))]]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    for name, entry in report.items():
        figures = [(entry[str(length)], entry[str(length)] / report[OURS][str(length)]) for length in LENGTHS]
        lines.append([name, *(cell for value, ratio in figures for cell in (f"{value:,.0f}", f"{ratio:.1f}"))])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tokenizers", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="medians are over so many; default 7")
    parser.add_argument("--out", type=Path, default=Path("reports/tokenizers.json"), help="where the figures go as JSON")
    arguments = parse(parser)
    os.environ["TOKENIZERS_PARALLELISM"], os.environ["RAYON_NUM_THREADS"] = "false", "1"
    paths = Paths(Path.cwd())
    try:
        student = read_settings(Compression, "compression", read_params(paths.root)).student
        rows = pd.read_parquet(paths.prepared, columns=["split", "raw"])
        normaliser = Normaliser.from_settings(read_json(paths.schema)["normaliser"])
        raw = list(rows.raw[rows.split == "test"])
        texts = {length: [normaliser(text) for text in cut_or_join(raw, length, BATCH)] for length in LENGTHS}
        report = latency_us(tokenizers(paths, student), texts, arguments.rounds)
    except (StageError, OSError) as error:
        sys.exit(f"tokenizers: {error}; `make run` makes what is compared")
    write_json(arguments.out, report)
    print(table(report))


if __name__ == "__main__":
    main()
