"""The command line of a benchmark that measures a workload."""

from __future__ import annotations

import argparse
import os

from tasks.stage import StageError, add_option, find_workload


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, with ``--workload``. Relative paths are below the workload's folder, which becomes the current one."""
    add_option(parser)
    arguments = parser.parse_args()
    try:
        os.chdir(find_workload(arguments.workload).root)
    except StageError as error:
        parser.error(str(error))
    return arguments
