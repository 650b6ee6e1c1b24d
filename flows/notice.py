"""How an intent is called, how it ended in one line, and who is told of it.

A receiver may be a webhook (``RESTILL_WEBHOOK``), or a notification block of Prefect. One that is down costs a warning,
never a release.
"""

from __future__ import annotations

import json
import os
import urllib.request
from datetime import UTC, datetime
from typing import Any

from prefect import get_run_logger
from prefect.blocks.core import Block

from tasks.monitor.state import Intent
from tasks.stage import StageError

WEBHOOK_VARIABLE = "RESTILL_WEBHOOK"
"""A URL that is told how an intent ended, as JSON. It may hold a secret: it stands in no file and in no log."""


def name_of(intent: Intent) -> str:
    """How the intent is called in branches, runs and reports: its time too, for a state that begins anew counts from 1."""
    created = datetime.fromisoformat(intent.created).astimezone(UTC)
    return f"intent-{intent.id}-{created:%Y%m%dT%H%M%S}"


def summary(intent: Intent) -> str:
    """How an intent ended, in one line."""
    facts = intent.facts
    error = facts.get("error")
    after = f"; after that: {error}" if error else ""
    of = f", {facts['parent']} recalibrated," if intent.kind == "recalibrate" else ""
    if facts.get("promoted"):
        return f"{name_of(intent)}: release {facts['release']}{of} was promoted (bento {facts.get('bento')}){after}"
    if facts.get("failed"):
        return f"{name_of(intent)}: release {facts['release']}{of} was refused: {'; '.join(facts['failed'])}{after}"
    return f"{name_of(intent)}: {error or 'nothing was made'}"


def outcome_of(intent: Intent) -> str:
    """What an intent ends as that goes no further; what was promoted stays so, whatever failed after it."""
    return {True: "promoted", False: "rejected", None: "failed"}[intent.facts.get("promoted")]


def webhook() -> str | None:
    """The address that wants to be told, if there is one. Raises StageError, without the address, where it is none."""
    url = os.environ.get(WEBHOOK_VARIABLE, "").strip()
    if url and not url.startswith(("http://", "https://")):
        raise StageError(f"{WEBHOOK_VARIABLE} is no address: it must start with http:// or https://")
    return url or None


def tell(intent: Intent, block: str | None) -> list[str]:
    """Tell the webhook and the notification block how ``intent`` ended; who was told."""
    message = summary(intent)
    told = []
    try:
        if url := webhook():
            _post(url, {"intent": intent.id, "text": message, "facts": intent.facts})
            told.append("webhook")
        if block:
            receiver: Any = Block.load(block)
            receiver.notify(message)
            told.append(block)
    except Exception as error:  # whatever a receiver raises; the name of its kind tells no secret
        get_run_logger().warning("notification failed: %s", type(error).__name__)
    get_run_logger().info("%s", message)
    return told


def _post(url: str, body: dict[str, Any]) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        return
