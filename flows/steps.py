"""What a restill and a recalibration have in common: where an intent is worked on, and the steps behind the new release.

A step is a function of an intent; what it returns is written down with the intent. Each can be done twice without harm.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect.artifacts import create_table_artifact
from pydantic import Field

from flows.notice import name_of, tell
from tasks.monitor.state import Intent
from tasks.release.bento import bento
from tasks.release.gate import Gate, refusal, table
from tasks.release.mirror import mirror
from tasks.release.promote import judge
from tasks.release.store import history, promote
from tasks.stage import Paths, Settings, read_params, read_settings

Steps = dict[str, Callable[[Paths, Intent], dict[str, Any]]]
WORKTREES, RECALIBRATED = "worktrees", "recalibrations"
"""Where restills and recalibrations are worked on, below the home of the runtime state."""


class Restill(Settings):
    attempts: int = Field(ge=1)
    """Failures after which an intent is given up."""
    notify_block: str | None
    """A notification block of Prefect, as ``slack-webhook/ops``."""


def tree_of(paths: Paths, intent: Intent) -> Path:
    """The copy of the project in which an intent is worked on."""
    return paths.home / (RECALIBRATED if intent.kind == "recalibrate" else WORKTREES) / name_of(intent)


def paths_in_tree(paths: Paths, intent: Intent) -> Paths:
    """The workload in that copy."""
    return Paths(tree_of(paths, intent) / paths.root.relative_to(paths.project))


def gate_release(paths: Paths, intent: Intent) -> dict[str, Any]:
    """The challenger against the champion; the token says which champion that was."""
    settings = read_settings(Gate, "gate", read_params(paths.root))
    report, written, token = judge(paths, paths_in_tree(paths, intent), settings)
    create_table_artifact(table(report), key=f"gate-{report.release}", description="What the challenger had to pass")
    return {
        "passed": report.passed,
        "failed": [refusal(check) for check in report.failed],
        "gate": str(written),
        "token": token,
    }


def promote_release(paths: Paths, intent: Intent) -> dict[str, Any]:
    """Make the challenger the champion, if it passed and the champion is still the one it was compared with."""
    if not intent.facts["passed"]:
        return {"promoted": False}
    release, why = str(intent.facts["release"]), f"{name_of(intent)}, decision {intent.decision}"
    # Done, and perhaps undone by a person since.
    if any((entry["why"], entry["to"]) == (why, release) for entry in history(paths.store)):
        return {"promoted": True}
    pointer = promote(
        paths.store, release, expected=int(intent.facts["token"]), who=intent.kind, why=why, gate=str(intent.facts["gate"])
    )
    mirror(paths, pointer)
    return {"promoted": True, "champion": pointer.champion}


def build_bento(paths: Paths, intent: Intent) -> dict[str, Any]:
    return {"bento": bento(paths_in_tree(paths, intent))[0] if intent.facts["passed"] else None}


def notify(paths: Paths, intent: Intent) -> dict[str, Any]:
    settings = read_settings(Restill, "restill", read_params(paths.root))
    return {"notified": tell(intent, settings.notify_block)}
