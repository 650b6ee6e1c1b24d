"""service/meters.py: where the counts of the workers lie."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from service import meters

MAKE = """
from pathlib import Path
from service.meters import make_folder
(folder,) = make_folder().values()
(Path(folder) / "counter_1.db").touch()
print(folder)
"""


@pytest.mark.skipif(not meters.SHARED_MEMORY.is_dir(), reason="there is no memory that can be written as files here")
def test_the_folder_of_the_counts_is_in_memory_and_goes_with_the_server() -> None:
    run = subprocess.run([sys.executable, "-c", MAKE], capture_output=True, text=True, check=True)
    folder = Path(run.stdout.strip())
    assert folder.parent == meters.SHARED_MEMORY
    assert not folder.exists()


def test_where_there_is_no_such_place_it_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(meters, "SHARED_MEMORY", Path("/nowhere"))
    assert meters.make_folder() == {}
    assert "/nowhere: No such file or directory" in caplog.text
