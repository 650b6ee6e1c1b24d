"""What `make up` needs first: a release of the workload, and a champion. What is there already is left as it is.

python -m flows.bootstrap [--workload NAME]
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from service.store import POINTER
from tasks.release import promote
from tasks.stage import StageError, add_option, find_workload


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m flows.bootstrap", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_option(parser)
    try:
        paths = find_workload(parser.parse_args().workload)
    except StageError as error:
        sys.exit(f"bootstrap: {error}")
    named = ["--workload", paths.workload]
    if not (paths.release / "manifest.json").exists():
        code = subprocess.run([sys.executable, "-m", "flows.pipeline", *named], check=False).returncode
        if code:
            return code
    if (paths.store / POINTER).exists():
        return 0
    return promote.main(["--bootstrap", str(paths.release), "--why", "make up", *named])


if __name__ == "__main__":
    sys.exit(main())
