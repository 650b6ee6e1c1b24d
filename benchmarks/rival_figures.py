"""The rivals in the figures of the evaluation: what the stage compression shows beside our variants.

Same messages, same choice of temperature and threshold on valid, same timing. Our own variants take their turn in it, as
another run, or another machine, has another pace: by theirs the report scales the rivals' times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from benchmarks.rivals import Rival
from tasks.lineage import sha256
from tasks.release.evaluate import Evaluate, judge, split_up, timed
from tasks.release.scores import judged
from tasks.stage import Paths, read_json


def rival_figures(loaded: Mapping[Path, Rival], rivals: Sequence[Path], settings: Evaluate, paths: Paths) -> dict[str, Any]:
    """``data/rivals.json``: ``prepared`` (SHA-256 of the messages), ``ours`` (microseconds a message), ``models``.

    Of all models ``loaded``, by their folders, those in the folders ``rivals`` are not ours. No rivals are ``{}``.
    """
    if not rivals:
        return {}
    rows, schema = judged(pd.read_parquet(paths.prepared)), read_json(paths.schema)
    positive = None if schema["positive"] is None else int(schema["labels"].index(schema["positive"]))
    parts = split_up(rows, settings)
    latency_us = timed({folder.name: model for folder, model in loaded.items()}, parts, schema, settings)
    models = {}
    for folder in tqdm(rivals, desc="rivals as evaluated", unit=" models"):
        entry = judge(loaded[folder].logits(list(rows.text)), parts, positive, folder, settings)
        costs = {"bytes": entry["bytes"], "latency_us": latency_us.pop(folder.name)}
        models[folder.name] = costs | {"metrics": entry["metrics"]}
    return {"prepared": sha256(paths.prepared), "ours": latency_us, "models": models}
