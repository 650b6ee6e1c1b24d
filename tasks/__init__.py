"""The work: one module a stage, functions of files and parameters.

Importing this package keeps every tool off the network and silent: ``offline.env`` is the one list of the
settings, and a variable that is already set wins. What cannot be shown in the charset of a terminal is replaced.
"""

import io
import locale
import os
import sys
from pathlib import Path

for _line in (Path(__file__).parents[1] / "offline.env").read_text(encoding="utf-8").splitlines():
    _name, _, _value = _line.partition("=")
    os.environ.setdefault(_name, _value)

LOOPBACK = "127.0.0.1,localhost"
"""What no proxy is asked for: all servers of this project."""

for _name in ("NO_PROXY", "no_proxy"):
    _value = os.environ.get(_name, "")
    if LOOPBACK not in _value:
        os.environ[_name] = f"{_value},{LOOPBACK}".lstrip(",")


def _charset() -> str | None:
    """The charset of the terminal, where Python was told UTF-8 for all (PYTHONUTF8) and the locale says otherwise."""
    spoken = locale.getencoding().lower()
    told = os.environ.get("PYTHONIOENCODING") or spoken in ("utf-8", "us-ascii", "ascii", "ansi_x3.4-1968")
    return None if told or not sys.flags.utf8_mode else spoken


for _stream in (sys.stdout, sys.stderr):
    if isinstance(_stream, io.TextIOWrapper):
        _stream.reconfigure(encoding=_charset(), errors="replace")
