"""The release as an MLflow model: what ``mlflow.pyfunc.load_model`` runs, written as code so that nothing is pickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from service.release import Release


class ReleaseModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A frame with a column ``input`` in, raw inputs as JSON has them (a text, an image in base64); a frame with ``label``,
    ``score`` and ``release`` out.
    """

    def load_context(self, context: Any) -> None:
        self.release = Release(Path(context.artifacts["release"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        raws = [self.release.serving.from_json(value) for value in model_input["input"]]
        return pd.DataFrame([vars(answer) for answer in self.release.answer(raws)])


mlflow.models.set_model(ReleaseModel())
