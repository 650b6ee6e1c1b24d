"""Effect promote: who may answer, and who does. The gate decides, the pointer of the release store tells the service.

    python -m tasks.release.promote RELEASE               gate against the champion, and its place if all checks pass
    python -m tasks.release.promote --bootstrap RELEASE   the very first: nothing to compare with, all else is checked
    python -m tasks.release.promote rollback              back to the release before the champion
    python -m tasks.release.promote history               every change: who, when, why, from, to
    python -m tasks.release.promote show RELEASE          what a release is and how it came out of the gate

RELEASE is a folder, or the id of a release in the store. Every command first mends what one that died left undone.
Exit codes: 0 done, 1 refused (a failed gate among it), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import getpass
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from service.release import ReleaseError, verify
from service.store import Pointer, StoreError, read_pointer, release_folder
from tasks.files import read_json
from tasks.release.evaluation_set import keep
from tasks.release.gate import Gate, Report, gate, table, write
from tasks.release.mirror import log_gate, mirror
from tasks.release.store import Fenced, add, history, promote, rollback
from tasks.stage import Paths, StageError, add_option, find_workload, read_params, read_settings

__all__ = ["Fenced", "add", "challenge", "history", "judge", "mirror", "promote", "rollback"]

COMMANDS = ("rollback", "history", "show")
SHOWN = ("variant", "chosen_by", "passed_over", "fallback", "labels", "threshold", "trained_on", "created")
"""What ``show`` says of a release's card."""


@dataclass(frozen=True)
class Outcome:
    """How a challenge ended; ``pointer`` is what stands after it, None where there is still none."""

    report: Report | None
    """None where the challenger was the champion already."""
    written: Path | None
    pointer: Pointer | None


def judge(paths: Paths, made: Paths, settings: Gate, *, bootstrap: bool = False) -> tuple[Report, Path, int]:
    """(report, its JSON file, token): the release in ``made.release`` against the champion of ``paths.store``.

    ``made`` is where the challenger was made: its prepared rows judge. ``token`` is the one of the pointer that
    names the champion; a promotion on this report must expect it. Raises StageError where the store cannot be read.
    """
    return _judge(paths, made.release, made.prepared, settings, bootstrap)


def challenge(
    paths: Paths, folder: Path, settings: Gate, *, who: str, why: str, bootstrap: bool, expected: int | None = None
) -> Outcome:
    """Add the release in ``folder`` to the store, take it through the gate, promote it if it passes, tell MLflow.

    Raises StageError where the release is not whole, ``bootstrap`` meets a champion, or (Fenced) the pointer moved
    since the token ``expected``, which is the current one where it is not given.
    """
    release = add(paths.store, folder)
    pointer = _pointer(paths.store)
    if pointer is not None and pointer.champion == release:
        return Outcome(None, None, promote(paths.store, release, expected=pointer.token, who=who, why=why, gate=None))
    if bootstrap and pointer is not None:
        raise StageError(f"--bootstrap: {pointer.champion} is the champion already; without it, the gate compares with it")
    report, written, token = _judge(paths, release_folder(paths.store, release), paths.prepared, settings, bootstrap)
    if not report.passed:
        return Outcome(report, written, pointer)
    expected = token if expected is None else expected
    return Outcome(report, written, promote(paths.store, release, expected=expected, who=who, why=why, gate=str(written)))


def _judge(paths: Paths, folder: Path, prepared: Path, settings: Gate, bootstrap: bool) -> tuple[Report, Path, int]:
    pointer = _pointer(paths.store)
    champion = release_folder(paths.store, pointer.champion) if pointer is not None else None
    token = pointer.token if pointer is not None else 0
    report = gate(settings, folder, champion, prepared, bootstrap=bootstrap)
    written = write(report, paths.gates, token)
    log_gate(paths, folder, written)
    if report.passed:
        keep(paths, report.release, prepared, pointer)
    return report, written, token


def _pointer(store: Path) -> Pointer | None:
    try:
        return read_pointer(store)
    except StoreError as error:
        raise StageError(str(error)) from error


def find(paths: Paths, release: str) -> Path:
    """The folder that RELEASE names: the id of a release in the store, or a folder."""
    try:
        stored = release_folder(paths.store, release)
        if stored.is_dir():
            return stored
    except StoreError:
        stored = None  # no id, so it is a path
    folder = next((path for path in (Path(release), paths.root / release) if path.is_dir()), None)
    if folder is None:
        where = "no folder" if stored is None else f"neither a release in {paths.store} nor a folder"
        raise StageError(f"{release}: is {where}")
    return folder


def describe(paths: Paths, folder: Path) -> dict[str, Any]:
    """What a release is, what it stands for now, and what happened to it. Raises StageError where it is not whole."""
    try:
        release = verify(folder)
    except ReleaseError as error:
        raise StageError(str(error)) from error
    card, pointer = read_json(folder / "card.json"), _pointer(paths.store)
    places = {} if pointer is None else {pointer.previous: "previous", pointer.champion: "champion"}
    return {
        "release": release,
        "folder": str(folder),
        "place": places.get(release, "none"),
        **{name: card.get(name) for name in SHOWN},
        "history": [entry for entry in history(paths.store) if release in (entry["from"], entry["to"])],
        "gate": sorted(str(path) for path in paths.gates.glob(f"{release}-*.json")),
    }


def parser() -> argparse.ArgumentParser:
    summary, _, rest = str(__doc__).partition("\n\n")
    made = argparse.ArgumentParser(
        prog="python -m tasks.release.promote", description=summary, epilog=rest,
        usage="%(prog)s [--bootstrap] [--who WHO] [--why WHY] [--token N] [--workload NAME] RELEASE\n"
        "       %(prog)s [--who WHO] [--why WHY] [--token N] rollback\n"
        "       %(prog)s history\n       %(prog)s show RELEASE",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("what", metavar="RELEASE | rollback | history | show")
    made.add_argument("release", nargs="?", metavar="RELEASE", help="after show: a folder, or an id in the store")
    made.add_argument("--bootstrap", action="store_true", help="there is no champion yet, and this release is to be the first")
    made.add_argument("--who", help="who asks; default: this user on this host")
    made.add_argument("--why", help="the reason, for the history")
    made.add_argument("--token", type=int, help="the pointer's token that was looked at; refused where it moved since")
    add_option(made)
    return made


def who_asks() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a container's user may have no name
        return f"unknown@{socket.gethostname()}"


def main(words: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    asked = parser()
    given = asked.parse_args(words)
    if (given.what == "show") != (given.release is not None):
        asked.error("show needs a RELEASE" if given.what == "show" else f"unrecognized argument: {given.release}")
    if given.bootstrap and given.what in COMMANDS:
        asked.error(f"--bootstrap: not with {given.what}")
    try:
        paths = find_workload(given.workload)
        return _show(paths, given) if given.what in ("history", "show") else _change(paths, given)
    except StageError as error:
        print(f"promote: {error}", file=sys.stderr)
        return 1


def _show(paths: Paths, given: argparse.Namespace) -> int:
    console = Console(width=None if sys.stdout.isatty() else 160)
    if given.what == "show":
        console.print_json(data=describe(paths, find(paths, given.release)))
    else:
        names = ("token", "time", "action", "who", "why", "from", "to", "gate")
        shown = Table(*names)
        for entry in history(paths.store):
            shown.add_row(*("-" if entry.get(name) is None else str(entry[name]) for name in names))
        console.print(shown)
    _tell(paths, _pointer(paths.store))
    return 0


def _change(paths: Paths, given: argparse.Namespace) -> int:
    who, why = given.who or who_asks(), given.why or f"{given.what} by hand"
    if given.what == "rollback":
        before = _pointer(paths.store)
        seen = given.token if given.token is not None else before.token if before is not None else 0
        pointer = rollback(paths.store, expected=seen, who=who, why=why)
        print(f"{pointer.champion} is the champion again, token {pointer.token}; {pointer.previous} is the previous one")
        _tell(paths, pointer)
        return 0
    settings = read_settings(Gate, "gate", read_params(paths.root))
    outcome = challenge(
        paths, find(paths, given.what), settings, who=who, why=why, bootstrap=given.bootstrap, expected=given.token
    )
    _tell(paths, outcome.pointer)
    return _say(outcome)


def _say(outcome: Outcome) -> int:
    if outcome.report is None or outcome.written is None:
        assert outcome.pointer is not None
        print(f"{outcome.pointer.champion} is the champion already, token {outcome.pointer.token}")
        return 0
    rows = table(outcome.report)
    shown = Table(*rows[0], title=f"Gate of {outcome.report.release}")
    for row in rows:
        shown.add_row(*row.values())
    Console(width=None if sys.stdout.isatty() else 160).print(shown)
    print(f"report: {outcome.written.with_suffix('.html')}")
    if not outcome.report.passed:
        failed = ", ".join(check.name for check in outcome.report.failed)
        print(f"promote: {outcome.report.release} was refused: {failed}", file=sys.stderr)
        return 1
    assert outcome.pointer is not None
    print(f"{outcome.pointer.champion} is the champion, token {outcome.pointer.token}")
    return 0


def _tell(paths: Paths, pointer: Pointer | None) -> None:
    if pointer is not None:
        mirror(paths, pointer)


if __name__ == "__main__":
    sys.exit(main())
