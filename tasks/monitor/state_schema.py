"""Schema of the monitor's state: its SQLite tables, and their rows as objects."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from tasks.monitor.policy import Decision, JudgedWindow
from tasks.monitor.records import Ranges
from tasks.monitor.signals import Signal
from tasks.monitor.traffic_windows import Plan

SCHEMA = """
CREATE TABLE IF NOT EXISTS cursors (segment TEXT PRIMARY KEY, next INTEGER NOT NULL, done INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS windows (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, plan TEXT NOT NULL, release TEXT NOT NULL,
    rows INTEGER NOT NULL, labels INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS labels_of_windows ON windows (number, labels);
CREATE TABLE IF NOT EXISTS decisions (
    window INTEGER PRIMARY KEY REFERENCES windows (number), id TEXT NOT NULL UNIQUE, action TEXT NOT NULL,
    decision TEXT NOT NULL, signals TEXT NOT NULL, intent INTEGER, decided TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS intents (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, created TEXT NOT NULL, decision TEXT NOT NULL UNIQUE,
    window INTEGER NOT NULL, step TEXT NOT NULL, facts TEXT NOT NULL, labels INTEGER NOT NULL,
    outcome TEXT, finished INTEGER);
CREATE TABLE IF NOT EXISTS shown (
    window INTEGER NOT NULL REFERENCES windows (number), effect TEXT NOT NULL, PRIMARY KEY (window, effect));
"""


@dataclass(frozen=True)
class TrafficWindow:
    """A cut window."""

    number: int
    """1, 2, 3.. in the order of cutting."""
    id: str
    plan: Plan


@dataclass(frozen=True)
class Intent:
    """A decision to act on."""

    id: int
    kind: str
    """recalibrate, restill or rollback."""
    created: str
    decision: str
    window: int
    step: str
    """The last step reached; "open" at first."""
    facts: dict[str, Any]
    """Results of the steps."""
    outcome: str | None
    """How it ended; None while it is open."""


def read_window(row: tuple[int, str, str]) -> TrafficWindow:
    names = {field.name for field in fields(Plan)}  # plans of an earlier version had more fields
    values = {name: value for name, value in json.loads(row[2]).items() if name in names}
    for name in ("journal", "feedback"):
        ranges: Ranges = {segment: (start, stop) for segment, (start, stop) in values[name].items()}
        values[name] = ranges
    return TrafficWindow(row[0], row[1], Plan(**values))


def read_judged_window(row: tuple[int, str, str, int, str, str]) -> JudgedWindow:
    number, identity, release, rows, signals, decision = row
    return JudgedWindow(number, identity, release, rows, read_signals(signals), read_decision(decision))


def read_signals(stored: str) -> tuple[Signal, ...]:
    return tuple(Signal(**signal) for signal in json.loads(stored))


def read_decision(stored: str) -> Decision:
    values: dict[str, Any] = json.loads(stored)
    for name in ("reasons", "alarms", "confirmed", "broken"):
        values[name] = tuple(values[name])
    return Decision(**values)
