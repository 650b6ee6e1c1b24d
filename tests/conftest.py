"""What several tests need: made data, a tiny teacher, a small release. All of it is made here, none is committed."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
import yaml
from filelock import FileLock

import tasks  # noqa: F401  (keeps every tool off the network)
from service.kinds.text_classification.tokenizer import Tokenizer, known_words
from tasks.files import write_json
from tasks.kinds.text_classification.compress import Quantize, quantize_student
from tasks.kinds.text_classification.compress.networks import Network, save_student
from tasks.release.package import seal
from tests.imports import MAIL

os.environ["PATH"] = (
    f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # dvc, bentoml, mlflow of this environment
)

for name in [name for name in os.environ if name.startswith("RESTILL_")]:
    del os.environ[name]  # of whoever runs the tests: they must not reach a loop that is in service

LONG = ("tests/test_end_to_end.py", "tests/test_loop.py", "tests/test_real_tables.py")
"""Modules that take minutes. They come first, so that none is begun when the other workers of pytest-xdist are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))


KIND = "text_classification"


def of_kind(folder: Path, kind: str = KIND) -> Path:
    """``folder`` with the parameters of a workload of this kind, of which only the kind is written."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(f"kind: {kind}\n", encoding="utf-8")
    return folder


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder ``name`` of this run of the tests, filled by ``make``: once, whatever the number of pytest-xdist workers."""
    worker = "PYTEST_XDIST_WORKER" in os.environ
    place = factory.getbasetemp().parent if worker else factory.getbasetemp()
    folder, half = place / name, place / f"{name}.half"
    with FileLock(place / f"{name}.lock"):
        if not folder.exists():
            shutil.rmtree(half, ignore_errors=True)  # of a worker that failed
            half.mkdir()
            make(half)
            half.rename(folder)
    return folder


TOPICS = {
    "ham": """meeting agenda kernel patch compile branch review notes lunch train weather garden server python list
        thread""",
    "spam": "winner prize money offer free click cash deal credit pills cheap loan guaranteed bonus urgent account",
    "news": """election market report minister score league storm festival museum police court economy science
        orbit""",
}
WORDS = {label: words.split() for label, words in TOPICS.items()}
FUNCTION_WORDS = "the a of and to in that it is was for on with as at by from this we you they have not be are or"
FILLER = FUNCTION_WORDS.split()


def made_text(label: str, rng: random.Random, words: int = 40) -> str:
    """A text whose label can be learned and is not given away by any one word."""
    own, other = WORDS[label], [word for name, pool in WORDS.items() if name != label for word in pool]
    return " ".join(
        rng.choice(own) if (roll := rng.random()) < 0.3 else rng.choice(other) if roll < 0.36 else rng.choice(FILLER)
        for _ in range(words)
    )


def made_table(labels: list[str], rows: int, seed: int = 0) -> pd.DataFrame:
    """Rows of id, received, label, subject, text; one an hour from 2020-01-01."""
    rng = random.Random(seed)
    start = datetime(2020, 1, 1, tzinfo=UTC)
    table = []
    for number in range(rows):
        label = labels[rng.randrange(len(labels))]
        text = made_text(label, rng)
        table.append((f"row-{number}", start + timedelta(hours=number), label, text[:30], text))
    return pd.DataFrame(table, columns=["id", "received", "label", "subject", "text"])


def made_prepared(labels: list[str], rows: int, seed: int = 0) -> pd.DataFrame:
    """A prepared frame, as the stage prepare writes it."""
    frame = made_table(labels, rows, seed)
    splits = np.array(["train", "train", "train", "valid", "test", "golden", "future"])
    order = {label: number for number, label in enumerate(sorted(labels))}
    return (
        frame.assign(
            source=["group-" + str(number % 2) for number in range(rows)],
            label_id=frame.label.map(order),
            group=frame.id,
            split=splits[np.arange(rows) % len(splits)],
            raw=frame.text,
            weight=1.0,
        )
        .drop(columns="subject")
        .rename(columns={"text": "input"})
    )


def make_tiny_teacher(folder: Path) -> None:
    from tokenizers import Tokenizer as Pieces
    from tokenizers import models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *FILLER, *(word for pool in WORDS.values() for word in pool)]
    pieces = Pieces(models.WordPiece({word: row for row, word in enumerate(dict.fromkeys(words))}, unk_token="[UNK]"))
    pieces.normalizer = normalizers.Lowercase()
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    pieces.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=pieces, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=128,
    )  # fmt: skip
    BertModel(shape).save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that transformers loads: a random BERT of two layers with a word-piece vocabulary of the made texts."""
    return made_once(tmp_path_factory, "tiny-teacher", make_tiny_teacher)


@pytest.fixture(scope="session")
def fine_tuned(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny teacher as the stage train leaves one: three windows of 16 tokens, two labels, a random head."""
    from tasks.kinds.text_classification.model.teacher import Teacher, TokenWindows, load_encoder, save_teacher

    def make(folder: Path) -> None:
        torch.manual_seed(1)
        encoder, tokenizer = load_encoder(str(tiny_teacher))
        save_teacher(Teacher(encoder, 2, 0.0), tokenizer, folder, TokenWindows(tokens=16, count=3))

    return made_once(tmp_path_factory, "fine-tuned", make)


def fitted_network(frame: pd.DataFrame, steps: int = 80, dimensions: int = 8, hidden: int = 16) -> tuple[Network, Tokenizer]:
    """A student that has learned ``frame``'s labels."""
    from service.kinds.text_classification.tokenizer import pad

    torch.manual_seed(0)
    tokenizer = Tokenizer([4], 11, known_words(list(frame.input), 1, 12))
    network = Network(tokenizer.rows, dimensions, hidden, frame.label_id.nunique(), 0.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    rows = torch.from_numpy(pad([tokenizer.encode(text) for text in frame.input]))
    labels = torch.tensor(frame.label_id.to_numpy())
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(rows), labels).backward()
        optimizer.step()
    return network.eval(), tokenizer


def assert_no_product_saturates(model: Path) -> None:
    """In the quantized file ``model`` two neighbouring weights, each times any unsigned byte, add up to 16 bits.

    Processors without VNNI add pairs of products in so many (VPMADDUBSW); those that have it do not tell, so the file must.
    """
    graph = onnx.load(model).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    dequantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    products = [node for node in graph.node if node.op_type in ("Gemm", "MatMul", "MatMulInteger", "Conv", "ConvInteger")]
    names = {dequantized.get(node.input[1], node.input[1]) for node in products}
    weights = [stored[name] for name in names if name in stored]
    assert weights, "a layer was quantized"
    for array in weights:
        assert array.dtype == np.int8
        assert 2 * 255 * np.abs(array.astype(int)).max() <= np.iinfo(np.int16).max


def make_students(folder: Path) -> None:
    network, tokenizer = fitted_network(made_prepared(["ham", "spam"], 300))
    for name in ("student", "student-quantized"):
        (folder / name).mkdir()
    save_student(network, tokenizer, folder / "student", opset=20)
    params = yaml.safe_load((MAIL / "params.yaml").read_text())["quantize"]
    quantize_student(
        folder / "student", folder / "student-quantized", Quantize.model_validate(params | {"method": "dynamic"}), []
    )


@pytest.fixture(scope="session")
def students(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(student, int8 student) for ham and spam, as folders."""
    folder = made_once(tmp_path_factory, "students", make_students)
    return folder / "student", folder / "student-quantized"


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty MLflow store. MLflow needs seconds to make one, so a test copies it to its own ``mlflow.db``."""

    def make(folder: Path) -> None:
        import mlflow

        mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()

    return made_once(tmp_path_factory, "mlflow-store", make) / "mlflow.db"


@pytest.fixture
def own_store(mlflow_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's store of the project in ``tmp_path`` is the project's own, as it is where no variable names another."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy2(mlflow_store, tmp_path / "mlflow.db")


@pytest.fixture
def release(students: tuple[Path, Path], tmp_path: Path) -> Path:
    """A sealed release of the int8 student, which a test may spoil."""
    return made_release(students[1], tmp_path / "release")


def made_release(student: Path, folder: Path) -> Path:
    from shutil import copytree

    from service.decision import softmax
    from service.kinds.text_classification.scorer import Student

    copytree(student, folder / "model")
    words = ["winner prize money", "kernel patch review"]
    answers = softmax(Student(folder / "model").logits(words), 1.0)
    write_json(folder / "card.json", {"name": "restill", "labels": ["ham", "spam"]})
    write_json(
        folder / "settings.json",
        {
            "kind": KIND,
            "labels": ["ham", "spam"],
            "positive": "spam",
            "threshold": 0.5,
            "temperature": 1.0,
            "normaliser": {"steps": ["unicode", "html", "whitespace"], "redact": [], "characters": 4000},
            "limits": {"characters": 10_000, "batch": 8, "body_bytes": 100_000},
        },
    )
    probes = [{"input": text, "probabilities": row.tolist()} for text, row in zip(words, answers, strict=True)]
    write_json(folder / "probes.json", {"tolerance": 0.02, "probes": probes})
    seal(folder)
    return folder
