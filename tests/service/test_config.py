"""service/config.py: defaults that are written down, and a wrong value that stops the start with one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.config import Config, ConfigError, full_paths, read_config


def test_the_defaults_are_those_of_the_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_config({}) == Config(tmp_path / "var", tmp_path / "var/keys.json", None, None)
    assert read_config({"RESTILL_KEYS": " ", "RESTILL_WORKERS": ""}) == read_config({})


def test_a_workload_has_its_own_state_and_the_keys_of_all(tmp_path: Path) -> None:
    config = read_config({"RESTILL_HOME": str(tmp_path), "RESTILL_WORKLOAD": "mail"})
    assert (config.store, config.journal, config.salt) == tuple(
        tmp_path / "mail" / name for name in ("store", "journal", "salt")
    )
    assert config.keys == tmp_path / "keys.json"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RESTILL_DEV", "yes"),
        ("RESTILL_WORKERS", "0"),
        ("RESTILL_WORKERS", "1.5"),
        ("RESTILL_POLL_SECONDS", "soon"),
        ("RESTILL_POLL_SECONDS", "nan"),
        ("RESTILL_FLUSH_SECONDS", "0"),
        ("RESTILL_FLUSH_SECONDS", "inf"),
        ("RESTILL_SEGMENT_RECORDS", "-1"),
        ("RESTILL_KEEP_DAYS", "for ever"),
        ("RESTILL_STATUS_SECONDS", "0"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} = '{value}': expected "):
        read_config({name: value})


def test_a_misspelt_name_is_named_with_the_nearest_one() -> None:
    for name, nearest in {"KEEP_DAY": "KEEP_DAYS", "WORKER": "WORKERS", "HOMES": "HOME", "XYZ": ""}.items():
        with pytest.raises(ConfigError, match=f"RESTILL_{name}: there is no such variable; the nearest is RESTILL_{nearest}"):
            read_config({f"RESTILL_{name}": "secret", "RESTILL_KEYS": "k"})
    foreign = "PORT", "BENTO", "PROGRAM", "WEBHOOK", "INVOCATION", "METERS", "SERVICE_HOST", "PORT_3000_TCP_ADDR"
    assert read_config({f"RESTILL_{name}": "x" for name in foreign}) == read_config({"RESTILL_TYPO": " ", "OTHER": "x"})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("RESTILL_WORKERS", "many", "RESTILL_WORKERS = 'many': expected a number from 1 to 256"),
        ("RESTILL_KEEP_DAY", "7", "RESTILL_KEEP_DAY: there is no such variable; the nearest is RESTILL_KEEP_DAYS"),
    ],
)
def test_what_is_wrong_stops_the_start_with_one_line(name: str, value: str, says: str) -> None:
    environment = os.environ | {name: value}
    run = subprocess.run(
        [sys.executable, "-c", "import service.app"], capture_output=True, text=True, check=False, env=environment
    )
    assert run.returncode == 1
    assert run.stderr == f"restill: {says}\n"


def test_places_are_full_paths_for_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert full_paths({"RESTILL_KEYS": "k.json", "RESTILL_RELEASE": " "}) == {
        "RESTILL_HOME": str(tmp_path / "var"),
        "RESTILL_KEYS": str(tmp_path / "k.json"),
    }
