"""Training of the rivals of ``benchmarks.speed`` on the train split, with model selection on valid."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from benchmarks.rivals import LABEL, FastText, Floats, preprocess
from tasks.files import write_json
from tasks.metrics import mean_one, ranking
from tasks.model.pretrained import locate

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""Inverse strengths of regularisation to try."""

FASTTEXT = {"dim": 10, "lr": 0.5, "epoch": 25, "wordNgrams": 2, "bucket": 200_000, "thread": 1, "verbose": 0}
"""Close to Joulin et al. 2016, for a small data set; one thread, as more are not reproducible."""
FORMS: dict[str, dict[str, int]] = {"fasttext": {}, "fasttext-subwords": {"minn": 3, "maxn": 5}}
"""Words and word bigrams, without and with character n-grams."""


@dataclass(frozen=True)
class Task:
    """The data of all rivals, and the folder for their models, one subfolder each."""

    train: pd.DataFrame
    valid: pd.DataFrame
    labels: int
    positive: int | None
    encoder: str
    """``train.model`` of params.yaml: the teacher's encoder."""
    folder: Path

    def pr_auc(self, logits: Floats) -> float:
        """PR-AUC on valid."""
        return ranking(logits, self.valid.label_id.to_numpy(), self.positive)["pr_auc"]

    def place(self, name: str, **facts: object) -> Path:
        """A new folder for a rival, with the facts needed to load it."""
        folder = self.folder / name
        folder.mkdir()
        write_json(folder / "variant.json", facts)
        return folder


def fit_model2vec(task: Task) -> None:
    """The teacher's encoder as static embeddings: with a logistic regression, and fine-tuned by Model2Vec itself."""
    from model2vec.distill import distill
    from model2vec.train import StaticModelForClassification

    static = distill(str(locate(task.encoder)))
    train, valid = static.encode(list(task.train.input)), static.encode(list(task.valid.input))
    heads = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000)
        model.fit(train, task.train.label_id, sample_weight=mean_one(task.train.weight.to_numpy()))
        weights, bias = _one_row_a_label(model)
        heads.append((task.pr_auc(valid @ weights + bias), -strength, weights, bias))
    _, _, weights, bias = max(heads, key=lambda head: head[:2])
    folder = task.place("model2vec", kind="model2vec")
    static.save_pretrained(folder)
    np.savez(folder / "head.npz", weights=weights.astype(np.float32), bias=bias.astype(np.float32))
    tuned = StaticModelForClassification.from_static_model(model=static)
    datasets = [(list(part.input), part.label_id.tolist()) for part in (task.train, task.valid)]
    tuned.fit(*datasets[0], X_val=datasets[1][0], y_val=datasets[1][1])
    tuned.to_pipeline().save_pretrained(str(task.place("model2vec-tuned", kind="model2vec-tuned")))


def _one_row_a_label(model: LogisticRegression) -> tuple[Floats, Floats]:
    """(weights ``[dimensions, labels]``, bias ``[labels]``), for two labels too, where scikit-learn keeps one row."""
    weights, bias = model.coef_.T, model.intercept_
    if weights.shape[1] == 1:
        halves = np.array([-0.5, 0.5])
        return weights * halves, bias * halves
    return weights, bias


def fit_fasttext(task: Task) -> None:
    """fastText in two forms, and the better one with its own quantisation."""
    import fasttext

    file = task.folder / "fasttext.txt"
    rows = zip(task.train.label_id, task.train.input, strict=True)
    file.write_text("".join(f"{LABEL}{label} {preprocess(text)}\n" for label, text in rows), encoding="utf-8")
    fitted = []
    for number, (name, settings) in enumerate(FORMS.items()):
        model = fasttext.train_supervised(str(file), **FASTTEXT, **settings)
        model.save_model(str(task.place(name, kind="fasttext", labels=task.labels) / "model.bin"))
        fitted.append((task.pr_auc(FastText(model, task.labels).logits(list(task.valid.input))), -number, model))
    model = max(fitted, key=lambda entry: entry[:2])[2]
    model.quantize(input=str(file), retrain=True, cutoff=100_000, qnorm=True, verbose=0)
    model.save_model(str(task.place("fasttext-quantized", kind="fasttext", labels=task.labels) / "model.bin"))


FAMILIES: dict[str, Callable[[Task], None]] = {"model2vec": fit_model2vec, "fasttext": fit_fasttext}


def fit_rivals(task: Task) -> list[Path]:
    """The folders of all trained rivals; libraries that are not installed are reported on stderr and skipped."""
    for name, fit in FAMILIES.items():
        try:
            fit(task)
        except ImportError as error:
            reason = str(error).splitlines()[0]
            print(f"speed: {name} is left out: {reason} (pip install -c constraints.txt -e '.[bench]')", file=sys.stderr)
    return sorted(path.parent for path in task.folder.glob("*/variant.json"))
