"""What drift is measured against: numbers of the rows that training did not learn from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from service.decision import softmax
from service.kinds import Model, Serving


def drift_reference(serving: Serving, model: Model, rows: pd.DataFrame, temperature: float) -> dict[str, Any]:
    """What drift is measured against, of ``rows`` in their order: how they look, what is said of them, what they are.

    ``names`` of the descriptors, ``descriptors`` float64[n, names], ``probabilities`` float64[n, labels], ``features``
    float32[n, dimensions] (none where the model has none), ``label_ids`` int64[n].
    """
    described = [serving.describe(raw, given, model) for raw, given in zip(rows.raw, rows.input, strict=True)]
    logits, features = model.outputs(list(rows.input))
    return {
        "names": np.array(serving.descriptors),
        "descriptors": np.array([[entry[name] for name in serving.descriptors] for entry in described]),
        "probabilities": softmax(logits, temperature),
        "features": features,
        "label_ids": rows.label_id.to_numpy(),
    }
