"""A window's records in memory: complete records for a sample of its answers, only the counted fields of the others.

Every test sees at most as many answers as fill a window, so a window that has grown with the traffic is tested with the
same error rates. The sample is selected by a hash of the record ids: it is reproducible, and independent of any periodic
order (clients, batches).
"""

from __future__ import annotations

import hashlib
import heapq
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from tasks.monitor.health import traffic_from_records
from tasks.monitor.records import Reader, Record
from tasks.monitor.reference import ReferenceData
from tasks.monitor.sample import Labelled, Sample, labels_from_feedback
from tasks.monitor.state import State
from tasks.monitor.state_schema import TrafficWindow
from tasks.stage import Paths

COUNTED = ("kind", "time", "latency_us", "client", "truncated")
"""Fields kept of an answer that is not in the sample."""
FEEDBACK_FIELDS = ("time", "label", "answered")
"""Fields kept of a feedback record: its input is training data, and is not measured."""


def draw(records: Iterable[tuple[str, Record]], count: int) -> tuple[list[Record], list[Record]]:
    """(all records, a sample of at most ``count`` answers), both by time; answers outside the sample are reduced."""
    kept: list[Record] = []
    heap: list[tuple[int, int]] = []
    for index, (segment, record) in enumerate(records):
        kept.append(record)
        if record["kind"] != "answer":
            continue
        heapq.heappush(heap, (-_sampling_key(segment, record["n"]), index))
        if len(heap) > count:
            _, dropped = heapq.heappop(heap)
            kept[dropped] = _select(kept[dropped], COUNTED)
    sample = [kept[index] for index in sorted(index for _, index in heap)]
    return sorted(kept, key=_time), sorted(sample, key=_time)


def _sampling_key(segment: str, number: int) -> int:
    """The hash by which answers are sampled, smallest first."""
    return int.from_bytes(hashlib.blake2b(f"{segment}-{number}".encode(), digest_size=8).digest())


def _select(record: Mapping[str, object], names: Iterable[str]) -> Record:
    return {name: record[name] for name in names}


def _time(record: Record) -> str:
    return str(record["time"])


class WindowRecords:
    """The records of a window, as far as they still exist."""

    def __init__(self, window: TrafficWindow, journal: Reader, feedback: Reader, count: int) -> None:
        plan = window.plan
        records, self._answers = draw(journal.read(plan.journal), count)
        self._labels = sorted((_select(record, FEEDBACK_FIELDS) for _, record in feedback.read(plan.feedback)), key=_time)
        ranges = [*plan.journal.values(), *plan.feedback.values()]
        missing = sum(stop - start for start, stop in ranges) - len(records) - len(self._labels)
        self.traffic = traffic_from_records(records, max(plan.lost, missing), self._answers)
        self.incomplete = missing > plan.lost
        """Whether retention deleted records: more are missing than were lost when the window was cut."""
        self._release = plan.release
        self._sample: Sample | None = None

    def sample(self, reference_data: ReferenceData) -> Sample:
        """The sampled answers; ``reference_data``: of the window's release."""
        if self._sample is None:
            self._sample = reference_data.sample_of(self._answers)
        return self._sample

    def labelled(self, reference_data: ReferenceData) -> Labelled:
        """All labels received in the window for answers of its release."""
        return labels_from_feedback(self._labels, self._release, reference_data.labels)


class WindowCache:
    """An LRU cache of loaded windows: each window is merged with those before it, and each segment is read only once."""

    def __init__(self, paths: Paths, count: int, most: int) -> None:
        """``count``: sample size in answers; ``most``: capacity in windows."""
        self._journal, self._feedback = Reader(paths.journal), Reader(paths.feedback)
        self._count, self._most = count, most
        self._windows: OrderedDict[int, WindowRecords] = OrderedDict()

    def load(self, number: int, state: State) -> WindowRecords:
        if number not in self._windows:
            self._windows[number] = WindowRecords(state.window(number), self._journal, self._feedback, self._count)
        self._windows.move_to_end(number)
        while len(self._windows) > self._most:
            self._windows.popitem(last=False)
        return self._windows[number]
