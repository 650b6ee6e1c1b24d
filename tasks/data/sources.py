"""What every reader of a source yields, and how a raw message becomes it.

A reader yields a ``Row`` for what it could read and a ``Rejected`` for what it could not, so that the numbers
add up. What makes the whole source unusable (missing, empty, of the wrong columns) is a ``StageError``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from service.mail import parse_mail

FEEDBACK = "feedback"
"""The source group of messages that were answered in service and labelled by a reviewer."""
LABEL_WITHOUT_FILE = "label_without_file"
"""The reason of a row of a label table that matches no file: it is no message."""


@dataclass(frozen=True)
class Row:
    """One labelled message as its source gave it; ``label`` is None where the source gives none."""

    id: str
    received: datetime | None
    source: str
    label: str | None
    subject: str
    text: str
    warnings: tuple[str, ...]
    file: str = ""
    """The file that it was read from, where each file is a message or a box of them."""


@dataclass(frozen=True)
class Rejected:
    """What could not be read: where it stood and why. No text of it."""

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
