"""A raw message as a row of the corpus."""

from __future__ import annotations

from service.kinds.text_classification.mail import parse_mail
from tasks.data.sources import Rejected, Row


def from_message(name: str, source: str, label: str | None, raw: bytes, file: str) -> Row | Rejected:
    """Parse one raw message (RFC 5322) that was read from ``file``."""
    if not raw.strip():
        return Rejected(name, source, "empty_file", file)
    mail = parse_mail(raw)
    content = {"subject": mail.subject, "text": mail.text}
    return Row(name, mail.received, source, label, content, mail.warnings, file)
