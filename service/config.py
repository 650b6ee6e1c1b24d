"""The settings of the service, read from environment variables, with defaults. No other module reads these variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path

PREFIX = "RESTILL_"
OTHER_VARIABLES = re.compile(r"RESTILL_(BENTO|INVOCATION|LOG|METERS|OWNER|PORT|PROGRAM|WEBHOOK|(PORT|SERVICE)_.*)")
"""Not settings: variables of the Makefile, the flows and ``service.meters``, and those that Kubernetes sets for a service."""

MAX_BODY_SECONDS = 25
"""BentoML ends a request after 30 seconds (``service.app``); a late body must get its own error before that."""


class ConfigError(ValueError):
    """An invalid variable: the message names it, its value and what is expected."""


@dataclass(frozen=True)
class Config:
    """One field per variable: ``RESTILL_`` and its name in capitals."""

    home: Path
    """The folder of store, journal and feedback. Default: ``var`` in the folder where the service starts."""
    keys: Path
    """The file of API keys, for all workloads. Default: ``keys.json`` in ``home``."""
    workload: str | None
    """The folder in ``home`` that holds this workload's store, journal and feedback. Default: ``home`` itself."""
    release: Path | None
    """A release folder to serve, regardless of the store. Default: the store's champion, else the release in the Bento."""
    dev: bool = False
    """1: clients on this machine need no key. For development; never behind a proxy."""
    poll_seconds: float = 1.0
    """How often the store's pointer is read."""
    flush_seconds: float = 0.05
    """How long an answer's record may stay in memory until the next write and fsync."""
    segment_records: int = 10_000
    """Records in one segment of the journal."""
    keep_days: float = 30.0
    """How long journal segments are kept. Feedback is kept for ever."""
    status_seconds: float = 60.0
    """How often a worker writes a status record."""
    head_seconds: float = 10.0
    """How long the head of a request may take to arrive, from its first byte; and how long a new connection may be silent."""
    body_seconds: float = 20.0
    """How long the body of a request may take to arrive."""
    workers: int = 1
    """Worker processes. One per core is enough."""

    @property
    def state(self) -> Path:
        return self.home / (self.workload or "")

    @property
    def store(self) -> Path:
        return self.state / "store"

    @property
    def journal(self) -> Path:
        return self.state / "journal"

    @property
    def feedback(self) -> Path:
        return self.state / "feedback"

    @property
    def salt(self) -> Path:
        return self.state / "salt"


def read_config(environment: Mapping[str, str]) -> Config:
    """Read the settings; a blank variable counts as unset. Raises ConfigError."""
    variables = {name: value.strip() for name, value in environment.items() if name.startswith(PREFIX) and value.strip()}
    _check_names(variables)
    home = Path(variables.get("RESTILL_HOME", "var")).absolute()
    release = variables.get("RESTILL_RELEASE")
    return Config(
        home=home,
        keys=Path(variables["RESTILL_KEYS"]).absolute() if "RESTILL_KEYS" in variables else home / "keys.json",
        workload=variables.get("RESTILL_WORKLOAD"),
        release=Path(release) if release else None,
        dev=_flag(variables, "RESTILL_DEV"),
        poll_seconds=_number(variables, "RESTILL_POLL_SECONDS", Config.poll_seconds, 0.01, 3600),
        flush_seconds=_number(variables, "RESTILL_FLUSH_SECONDS", Config.flush_seconds, 0.001, 60),
        segment_records=_integer(variables, "RESTILL_SEGMENT_RECORDS", Config.segment_records, 1, 10_000_000),
        keep_days=_number(variables, "RESTILL_KEEP_DAYS", Config.keep_days, 0.01, 36_500),
        status_seconds=_number(variables, "RESTILL_STATUS_SECONDS", Config.status_seconds, 0.1, 86_400),
        head_seconds=_number(variables, "RESTILL_HEAD_SECONDS", Config.head_seconds, 0.1, 3600),
        body_seconds=_number(variables, "RESTILL_BODY_SECONDS", Config.body_seconds, 0.1, MAX_BODY_SECONDS),
        workers=_integer(variables, "RESTILL_WORKERS", Config.workers, 1, 256),
    )


def full_paths(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that hold paths, made absolute: workers start in another working directory than the user's."""
    variables = {name: environment.get(name, "").strip() for name in ("RESTILL_HOME", "RESTILL_KEYS", "RESTILL_RELEASE")}
    variables["RESTILL_HOME"] = variables["RESTILL_HOME"] or "var"
    return {name: str(Path(value).absolute()) for name, value in variables.items() if value}


def _check_names(variables: Mapping[str, str]) -> None:
    """Without this check, a misspelt variable would silently leave its setting at the default."""
    settings = {field.name.upper() for field in fields(Config)}
    for name in sorted(variables):
        setting = name.removeprefix(PREFIX)
        if setting not in settings and not OTHER_VARIABLES.fullmatch(name):
            nearest = get_close_matches(setting, sorted(settings), n=1, cutoff=0)[0]
            raise ConfigError(f"{name}: there is no such variable; the nearest is {PREFIX}{nearest}")


def _flag(variables: Mapping[str, str], name: str) -> bool:
    value = variables.get(name, "0")
    if value not in ("0", "1"):
        raise ConfigError(f"{name} = {value!r}: expected 0 or 1")
    return value == "1"


def _number(variables: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    value = variables.get(name)
    try:
        number = default if value is None else float(value)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:  # also false for NaN
        raise ConfigError(f"{name} = {value!r}: expected a number from {low:g} to {high:g}")
    return number


def _integer(variables: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    number = _number(variables, name, default, low, high)
    if number != int(number):
        raise ConfigError(f"{name} = {variables[name]!r}: expected a whole number from {low} to {high}")
    return int(number)
