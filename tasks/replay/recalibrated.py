"""What recalibration alone reaches: the model of the frozen release, whose decision parameters follow the stream.

The same messages and labels as the service gets, in a runtime state of its own and without a server: the same records, the
same monitor, the same gate. Whatever drift it confirms is answered by a recalibration, and nothing by a training.
"""

from __future__ import annotations

import shutil
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.journal import Journal
from service.record import now, observe
from service.release import Release
from service.store import read_pointer, release_folder
from tasks.monitor import watch
from tasks.monitor.closer import records_of
from tasks.monitor.settings import read_monitor
from tasks.monitor.state import Intent, State
from tasks.release.evaluation_set import keep
from tasks.release.gate import Gate, gate, refusal
from tasks.release.recalibrate import Recalibrate, recalibrate
from tasks.release.store import add, promote, rollback
from tasks.replay.stream import chosen
from tasks.stage import Paths, StageError, read_params, read_settings

SALT = b"replay"
RECENT = 2
"""Windows whose answers tell the mix where the alarm that is answered is not one of the mix."""


def own_paths(world: Path, home: Path) -> Paths:
    """The places of ``world`` with a runtime state below ``home``."""
    paths = Paths(world)
    paths.home = home
    for name in ("store", "journal", "feedback", "monitor", "gates", "evidently"):
        setattr(paths, name, home / name)
    return paths


@dataclass
class Recalibrated:
    """The arm ``recalibrated`` of a replay. ``close`` it at the end."""

    world: Path
    home: Path
    share: float
    """Of the messages that a reviewer labels, each ``delay`` messages after its answer; drawn by ``seed``."""
    delay: int
    seed: int
    changes: list[dict[str, Any]] = field(default_factory=list)
    """What was done, one entry a recalibration or rollback: outcome, release and why, as the replay tells it."""

    def __post_init__(self) -> None:
        params = read_params(self.world)
        self._paths = own_paths(self.world, self.home)
        shutil.copytree(self.world / "var/store", self._paths.store)
        shutil.copytree(self.world / "var/judged", self.home / "judged")
        self._settings, self._policy = read_monitor(params)
        self._gate, self._recalibrate = read_settings(Gate, "gate", params), read_settings(Recalibrate, "recalibrate", params)
        self._journal, self._feedback = Journal(self._paths.journal), Journal(self._paths.feedback)
        self._state = State(self._paths.monitor / "state.db")
        self._waiting: deque[tuple[int, dict[str, Any]]] = deque()
        self._answered = self._given = 0
        self._serve()

    def close(self) -> None:
        self._journal.close()
        self._feedback.close()

    def _serve(self) -> None:
        pointer = read_pointer(self._paths.store)
        assert pointer is not None
        self._release = Release(release_folder(self._paths.store, pointer.champion))

    def answer(self, number: int, identity: str, label: str, text: str, received: Any) -> str:
        """The label that is answered to message ``number`` of the stream, ``received`` then; what is due after it, is done."""
        normalised = self._release.normalise(text)
        (answer,), probabilities, features = self._release.predict([normalised])
        judged = observe(self._release, text, normalised, answer, probabilities[0], features[0], 0.0, SALT)
        record = judged.record("/classify", "replay")
        answered = {name: record[name] for name in ("label", "score", "release", "time", "hash")}
        given = {"id": self._journal.append(record), "label": label, "reviewer": "replay", "subject": "", "text": text}
        if chosen(identity, self.share, self.seed):
            self._waiting.append((number + self.delay, given | {"received": record["time"], "answered": answered}))
        while self._waiting and self._waiting[0][0] <= number:
            self._feedback.append({"kind": "feedback", "time": now(), **self._waiting.popleft()[1]})
            self._given += 1
        self._answered += 1
        if self._answered % self._settings.windows.count == 0:
            self._work({"number": number, "received": received, "labels": self._given})
        return answer.label

    def _work(self, here: dict[str, Any]) -> None:
        """Judge what has closed, and act on it; ``here`` is told with each change."""
        self._journal.flush()
        self._feedback.flush()
        watch.cut(self._settings, self._state, self._paths)
        for window in self._state.unjudged():
            decision = watch.judge(self._settings, self._policy, self._state, self._paths, window).decision
            while (intent := self._state.open_intent()) is not None:
                back = intent.kind == "rollback"
                done = self._go_back(intent) if back else self._follow(intent)
                self._state.end(intent.id, done["outcome"])
                kind = "rollback" if back else "recalibrate"
                self.changes.append({"kind": kind, "why": "; ".join(decision.reasons), **done, **here})
                self._serve()

    def _go_back(self, intent: Intent) -> dict[str, Any]:
        rollback(self._paths.store, expected=int(intent.facts["token"]), who="monitor", why=f"intent-{intent.id}")
        return {"outcome": "rolled back", "release": None}

    def _follow(self, intent: Intent) -> dict[str, Any]:
        """Recalibrate, and promote what the gate lets through: outcome, release, and why, where it is not the decision's."""
        made = own_paths(self.home / "made", self.home)
        try:
            recalibrate(self._recalibrate, self._paths, made.root, self._release.id, self._answers(intent), datetime.now(UTC))
        except StageError as error:
            return {"outcome": "failed", "release": None, "why": str(error)}
        release, pointer = add(self._paths.store, made.release), read_pointer(self._paths.store)
        assert pointer is not None
        challenger, champion = (release_folder(self._paths.store, name) for name in (release, pointer.champion))
        report = gate(self._gate, challenger, champion, made.prepared, bootstrap=False)
        if not report.passed:
            return {"outcome": "rejected", "release": None, "why": "; ".join(map(refusal, report.failed))}
        keep(self._paths, release, made.prepared, pointer)
        promote(self._paths.store, release, expected=pointer.token, who="replay", why=f"intent-{intent.id}", gate=None)
        return {"outcome": "promoted", "release": release}

    def _answers(self, intent: Intent) -> list[dict[str, Any]]:
        """The journal's records since the mix has moved; of the last windows, where it is not the mix that has."""
        numbers = intent.facts.get("windows") or range(max(1, intent.window + 1 - RECENT), intent.window + 1)
        return records_of(self._paths.journal, [self._state.window(number).plan.journal for number in numbers])
