"""Stage baseline: logistic regression on simple features of the kind, the baseline for every other variant.

The regularisation strength is chosen on valid, so that the baseline is as good as its kind can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from tqdm import tqdm

from tasks.files import atomic_write, read_json, write_json
from tasks.kinds import model_part, settings_of
from tasks.metrics import mean_one, ranking
from tasks.model.settings import Baseline
from tasks.stage import Paths, StageError, run
from tasks.tracking import track

FORMAT = "baseline"
"""In ``variant.json``."""


def features_of(train: pd.DataFrame, vectorizer: Any) -> Any:
    """The inputs as features, the vectorizer being fitted to them. Raises StageError where none is left."""
    try:
        return vectorizer.fit_transform(list(train.input))
    except ValueError as error:
        raise StageError(f"baseline: {error}") from error


def fit(train: pd.DataFrame, settings: Baseline, vectorizer: Any) -> Iterator[tuple[float, Pipeline]]:
    """For each value of ``C``, the pipeline fitted to the weighted inputs. Raises StageError as ``features_of`` does."""
    features = features_of(train, vectorizer)
    weights, labels = mean_one(train.weight.to_numpy()), train.label_id.to_numpy()
    for c in settings.C:
        try:
            model = LogisticRegression(C=c, max_iter=settings.max_iter).fit(features, labels, sample_weight=weights)
        except ValueError as error:
            raise StageError(f"baseline.C: {c}: {error}") from error
        yield c, Pipeline([("vectorizer", vectorizer), ("logisticregression", model)])


def logits(model: Pipeline, inputs: Sequence[Any]) -> npt.NDArray[np.float32]:
    """Log-probabilities ``float32[n, labels]``: logits up to a constant per row."""
    scores = model.decision_function(inputs)
    if scores.ndim == 1:
        scores = np.stack([-scores / 2, scores / 2], axis=1)
    converted: npt.NDArray[np.float32] = scores.astype(np.float32)
    return converted


def baseline(settings: Baseline, paths: Paths) -> None:
    """Fit the linear baseline on the train split, with the regularisation strength chosen on valid."""
    rows = pd.read_parquet(paths.prepared, columns=["id", "split", "label", "label_id", "input", "weight"])
    splits, schema = {split: rows[rows.split == split] for split in ("train", "valid")}, read_json(paths.schema)
    with track("baseline", settings, paths) as tracker:
        tracker.data(paths.prepared, splits["train"], "training")
        candidates = []
        fits = tqdm(
            fit(splits["train"], settings, model_part(schema["kind"]).vectorizer(settings, schema)),
            total=len(settings.C),
            desc="baseline",
            unit=" fits",
        )
        for number, (c, model) in enumerate(fits):
            scores, valid = logits(model, list(splits["valid"].input)), splits["valid"]
            figures = ranking(scores, valid.label_id.to_numpy(), weights=valid.weight.to_numpy())
            tracker.metrics({"C": c, "valid_pr_auc": figures["pr_auc"]}, step=number)
            candidates.append((figures["pr_auc"], -number, c, model))
        score, _, c, model = max(candidates, key=lambda entry: entry[:2])
        with atomic_write(paths.model("baseline")) as temporary:
            temporary.mkdir()
            joblib.dump(model, temporary / "model.joblib", compress=3)
            count = model[-1].coef_.size + model[-1].intercept_.size + getattr(model[0], "idf_", np.empty(0)).size
            found = {"kind": schema["kind"], "format": FORMAT, "parameters": int(count), "C": c}
            write_json(temporary / "variant.json", found)
        tracker.headline({"baseline_valid_pr_auc": score})
    print(f"C = {c:g}, PR-AUC on valid {score:.4f}")


def load(folder: Path) -> Pipeline:
    """The fitted pipeline. It is a pickle: load only files written by this project's own stage."""
    return joblib.load(folder / "model.joblib")


if __name__ == "__main__":
    run(baseline, settings_of("baseline"))
