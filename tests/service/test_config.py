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
    assert read_config({}) == Config(tmp_path / "var", tmp_path / "var/keys.json", None)
    assert read_config({"RESTILL_KEYS": " ", "RESTILL_WORKERS": ""}) == read_config({})


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


def test_a_wrong_value_stops_the_start_with_one_line() -> None:
    environment = os.environ | {"RESTILL_WORKERS": "many"}
    run = subprocess.run(
        [sys.executable, "-c", "import service.app"], capture_output=True, text=True, check=False, env=environment
    )
    assert run.returncode == 1
    assert run.stderr == "restill: RESTILL_WORKERS = 'many': expected a number from 1 to 256\n"


def test_places_are_full_paths_for_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert full_paths({"RESTILL_KEYS": "k.json", "RESTILL_RELEASE": " "}) == {
        "RESTILL_HOME": str(tmp_path / "var"),
        "RESTILL_KEYS": str(tmp_path / "k.json"),
    }
