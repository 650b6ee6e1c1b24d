"""Where a pre-trained model is looked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.stage import StageError


def locate(model: str) -> str:
    """What transformers can load ``model`` from: a folder, an importable package with ``MODEL_DIR``, or a hub name."""
    if Path(model).is_dir():
        return model
    if model.isidentifier() and importlib.util.find_spec(model):
        return str(importlib.import_module(model).MODEL_DIR)
    return model


@contextmanager
def located(model: str) -> Iterator[str]:
    """``locate(model)``. Where it cannot be loaded from there, raises StageError that lists where it was looked for."""
    try:
        yield locate(model)
    except (OSError, ValueError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise StageError(
            f"train.model = {model!r}: neither a folder, an installed package with MODEL_DIR, nor a model in the hub's "
            f"local cache (for a download run once with HF_HUB_OFFLINE=0): {reason}"
        ) from error
