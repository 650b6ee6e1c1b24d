"""Drift tests against a reference that is resampled to the current label mix: does label shift alone explain the drift?

Inputs of one label have other descriptors and features than those of another, so label shift moves all of them. Where
nothing else has changed, inputs look like the reference with its labels in other shares.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tasks.monitor.reference import Reference
from tasks.monitor.sample import Sample
from tasks.monitor.signals import Signals, drift_signals
from tasks.release.label_shift import estimated_mix, rows_in, weighted_mix

SEED = 1
LEAST_PER_COLUMN = 5
"""Rows that the reference needs per column: with fewer, the test of centres has no power."""


def adjust_to_mix(reference: Reference, sample: Sample) -> Reference:
    """``reference`` resampled to the label mix that the scores of ``sample`` imply (Saerens et al. 2002).

    The scores are assumed to be calibrated for the reference's own mix.
    """
    reference_mix = weighted_mix(reference.labels, np.ones(len(reference)), sample.probabilities.shape[1])
    rows = rows_in(estimated_mix(sample.probabilities, reference_mix), reference.labels, SEED)
    return Reference(reference.sample.take(rows), reference.labels[rows], reference.names, reference.positive)


def explained_by_mix(
    reference: Reference, sample: Sample, settings: Signals, trends: Iterable[str], level: float
) -> frozenset[str]:
    """Those of the drift ``trends`` that are not significant at ``level`` against the reference in the current label mix.

    Empty where too few rows of the reference remain in that mix.
    """
    adjusted = adjust_to_mix(reference, sample)
    columns = sample.features.shape[1] + sample.descriptors.shape[1]
    if len(adjusted) < LEAST_PER_COLUMN * columns:
        return frozenset()
    one_scale = settings.model_copy(update={"scales": (1,)})
    signals = drift_signals(adjusted, [sample], one_scale)
    names = {signal.name for signal in signals if signal.p is not None and signal.p >= level and signal.name != "label_mix"}
    return frozenset(trend for trend in trends if trend.split(" ")[0] in names)
