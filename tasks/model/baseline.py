"""Stage baseline: TF-IDF and logistic regression, the baseline for every other variant.

The regularisation strength is chosen on valid, so that the baseline is as good as its kind can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from tqdm import tqdm

from tasks.files import atomic_write, write_json
from tasks.metrics import mean_one, ranking
from tasks.stage import Paths, Settings, StageError, run
from tasks.tracking import track


class Baseline(Settings):
    analyzer: Literal["word", "char", "char_wb"]
    ngrams: tuple[int, int]
    """Shortest and longest n-gram."""
    min_documents: int
    features: int
    """At most this many n-grams are kept, the most frequent ones."""
    C: list[float]
    """Inverse regularisation strengths to try, as scikit-learn names them; the best on valid is kept."""


def vectors_of(train: pd.DataFrame, settings: Baseline) -> tuple[TfidfVectorizer, Any]:
    """(the fitted vectorizer, the texts as TF-IDF features). Raises StageError where no n-gram is frequent enough."""
    vectorizer = TfidfVectorizer(
        analyzer=settings.analyzer,
        ngram_range=settings.ngrams,
        min_df=settings.min_documents,
        max_features=settings.features,
        sublinear_tf=True,
        dtype=np.float32,
    )
    try:
        return vectorizer, vectorizer.fit_transform(list(train.text))
    except ValueError as error:
        raise StageError(f"baseline.min_documents = {settings.min_documents}: {error}") from error


def fit(train: pd.DataFrame, settings: Baseline) -> Iterator[tuple[float, Pipeline]]:
    """For each value of ``C``, the pipeline fitted to the weighted texts. Raises StageError as ``vectors_of`` does."""
    vectorizer, features = vectors_of(train, settings)
    weights, labels = mean_one(train.weight.to_numpy()), train.label_id.to_numpy()
    for c in settings.C:
        try:
            model = LogisticRegression(C=c, max_iter=1000).fit(features, labels, sample_weight=weights)
        except ValueError as error:
            raise StageError(f"baseline.C: {c}: {error}") from error
        yield c, Pipeline([("tfidfvectorizer", vectorizer), ("logisticregression", model)])


def logits(model: Pipeline, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Log-probabilities ``float32[texts, labels]``: logits up to a constant per row."""
    scores = model.decision_function(texts)
    if scores.ndim == 1:
        scores = np.stack([-scores / 2, scores / 2], axis=1)
    converted: npt.NDArray[np.float32] = scores.astype(np.float32)
    return converted


def baseline(settings: Baseline, paths: Paths) -> None:
    """Fit the linear baseline on the train split, with the regularisation strength chosen on valid."""
    rows = pd.read_parquet(paths.prepared, columns=["id", "split", "label", "label_id", "text", "weight"])
    splits = {split: rows[rows.split == split] for split in ("train", "valid")}
    with track("baseline", settings, paths) as tracker:
        tracker.data(paths.prepared, splits["train"], "training")
        candidates = []
        fits = tqdm(fit(splits["train"], settings), total=len(settings.C), desc="baseline", unit=" fits")
        for number, (c, model) in enumerate(fits):
            scores, valid = logits(model, list(splits["valid"].text)), splits["valid"]
            figures = ranking(scores, valid.label_id.to_numpy(), weights=valid.weight.to_numpy())
            tracker.metrics({"C": c, "valid_pr_auc": figures["pr_auc"]}, step=number)
            candidates.append((figures["pr_auc"], -number, c, model))
        score, _, c, model = max(candidates, key=lambda entry: entry[:2])
        with atomic_write(paths.model("baseline")) as temporary:
            temporary.mkdir()
            joblib.dump(model, temporary / "model.joblib", compress=3)
            count = model[-1].coef_.size + model[-1].intercept_.size + model[0].idf_.size
            write_json(temporary / "variant.json", {"kind": "tfidf", "parameters": int(count), "C": c})
        tracker.headline({"baseline_valid_pr_auc": score})
    print(f"C = {c:g}, PR-AUC on valid {score:.4f}")


def load(folder: Path) -> Pipeline:
    """The fitted pipeline. It is a pickle: load only files written by this project's own stage."""
    return joblib.load(folder / "model.joblib")


if __name__ == "__main__":
    run(baseline, Baseline)
