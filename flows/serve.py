"""`make serve`: the Bento of a workload's release on 127.0.0.1, over the workload's runtime state.

python -m flows.serve --workload mail --port 3000
"""

from __future__ import annotations

import argparse
import os
import sys

from service.port import PortError, check_port
from service.release import ReleaseError
from tasks.release.bento import tag_of
from tasks.stage import StageError, add_option, find_workload


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.serve", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_option(parser)
    parser.add_argument("--port", default=os.environ.get("PORT", "3000"))
    arguments = parser.parse_args()
    try:
        check_port("PORT", arguments.port)
        paths = find_workload(arguments.workload)
        if not paths.release.exists():
            raise StageError(f"{paths.release}: not there yet; `make run WORKLOAD={paths.workload}` makes it")
        tag = tag_of(paths)
    except (StageError, ReleaseError, PortError) as error:
        sys.exit(f"serve: {error}")
    os.environ["RESTILL_WORKLOAD"] = paths.workload
    os.execvp("bentoml", ["bentoml", "serve", tag, "--host", "127.0.0.1", "--port", arguments.port])  # noqa: S606


if __name__ == "__main__":
    main()
