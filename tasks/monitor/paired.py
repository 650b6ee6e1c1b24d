"""Paired comparison of two releases on the same labelled rows, which tells a bad release from drift.

The release in service has answered the inputs; the previous one answers them here. Neither was trained on them, as they
came after the promotion. The inputs are in the feedback records. To answer one costs some hundred microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from service.release import Release, ReleaseError
from service.store import release_folder
from tasks.kinds import data_part
from tasks.monitor.policy import History, Paired


@dataclass(frozen=True)
class ConfirmedRow:
    """An input with a confirmed label, and the answer of the release in service."""

    content: Mapping[str, Any]
    """Of the feedback record."""
    label: str
    answered: str


def confirmed_rows(records: Sequence[Mapping[str, Any]], release: str) -> list[ConfirmedRow]:
    """The labelled rows that ``release`` answered, each input once.

    A reviewer's last label for an answer counts. An input with contradictory labels is left out. Copies are one row: the
    test assumes independent rows, and copies would be right or wrong together.
    """
    votes_by_input: dict[str, dict[tuple[str, str], Mapping[str, Any]]] = {}
    for record in sorted(records, key=lambda record: str(record["time"])):
        if record["answered"] is not None and record["answered"]["release"] == release:
            votes_by_input.setdefault(record["answered"]["hash"], {})[record["id"], record["reviewer"]] = record
    rows = []
    for votes in votes_by_input.values():
        first, labels = next(iter(votes.values())), {record["label"] for record in votes.values()}
        if len(labels) == 1:
            rows.append(ConfirmedRow(first, str(first["label"]), str(first["answered"]["label"])))
    return rows


def compare(rows: Sequence[ConfirmedRow], previous: Release) -> Paired:
    """The errors of both releases; inputs in which ``previous`` can read nothing are left out."""
    content_of = data_part(previous.kind).content_of
    inputs = [previous.preprocess(previous.serving.raw_of(content_of(row.content))) for row in rows]
    both = lost = won = 0
    answers = previous.answer_preprocessed([given for given in inputs if given])
    compared = [row for row, given in zip(rows, inputs, strict=True) if given]
    for row, answer in zip(compared, answers, strict=True):
        wrong, wrong_before = row.answered != row.label, answer.label != row.label
        both += wrong and wrong_before
        lost += wrong and not wrong_before
        won += wrong_before and not wrong
    return Paired(len(compared), both, lost, won)


def compare_with_previous(history: History, store: Path, release: str, records: Sequence[Mapping[str, Any]]) -> History:
    """``history`` with the paired comparison on the labelled rows in ``records`` that ``release`` answered.

    Where the previous release cannot be loaded (missing, incomplete, or other scores on this host), ``not_compared`` says why.
    """
    rows = confirmed_rows(records, release)
    if history.previous is None or not rows:
        return replace(history, not_compared="no labelled row of theirs is there")
    try:
        previous = Release(release_folder(store, history.previous))
    except (ReleaseError, OSError, ValueError, LookupError) as error:
        return replace(history, not_compared=" ".join(str(error).split()))
    return replace(history, paired=compare(rows, previous))
