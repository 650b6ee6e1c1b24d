"""Is more than the label mix moved? Drift that is gone where the reference has the mix of now is explained by the mix.

Mail of one label has other words, lengths and features than mail of another, so a shift of the mix moves all of them. Where
it is all that has moved, messages look like the reference with its labels in other shares.
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
"""Messages that the reference needs for each of its columns: of fewer no test of centres sees anything."""


def in_mix_of(reference: Reference, sample: Sample) -> Reference:
    """``reference`` with its labels in the shares that the scores of ``sample`` say (Saerens et al. 2002).

    The scores are taken for calibrated in the reference's own mix.
    """
    before = weighted_mix(reference.labels, np.ones(len(reference)), sample.probabilities.shape[1])
    rows = rows_in(estimated_mix(sample.probabilities, before), reference.labels, SEED)
    return Reference(reference.sample.take(rows), reference.labels[rows], reference.names, reference.positive)


def explained_by_mix(
    reference: Reference, sample: Sample, settings: Signals, trends: Iterable[str], level: float
) -> frozenset[str]:
    """Those of the drift ``trends`` that ``sample`` does not show at ``level`` where the reference has the mix of now.

    None are, where too little of the reference is in that mix to tell.
    """
    mixed = in_mix_of(reference, sample)
    columns = sample.features.shape[1] + sample.descriptors.shape[1]
    if len(mixed) < LEAST_PER_COLUMN * columns:
        return frozenset()
    alone = settings.model_copy(update={"scales": (1,)})
    signals = drift_signals(mixed, [sample], alone)
    names = {signal.name for signal in signals if signal.p is not None and signal.p >= level and signal.name != "label_mix"}
    return frozenset(trend for trend in trends if trend.split(" ")[0] in names)
