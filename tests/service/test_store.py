"""The store as the service reads it: a pointer is believed whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.store import POINTER, Pointer, StoreError, read_pointer, release_folder

GOOD: dict[str, Any] = {"token": 3, "champion": "0123456789ab", "previous": "ba9876543210", "entry": {"token": 3}}


def write(store: Path, content: str) -> Path:
    (store / POINTER).write_text(content)
    return store


def test_a_store_in_which_nothing_was_promoted_has_no_pointer(tmp_path: Path) -> None:
    assert read_pointer(tmp_path) is None
    assert read_pointer(tmp_path / "nowhere") is None


@pytest.mark.parametrize("previous", ["ba9876543210", None])
def test_a_pointer_comes_back_as_it_was_written(tmp_path: Path, previous: str | None) -> None:
    write(tmp_path, json.dumps(GOOD | {"previous": previous}))
    assert read_pointer(tmp_path) == Pointer(3, "0123456789ab", previous, {"token": 3})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("\xff\xfe", "cannot be read"),
        ("[]", "missing"),
        (json.dumps({name: value for name, value in GOOD.items() if name != "entry"}), "'entry' is missing"),
        (json.dumps(GOOD | {"token": 0}), "token = 0"),
        (json.dumps(GOOD | {"token": True}), "token = True"),
        (json.dumps(GOOD | {"token": "3"}), "token = '3'"),
        (json.dumps(GOOD | {"entry": None}), "entry = None"),
        (json.dumps(GOOD | {"champion": "../elsewhere"}), "is no release id"),
        (json.dumps(GOOD | {"champion": None}), "is no release id"),
        (json.dumps(GOOD | {"previous": "0123"}), "is no release id"),
    ],
)
def test_a_pointer_with_a_fault_is_refused_and_the_fault_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / POINTER).write_bytes(content.encode("latin-1"))
    with pytest.raises(StoreError, match=said) as caught:
        read_pointer(tmp_path)
    assert POINTER in str(caught.value)


@pytest.mark.parametrize("release", ["..", "0123456789ab/..", "0123456789aB", "", "0123456789abc", "0123456789ab\n"])
def test_only_an_id_leads_to_a_release(tmp_path: Path, release: str) -> None:
    assert release_folder(tmp_path, "0123456789ab") == tmp_path / "releases/0123456789ab"
    with pytest.raises(StoreError, match="is no release id"):
        release_folder(tmp_path, release)
