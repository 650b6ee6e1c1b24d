"""The arm ``recalibrated`` of a replay: the frozen release's model, whose decision parameters follow the stream.

It gets the same inputs and labels as the service, in a runtime state of its own and without a server: the same records,
monitor and gate. All confirmed drift is answered by a recalibration, never by a training.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.journal import Journal
from service.record import now, observe
from service.release import Release
from service.store import read_pointer, release_folder
from tasks.kinds import data_part
from tasks.monitor import watch
from tasks.monitor.followup import records_of
from tasks.monitor.settings import read_monitor
from tasks.monitor.state import Intent, State
from tasks.release.evaluation_set import keep
from tasks.release.gate import Gate, gate, refusal
from tasks.release.recalibrate import Recalibrate, recalibrate
from tasks.release.store import add, promote, rollback
from tasks.replay.stream import is_reviewed
from tasks.stage import Paths, StageError, read_params, read_settings

SALT = b"replay"
RECENT = 2
"""Windows whose answers estimate the label mix where the confirmed alarm is not of the label mix."""


@dataclass
class RecalibratedArm:
    """The arm itself. Call ``close`` at the end."""

    world: Paths
    home: Path
    share: float
    """Share of the inputs that a reviewer labels, each ``delay`` inputs after its answer; sampled by ``seed``."""
    delay: int
    seed: int
    changes: list[dict[str, Any]] = field(default_factory=list)
    """One entry per recalibration or rollback: outcome, release and why, as in the replay's report."""

    def __post_init__(self) -> None:
        params = read_params(self.world.root)
        self._paths = Paths(self.world.root, self.home)
        shutil.copytree(self.world.home / "store", self._paths.store)
        shutil.copytree(self.world.home / "judged", self.home / "judged")
        self._settings, self._policy = read_monitor(params)
        self._gate, self._recalibrate = read_settings(Gate, "gate", params), read_settings(Recalibrate, "recalibrate", params)
        self._journal, self._feedback = Journal(self._paths.journal), Journal(self._paths.feedback)
        self._state = State(self._paths.monitor / "state.db")
        self._pending_labels: deque[tuple[int, dict[str, Any]]] = deque()
        self._answer_count = self._label_count = 0
        self._load_champion()

    def close(self) -> None:
        self._journal.close()
        self._feedback.close()

    def _load_champion(self) -> None:
        pointer = read_pointer(self._paths.store)
        assert pointer is not None
        self._release = Release(release_folder(self._paths.store, pointer.champion))

    def answer(self, number: int, row: Mapping[str, Any], raw: Any) -> str:
        """The answer to row ``number`` of the stream, whose raw input is ``raw``; then handles due labels and windows."""
        given = self._release.preprocess(raw)
        (answer,), probabilities, features = self._release.predict([given])
        observation = observe(self._release, raw, given, answer, probabilities[0], features[0], 0.0, SALT)
        record = observation.record("/classify", "replay")
        answered = {name: record[name] for name in ("label", "score", "release", "time", "hash")}
        content = {name: row[name] for name in data_part(self._release.kind).CONTENT}
        feedback = {"id": self._journal.append(record), "label": row["label"], "reviewer": "replay", **content}
        if is_reviewed(row["id"], self.share, self.seed):
            self._pending_labels.append((number + self.delay, feedback | {"received": record["time"], "answered": answered}))
        while self._pending_labels and self._pending_labels[0][0] <= number:
            self._feedback.append({"kind": "feedback", "time": now(), **self._pending_labels.popleft()[1]})
            self._label_count += 1
        self._answer_count += 1
        if self._answer_count % self._settings.windows.count == 0:
            self._monitor({"number": number, "period": row["period"], "labels": self._label_count})
        return answer.label

    def _monitor(self, position: dict[str, Any]) -> None:
        """Judge the closed windows, and act on the decisions; ``position`` in the stream goes into each change."""
        self._journal.flush()
        self._feedback.flush()
        watch.cut(self._settings, self._state, self._paths)
        for window in self._state.unjudged():
            decision = watch.judge(self._settings, self._policy, self._state, self._paths, window).decision
            while (intent := self._state.open_intent()) is not None:
                is_rollback = intent.kind == "rollback"
                result = self._roll_back(intent) if is_rollback else self._recalibrate_now(intent)
                self._state.end(intent.id, result["outcome"])
                kind = "rollback" if is_rollback else "recalibrate"
                self.changes.append({"kind": kind, "why": "; ".join(decision.reasons), **result, **position})
                self._load_champion()

    def _roll_back(self, intent: Intent) -> dict[str, Any]:
        rollback(self._paths.store, expected=int(intent.facts["token"]), who="monitor", why=f"intent-{intent.id}")
        return {"outcome": "rolled back", "release": None}

    def _recalibrate_now(self, intent: Intent) -> dict[str, Any]:
        """Recalibrate, and promote what passes the gate: outcome, release, and why, unless the decision's applies."""
        build = Paths(self.home / "made", self.home)
        try:
            recalibrate(self._recalibrate, self._paths, build.root, self._release.id, self._answers(intent), datetime.now(UTC))
        except StageError as error:
            return {"outcome": "failed", "release": None, "why": str(error)}
        release, pointer = add(self._paths.store, build.release), read_pointer(self._paths.store)
        assert pointer is not None
        challenger, champion = (release_folder(self._paths.store, name) for name in (release, pointer.champion))
        report = gate(self._gate, challenger, champion, build.prepared, bootstrap=False)
        if not report.passed:
            return {"outcome": "rejected", "release": None, "why": "; ".join(map(refusal, report.failed))}
        keep(self._paths, release, build.prepared, pointer)
        promote(self._paths.store, release, expected=pointer.token, who="replay", why=f"intent-{intent.id}", gate=None)
        return {"outcome": "promoted", "release": release}

    def _answers(self, intent: Intent) -> list[dict[str, Any]]:
        """The journal's records since the label shift; those of the last windows where the label mix has not shifted."""
        numbers = intent.facts.get("windows") or range(max(1, intent.window + 1 - RECENT), intent.window + 1)
        return records_of(self._paths.journal, [self._state.window(number).plan.journal for number in numbers])
