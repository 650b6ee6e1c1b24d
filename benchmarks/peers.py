"""The compared drift detector: Evidently's default preset, without configuration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

from service.kinds.text_classification.descriptors import NAMES
from tasks.monitor.drift import observed
from tasks.monitor.sample import Sample


@dataclass(frozen=True)
class Verdict:
    column: bool
    """Whether at least one column's test failed."""
    dataset: bool
    """Whether the test of the share of drifted columns failed."""


class Evidently:
    """``DataDriftPreset()`` with ``include_tests``, which selects tests and thresholds by the number of rows."""

    def __init__(self, labels: list[str]) -> None:
        self._labels = labels

    def __call__(self, reference: Sample, current: Sample) -> Verdict:
        frames = [
            observed(
                {"names": np.array(NAMES), "descriptors": part.descriptors, "probabilities": part.probabilities}, self._labels
            )
            for part in (current, reference)
        ]
        definition = DataDefinition(numerical_columns=list(frames[0].columns))
        data = [Dataset.from_pandas(frame, data_definition=definition) for frame in frames]
        snapshot = Report([DataDriftPreset()], include_tests=True).run(*data)
        failed = [t["metric_config"]["params"]["type"] for t in snapshot.dict()["tests"] if str(t["status"]).endswith("FAIL")]
        return Verdict(
            any(kind.endswith(":ValueDrift") for kind in failed), any(kind.endswith(":DriftedColumnsCount") for kind in failed)
        )
