"""Evaluation of the rivals with the metrics of the stage evaluate, for the report of the stage compression.

Same messages, same choice of temperature and threshold on valid, same timing. Our variants are timed in turns with them, so
that the report can scale the rivals' times to those of another run or machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from benchmarks.rivals import Rival
from service.decision import positive_index
from tasks.files import read_json
from tasks.lineage import sha256
from tasks.release.evaluate import Evaluate, judge, split_up, timed
from tasks.release.scores import judged
from tasks.stage import Paths


def rival_figures(loaded: Mapping[Path, Rival], rivals: Sequence[Path], settings: Evaluate, paths: Paths) -> dict[str, Any]:
    """``data/rivals.json``: ``prepared`` (SHA-256 of the messages), ``ours`` (microseconds per message), ``models``.

    ``loaded``: folder -> model, ours and rivals; ``rivals``: the folders of the rivals. ``{}`` without rivals.
    """
    if not rivals:
        return {}
    rows, schema = judged(pd.read_parquet(paths.prepared)), read_json(paths.schema)
    positive = positive_index(schema)
    parts = split_up(rows, settings)
    latency_us = timed({folder.name: model for folder, model in loaded.items()}, parts, schema, settings)
    models = {}
    for folder in tqdm(rivals, desc="rivals as evaluated", unit=" models"):
        entry = judge(loaded[folder].logits(list(rows.input)), parts, positive, folder, settings)
        costs = {"bytes": entry["bytes"], "latency_us": latency_us.pop(folder.name)}
        models[folder.name] = costs | {"metrics": entry["metrics"]}
    return {"prepared": sha256(paths.prepared), "ours": latency_us, "models": models}
