"""A window's records in memory: a sample of its answers whole, of the others what is counted.

Every test sees at most as many answers as make a window, so a window that has grown with the traffic is judged with the
same error rates. Which ones is decided by a hash of their ids: it is the same sample whenever it is asked for, and nothing
that comes in turn (clients, batches) is in step with it.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from tasks.monitor.health import of_records
from tasks.monitor.records import Reader, Record
from tasks.monitor.reference import Held
from tasks.monitor.sample import Labelled, Sample, of_feedback
from tasks.monitor.state import State
from tasks.monitor.stored import TrafficWindow
from tasks.stage import Paths

COUNTED = ("kind", "time", "latency_us", "client", "truncated")
"""What is kept of an answer that is not in the sample."""
SAID = ("time", "label", "answered")
"""What is kept of a label: its message is training data, and nothing is measured on it."""


def draw(records: Iterable[tuple[str, Record]], count: int) -> tuple[list[Record], list[Record]]:
    """(all records, and of the answers ``count`` or all there are), both by time; what is not drawn is not kept whole."""
    every: list[Record] = []
    drawn: list[tuple[int, int]] = []
    for place, (segment, record) in enumerate(records):
        every.append(record)
        if record["kind"] != "answer":
            continue
        heapq.heappush(drawn, (-_standing(segment, record["n"]), place))
        if len(drawn) > count:
            _, out = heapq.heappop(drawn)
            every[out] = _part(every[out], COUNTED)
    sample = [every[place] for place in sorted(place for _, place in drawn)]
    return sorted(every, key=_time), sorted(sample, key=_time)


def _standing(segment: str, number: int) -> int:
    """Where an answer stands in the order of the draw."""
    return int.from_bytes(hashlib.blake2b(f"{segment}-{number}".encode(), digest_size=8).digest())


def _part(record: Mapping[str, object], names: Iterable[str]) -> Record:
    return {name: record[name] for name in names}


def _time(record: Record) -> str:
    return str(record["time"])


class Loaded:
    """The records of a window, as far as they are still there."""

    def __init__(self, window: TrafficWindow, journal: Reader, feedback: Reader, count: int) -> None:
        plan = window.plan
        records, self._answers = draw(journal.read(plan.journal), count)
        self._labels = sorted((_part(record, SAID) for _, record in feedback.read(plan.feedback)), key=_time)
        ranges = [*plan.journal.values(), *plan.feedback.values()]
        missing = sum(stop - start for start, stop in ranges) - len(records) - len(self._labels)
        self.traffic = of_records(records, max(plan.lost, missing), self._answers)
        self.gone = missing > plan.lost
        """Whether retention took records of it: more are missing than had been lost when it was cut."""
        self._release = plan.release
        self._sample: Sample | None = None

    def sample(self, held: Held) -> Sample:
        """The answers that are measured; ``held``: of the window's release."""
        if self._sample is None:
            self._sample = held.sample_of(self._answers)
        return self._sample

    def labelled(self, held: Held) -> Labelled:
        """Every label that came in the window, of whichever answer of its release."""
        return of_feedback(self._labels, self._release, held.labels)


class Recent:
    """Windows that were loaded last: each is merged with those before it, and its segments are read on from there."""

    def __init__(self, paths: Paths, count: int, most: int) -> None:
        """``count``: answers that a sample holds; ``most``: windows that are kept."""
        self._journal, self._feedback = Reader(paths.journal), Reader(paths.feedback)
        self._count, self._most = count, most
        self._kept: OrderedDict[int, Loaded] = OrderedDict()

    def load(self, number: int, state: State) -> Loaded:
        if number not in self._kept:
            self._kept[number] = Loaded(state.window(number), self._journal, self._feedback, self._count)
        self._kept.move_to_end(number)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return self._kept[number]
