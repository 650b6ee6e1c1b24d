"""The row types that every reader of a source yields, and the conversion of a raw message to one.

A reader yields a ``Row`` for each record it could read and a ``Rejected`` for each it could not, so that counts add up. What
makes the whole source unusable (missing, empty, wrong columns) is a ``StageError``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from service.mail import parse_mail

FEEDBACK = "feedback"
"""The source group of messages that the service answered and a reviewer labelled."""
LABEL_WITHOUT_FILE = "label_without_file"
"""The reason of a row of a label table that matches no file: it is not a message."""


@dataclass(frozen=True)
class Row:
    """One labelled message from its source; ``label`` is None where the source gives none."""

    id: str
    received: datetime | None
    source: str
    label: str | None
    subject: str
    text: str
    warnings: tuple[str, ...]
    file: str = ""
    """The file it was read from, where each file is a message or a box of messages."""


@dataclass(frozen=True)
class Rejected:
    """A record that could not be read: its location and the reason, without its text."""

    id: str
    source: str
    reason: str
    file: str = ""


def from_message(name: str, source: str, label: str | None, raw: bytes, file: str) -> Row | Rejected:
    """Parse one raw message (RFC 5322) that was read from ``file``."""
    if not raw.strip():
        return Rejected(name, source, "empty_file", file)
    mail = parse_mail(raw)
    return Row(name, mail.received, source, label, mail.subject, mail.text, mail.warnings, file)
