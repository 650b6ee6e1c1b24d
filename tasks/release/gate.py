"""The gate: may a challenger take the champion's place? Every check must pass, and one that cannot be made fails.

A new check is a function in ``tasks.release.checks``, a line in ``CHECKS`` and, where it has a bound, a block in
``params.yaml``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment
from pydantic import Field

from service.release import MANIFEST
from service.store import is_identity
from tasks.files import atomic_write, read_json, write_json
from tasks.release import checks
from tasks.release.case import Case
from tasks.release.checks import Check
from tasks.release.label_noise import Labels
from tasks.stage import Settings

PAGE = Path(__file__).with_name("gate.html.j2")


class Golden(Settings):
    figure: Literal["pr_auc", "roc_auc", "f1"]
    margin: float = Field(ge=0)
    """So much worse than the champion it may be, at the lower bound of the difference."""
    minimum: float
    """What the figure itself must reach, champion or not."""


class WindowCheck(Settings):
    rows: int = Field(ge=1)
    """The newest rows looked at, at most."""
    minimum: int = Field(ge=1)
    """Where fewer came since the champion's snapshot, the newest of before fill the window up to it; where there are
    none to fill it, there is no verdict, and so no promotion."""
    margin: float = Field(ge=0)


class FalsePositives(Settings):
    maximum: float
    margin: float = Field(ge=0)
    """So much above the champion's rate it may be."""


class WorstSlice(Settings):
    rows: int = Field(ge=1)
    """A source with fewer golden rows is no slice."""
    margin: float = Field(ge=0)


class Maximum(Settings):
    maximum: float


class Latency(Settings):
    maximum: float
    times_champion: float
    """So many times the champion's time it may take."""
    inputs: int = Field(ge=1)
    rounds: int = Field(ge=1)


class Gate(Settings):
    confidence: float = Field(gt=0.5, lt=1)
    """Of the lower bounds of differences, one-sided."""
    resamples: int = Field(ge=100)
    seed: int
    golden: Golden
    window: WindowCheck
    false_positives: FalsePositives
    worst_slice: WorstSlice
    calibration: Maximum
    bytes: Maximum
    latency_us: Latency
    labels: Labels


CHECKS: dict[str, Callable[[Case, Gate], Check]] = {
    "manifest": checks.manifest,
    "probes": checks.probes,
    "champion": checks.champion,
    "lineage": checks.lineage,
    "leakage": checks.leakage,
    "labels": checks.labels,
    "golden": checks.golden,
    "window": checks.window,
    "false_positives": checks.false_positives,
    "worst_slice": checks.worst_slice,
    "calibration": checks.calibration,
    "bytes": checks.size,
    "latency_us": checks.latency_us,
}
UNNAMED = "unnamed"
NECESSARY = ("manifest", "probes", "champion", "lineage")
"""Where one of these fails, the checks behind it are not made: what is not whole is not even loaded."""


@dataclass(frozen=True)
class Report:
    """The verdict on one challenger."""

    release: str
    champion: str | None
    bootstrap: bool
    time: str
    passed: bool
    checks: list[Check]
    unmade: list[str]
    """Checks that were not made because a necessary one failed."""

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]


def gate(settings: Gate, challenger: Path, champion: Path | None, prepared: Path, *, bootstrap: bool) -> Report:
    """Make every check of the release in ``challenger`` against the one in ``champion``; it never raises.

    ``prepared`` is the ``prepared.parquet`` of the challenger's own run. ``bootstrap`` stands for a champion where there
    is none yet: comparisons are then not made, everything else is.
    """
    case = Case(challenger, champion, prepared, bootstrap, (settings.window.minimum, settings.window.rows))
    made: list[Check] = []
    for name, check in CHECKS.items():
        made.append(_made(name, check, case, settings))
        if name in NECESSARY and not made[-1].passed:
            break
    unmade = list(CHECKS)[len(made) :]
    return Report(
        release=_name(challenger),
        champion=None if champion is None else _name(champion),
        bootstrap=bootstrap,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        passed=not unmade and all(check.passed for check in made),
        checks=made,
        unmade=unmade,
    )


def _made(name: str, check: Callable[[Case, Gate], Check], case: Case, settings: Gate) -> Check:
    try:
        found = check(case, settings)
    except Exception as error:  # of whatever kind: what cannot be checked has not passed
        return Check(name, None, None, False, f"{type(error).__name__}: {' '.join(str(error).split())}")
    if found.figure is not None and not isfinite(found.figure):
        return Check(name, None, found.threshold, False, f"the figure is {found.figure}: {found.reason}", found.details)
    return found


def _name(folder: Path) -> str:
    """The id that a release claims, for the report; whether it may claim it is the first check."""
    try:
        identity = read_json(folder / MANIFEST)["id"]
        return identity if is_identity(identity) else UNNAMED
    except Exception:  # what is wrong with the manifest is what the first check reports
        return UNNAMED


def table(report: Report) -> list[dict[str, str]]:
    """A row a check, for a terminal or a table artifact."""
    rows = [
        {"check": check.name, "figure": shown(check.figure), "threshold": shown(check.threshold),
         "verdict": "passed" if check.passed else "FAILED", "reason": check.reason}
        for check in report.checks
    ]  # fmt: skip
    return rows + [
        {"check": name, "figure": "-", "threshold": "-", "verdict": "not made", "reason": f"{report.checks[-1].name} failed"}
        for name in report.unmade
    ]


def shown(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:,.0f}" if figure == int(figure) else f"{figure:.4f}"


def refusal(check: Check) -> str:
    """Why a check has failed, in a line, with its figure and what it was held against, where there are such."""
    if check.figure is None or check.threshold is None:
        return f"{check.name}: {check.reason}"
    return f"{check.name}: {shown(check.figure)} against {shown(check.threshold)}: {check.reason}"


def write(report: Report, folder: Path, token: int) -> Path:
    """Write the report as JSON and, beside it, as HTML; the path of the JSON. ``token`` is the pointer's that it saw."""
    path = folder / f"{report.release}-{token}.json"
    with atomic_write(path.with_suffix(".html")) as temporary:
        temporary.write_text(page(report), encoding="utf-8")
    write_json(path, asdict(report))
    return path


def page(report: Report) -> str:
    template = Environment(autoescape=True).from_string(PAGE.read_text(encoding="utf-8"))
    return template.render(report=report, rows=table(report), details=_details(report))


def _details(report: Report) -> Mapping[str, Any]:
    return {check.name: check.details for check in report.checks if check.details}
