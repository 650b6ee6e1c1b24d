"""Two releases on the same labelled messages: is this one worse than the one before it, or has the world moved?

The messages were answered by the release in service; the one before it answers them here. Neither learned from them, for
they came after the promotion. Their texts are in the records of feedback, and a text costs some hundred microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from service.release import Release, ReleaseError
from service.store import release_folder
from service.text import document
from tasks.monitor.policy import History, Paired


@dataclass(frozen=True)
class Confirmed:
    """A message whose label a reviewer confirmed, and what the release in service had answered."""

    text: str
    label: str
    answered: str


def confirmed(records: Sequence[Mapping[str, Any]], release: str) -> list[Confirmed]:
    """The labelled messages that ``release`` had answered, each text once.

    A reviewer who corrects himself is believed in what he said last. Where labels of one text contradict each other, none
    is believed. Copies are one message: they would be right or wrong together, and the test takes messages for independent.
    """
    said: dict[str, dict[tuple[str, str], Mapping[str, Any]]] = {}
    for record in sorted(records, key=lambda record: str(record["time"])):
        if record["answered"] is not None and record["answered"]["release"] == release:
            said.setdefault(record["answered"]["hash"], {})[record["id"], record["reviewer"]] = record
    found = []
    for votes in said.values():
        first, labels = next(iter(votes.values())), {record["label"] for record in votes.values()}
        if len(labels) == 1:
            text = document(first["subject"], first["text"])
            found.append(Confirmed(text, str(first["label"]), str(first["answered"]["label"])))
    return found


def compare(messages: Sequence[Confirmed], before: Release) -> Paired:
    """Who has which of the messages wrong; those in which ``before`` finds nothing to read are left out."""
    texts = [before.normalise(message.text[: before.limits["characters"]]) for message in messages]
    both = lost = won = 0
    answers = before.answer_normalised([text for text in texts if text])
    asked = [message for message, text in zip(messages, texts, strict=True) if text]
    for message, answer in zip(asked, answers, strict=True):
        here, there = message.answered != message.label, answer.label != message.label
        both, lost, won = both + (here and there), lost + (here and not there), won + (there and not here)
    return Paired(len(asked), both, lost, won)


def ask_previous(history: History, store: Path, release: str, records: Sequence[Mapping[str, Any]]) -> History:
    """``history`` with what the previous release says of the labelled messages in ``records`` that ``release`` answered.

    Where it cannot be asked (it is gone, not whole, or scores otherwise on this host), ``unasked`` says why.
    """
    messages = confirmed(records, release)
    if history.previous is None or not messages:
        return replace(history, unasked="no labelled message of theirs is there")
    try:
        before = Release(release_folder(store, history.previous))
    except (ReleaseError, OSError, ValueError, LookupError) as error:
        return replace(history, unasked=" ".join(str(error).split()))
    return replace(history, paired=compare(messages, before))
