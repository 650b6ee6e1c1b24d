"""A champion in its store, and traffic in which labels occur in another mix than where it learned."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from service.record import observe
from service.release import Release
from service.store import release_folder
from tasks.release.evaluate import choose
from tasks.release.gate import Gate
from tasks.release.package import drift_reference, seal
from tasks.release.promote import challenge
from tasks.release.recalibrate import Recalibrate, recalibrate
from tasks.stage import Paths
from tests.conftest import made_text
from tests.tasks.traffic import write
from tests.trial import DEFAULTS, PARAMS, Trial

UNTIL = datetime(2020, 3, 1, tzinfo=UTC)
SETTINGS = Recalibrate.model_validate(PARAMS["recalibrate"] | {"recall_loss": 1.0})
"""Made labels overlap much, so that a rarer one is best given up in part."""
WIDER = {"latency_us": {"times_champion": 100}, "labels": {"maximum": 0.1}, "golden": {"minimum": 0.8}}
GATE = Gate.model_validate(DEFAULTS | {name: DEFAULTS[name] | bounds for name, bounds in WIDER.items()})
"""Others use this machine; of texts this short some labels are doubtful, and where spam is rare PR-AUC is lower, by nature."""
WORDS = 9
"""Texts so short that the mix of labels decides about many of them."""


def messages(count: int, spam: float, seed: int, labels: tuple[str, ...] = ("ham", "spam")) -> list[tuple[str, str]]:
    """(text, label), of which a share is the last label."""
    rng = random.Random(seed)
    drawn = [labels[-1] if rng.random() < spam else rng.choice(labels[:-1]) for _ in range(count)]
    return [(made_text(label, rng, WORDS), label) for label in drawn]


class World:
    """A champion in its store, with the messages that judged it, and traffic in which labels occur in another mix."""

    def __init__(self, root: Path, student: Path, labels: list[str], positive: str | None) -> None:
        self.paths = Paths(root)
        self.trial = Trial(root, student, labels, positive)
        rows = pd.read_parquet(self.trial.prepared)
        texts = [made_text(label, random.Random(number), WORDS) for number, label in enumerate(rows.label)]
        self.trial.say(rows.assign(input=texts, raw=texts))
        rows = rows.assign(input=texts, raw=texts)
        folder, valid = self.trial.challenger, rows[rows.split == "valid"]
        logits = Release(folder).model.logits(list(valid.input))
        chosen = choose(logits, valid, labels.index(positive) if positive else None, "break_even")
        self.trial.change(folder, "settings.json", chosen)
        release, held_out = Release(folder), rows[rows.split.isin(["valid", "test", "golden"])]
        arrays: dict[str, Any] = drift_reference(release.serving, release.model, held_out, release.temperature)
        np.savez(folder / "reference.npz", **arrays)
        seal(folder)
        outcome = challenge(self.paths, folder, GATE, who="tests", why="", bootstrap=True)
        assert outcome.pointer is not None, [check.reason for check in outcome.report.failed] if outcome.report else ""
        self.champion = outcome.pointer.champion
        self.folder = release_folder(self.paths.store, self.champion)

    def answers(self, sent: list[tuple[str, str]], start: int = 0) -> list[dict[str, Any]]:
        """What the journal holds of these messages, answered by the champion an hour apart, the last hours before UNTIL.

        Their ids are those that ``label`` gives to labelled messages of the same ``start``.
        """
        release, found = Release(self.folder), []
        for n, (text, _) in enumerate(sent):
            normalised = release.preprocess(text)
            (answer,), probabilities, features = release.predict([normalised])
            judged = observe(release, text, normalised, answer, probabilities[0], features[0], 200.0, b"salt")
            time = (UNTIL - timedelta(hours=len(sent) - n)).isoformat(timespec="microseconds")
            found.append(judged.record("/classify", f"client {n % 7}") | {"n": n, "id": f"new-{start + n}", "time": time})
        return found

    def label(self, sent: list[tuple[str, str]], start: int = 0) -> None:
        """What a reviewer says of these messages, one an hour; ``start`` of them were labelled before."""
        times = [(UNTIL - timedelta(hours=2000 - start - n)).isoformat() for n in range(len(sent))]
        write(
            self.paths.feedback,
            [
                {"kind": "feedback", "n": n, "time": time, "id": f"new-{start + n}", "label": label, "reviewer": "anna",
                 "subject": "", "text": text, "answered": None, "received": time}
                for n, (time, (text, label)) in enumerate(zip(times, sent, strict=True))
            ],
            worker=start,
        )  # fmt: skip

    def recalibrate(self, sent: list[tuple[str, str]], target: Path, start: int = 0) -> dict[str, Any]:
        return recalibrate(SETTINGS, self.paths, target, self.champion, self.answers(sent, start), UNTIL)
