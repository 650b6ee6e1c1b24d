"""The settings of the service, read from environment variables, each with its default. No other module reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path

PREFIX = "RESTILL_"
FOREIGN = re.compile(r"RESTILL_(BENTO|INVOCATION|LOG|METERS|OWNER|PORT|PROGRAM|WEBHOOK|(PORT|SERVICE)_.*)")
"""Not our settings: variables of the Makefile, the flows and ``service.meters``, and what Kubernetes sets for a service."""


MOST_BODY_SECONDS = 25
"""BentoML ends what takes 30 seconds (``service.app``), and a late body is to be called that."""


class ConfigError(ValueError):
    """A variable that the user can mend: the message names it, its value and what is expected."""


@dataclass(frozen=True)
class Config:
    """One field a variable, in capitals and behind ``RESTILL_``."""

    home: Path
    """Store, journal, feedback and keys lie below it. Default: ``var`` below the folder where the service starts."""
    keys: Path
    """The file of API keys. Default: ``keys.json`` below ``home``."""
    release: Path | None
    """A folder to serve, whatever the store says. Default: the store's champion, else the release packed beside."""
    dev: bool = False
    """1: callers on this very machine need no key. For development; never behind a proxy."""
    poll_seconds: float = 1.0
    """How often the store's pointer is looked at."""
    flush_seconds: float = 0.05
    """How long an answer's record may wait in memory for the next write and fsync."""
    segment_records: int = 10_000
    """Records in one segment of the journal."""
    keep_days: float = 30.0
    """How long segments of the journal are kept. Feedback is kept for ever."""
    status_seconds: float = 60.0
    """How often a worker writes a status record."""
    head_seconds: float = 10.0
    """How long the head of a request may take to come, from its first byte; and a new connection to say anything."""
    body_seconds: float = 20.0
    """How long the body of a request may take to come."""
    workers: int = 1
    """Processes that answer. One a core is enough."""

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def journal(self) -> Path:
        return self.home / "journal"

    @property
    def feedback(self) -> Path:
        return self.home / "feedback"

    @property
    def salt(self) -> Path:
        return self.home / "salt"


def read_config(environment: Mapping[str, str]) -> Config:
    """The settings that these variables make; a blank one is as one that is not set. Raises ConfigError."""
    given = {name: value.strip() for name, value in environment.items() if name.startswith(PREFIX) and value.strip()}
    _check_names(given)
    home = Path(given.get("RESTILL_HOME", "var")).absolute()
    release = given.get("RESTILL_RELEASE")
    return Config(
        home=home,
        keys=Path(given["RESTILL_KEYS"]).absolute() if "RESTILL_KEYS" in given else home / "keys.json",
        release=Path(release) if release else None,
        dev=_flag(given, "RESTILL_DEV"),
        poll_seconds=_number(given, "RESTILL_POLL_SECONDS", Config.poll_seconds, 0.01, 3600),
        flush_seconds=_number(given, "RESTILL_FLUSH_SECONDS", Config.flush_seconds, 0.001, 60),
        segment_records=_whole(given, "RESTILL_SEGMENT_RECORDS", Config.segment_records, 1, 10_000_000),
        keep_days=_number(given, "RESTILL_KEEP_DAYS", Config.keep_days, 0.01, 36_500),
        status_seconds=_number(given, "RESTILL_STATUS_SECONDS", Config.status_seconds, 0.1, 86_400),
        head_seconds=_number(given, "RESTILL_HEAD_SECONDS", Config.head_seconds, 0.1, 3600),
        body_seconds=_number(given, "RESTILL_BODY_SECONDS", Config.body_seconds, 0.1, MOST_BODY_SECONDS),
        workers=_whole(given, "RESTILL_WORKERS", Config.workers, 1, 256),
    )


def full_paths(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that name places, as full paths: worker processes start in another folder than the user did."""
    given = {name: environment.get(name, "").strip() for name in ("RESTILL_HOME", "RESTILL_KEYS", "RESTILL_RELEASE")}
    given["RESTILL_HOME"] = given["RESTILL_HOME"] or "var"
    return {name: str(Path(value).absolute()) for name, value in given.items() if value}


def _check_names(given: Mapping[str, str]) -> None:
    """A misspelt variable would leave its setting at the default, and nobody would know."""
    known = {field.name.upper() for field in fields(Config)}
    for name in sorted(given):
        short = name.removeprefix(PREFIX)
        if short not in known and not FOREIGN.fullmatch(name):
            nearest = get_close_matches(short, sorted(known), n=1, cutoff=0)[0]
            raise ConfigError(f"{name}: there is no such variable; the nearest is {PREFIX}{nearest}")


def _flag(given: Mapping[str, str], name: str) -> bool:
    value = given.get(name, "0")
    if value not in ("0", "1"):
        raise ConfigError(f"{name} = {value!r}: expected 0 or 1")
    return value == "1"


def _number(given: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    value = given.get(name)
    try:
        number = default if value is None else float(value)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:  # not-a-number is not between anything
        raise ConfigError(f"{name} = {value!r}: expected a number from {low:g} to {high:g}")
    return number


def _whole(given: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    number = _number(given, name, default, low, high)
    if number != int(number):
        raise ConfigError(f"{name} = {given[name]!r}: expected a whole number from {low} to {high}")
    return int(number)
