"""gzip whose bytes do not depend on the clock: a parametrized test is named after them, and all pytest-xdist workers must
find the same names."""

from __future__ import annotations

import gzip
from functools import partial

zipped = partial(gzip.compress, mtime=0)
