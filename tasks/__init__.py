"""The work: one module a stage, functions of files and parameters.

Importing this package keeps every tool off the network and silent: ``offline.env`` is the one list of the
settings, and a variable that is already set wins.
"""

import os
from pathlib import Path

for _line in (Path(__file__).parents[1] / "offline.env").read_text().splitlines():
    _name, _, _value = _line.partition("=")
    os.environ.setdefault(_name, _value)
