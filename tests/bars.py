"""A workload of made images: a bright bar, upright or across, on a dark ground; its whole graph takes a minute."""

from __future__ import annotations

import base64
import shutil
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from service.kinds.image_classification.images import encode_png
from tests.imports import ROOT
from tests.project import Project

WORKLOAD = "bars"
LABELS = ["upright", "across"]
SIDE = 14
WIDE = {"min": None, "max": None, "severity": "soft"}
PARITY = {"largest": 10, "mean": 1, "disagreement_rate": 1, "threshold_disagreement": 1, "worst_slice": 1}
FEW = {"epochs": 4, "batch_size": 32, "learning_rate": 0.01, "weight_decay": 0.01}
SMALL: dict[str, dict[str, Any]] = {
    "ingest": {"source": "npz", "path": "data/bars.npz", "label_names": LABELS},
    "validate": {
        "labels": LABELS,
        "row_rules": {"received_from": None, "received_until": None, "side_min": 8, "side_max": 100, "contrast_min": 1},
        "rows": {"min": 100, "max": None, "severity": "hard"},
        **dict.fromkeys(("brightness", "contrast", "file_bytes", "warning_share", "duplicate_share"), WIDE),
    },
    "prepare": {
        "image": {"height": SIDE, "width": SIDE, "channels": 1, "mean": 80, "std": 60},
        "near_duplicates": {"similarity": 0.95, "grid": SIDE, "step": 12, "permutations": 64},
        "splits": {"golden": 0.1, "test": 0.15, "valid": 0.15},
    },
    "train": {
        "widths": [8, 16],
        "blocks": [1, 1],
        "stride": 1,
        "augment": {"shift": 1, "mirror": True, "erase": 0, "erase_size": 2},
        "epochs": 3,
        "batch_size": 32,
        "patience": 3,
        "precision": "float32",
    },
    "baseline": {"C": [0.1], "max_iter": 20},
    "distill": {
        "family": "cnn",
        "cnn": {"kernel": 3, "widths": [8, 12], "strides": [2, 1], "dropout": 0.0, "sgd": FEW},
        "parity": PARITY | {"slice_rows": 20},
    },
    "prune": {"recovery": {"dscnn": 1, "cnn": 1}, "parity": PARITY | {"slice_rows": 20}},
    "quantize": {"calibration_inputs": 100, "parity": PARITY | {"slice_rows": 20}},
    "evaluate": {"resamples": 100, "timing_inputs": 10},
    "package": {"margin": 1, "largest_loss": 1},
}


def bars(count: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """(images ``[count, SIDE, SIDE]``, labels ``[count]``, 1 is across)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (count, SIDE, SIDE), dtype=np.uint8)
    labels = rng.integers(2, size=count)
    for image, label, place in zip(images, labels, rng.integers(SIDE, size=count), strict=True):
        (image[place] if label else image[:, place])[:] = 255
    return images, labels


def as_request(image: npt.NDArray[np.uint8]) -> dict[str, str]:
    """The body that holds it."""
    return {"image": base64.b64encode(encode_png(image)).decode("ascii")}


def add_bars(project: Project, **changes: dict[str, Any]) -> None:
    """Make the workload in a copy of the project, beside mail, and commit it."""
    folder = project.root / "workloads" / WORKLOAD
    (folder / "data").mkdir(parents=True)
    shutil.copy2(ROOT / "workloads/fashion/params.yaml", folder)
    images, labels = bars(1200, seed=0)
    np.savez(folder / "data/bars.npz", x_train=images, y_train=labels)
    (folder / "data/feedback.jsonl").touch()
    (folder / "data/rivals.json").write_text("{}\n", encoding="utf-8")
    project.set(WORKLOAD, **SMALL)
    project.set(WORKLOAD, **changes)
    shared = project.root / "params.yaml"
    params = yaml.safe_load(shared.read_text(encoding="utf-8"))
    params["workloads"].append(WORKLOAD)
    shared.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    project.run(f"git add -A && git commit -qm {WORKLOAD}")
