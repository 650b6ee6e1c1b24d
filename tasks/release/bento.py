"""Effect bento: ``bentoml build`` of service/ and the workload's release, built once.

The tag names both: the release's id, and a hash of the code that serves it, so a change of either is a new Bento.

    python -m tasks.release.bento          build it by hand
    python -m tasks.release.bento --tag    only say its tag
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import bentoml
import yaml

from service.kinds import serving_class
from service.release import ReleaseError, verify
from tasks.files import read_json
from tasks.stage import Paths, StageError, add_option, find_workload


def tag_of(paths: Paths) -> str:
    """``restill-WORKLOAD:RELEASE-CODE``. Raises ReleaseError where the release is not whole."""
    code = hashlib.sha256()
    for path in [paths.project / "bentofile.yaml", *sorted((paths.project / "service").rglob("*.py"))]:
        code.update(path.read_bytes())
    return f"{paths.name}:{verify(paths.release)}-{code.hexdigest()[:6]}"


def with_packages(paths: Paths) -> dict[str, Any]:
    """What ``bentofile.yaml`` says, with the packages that the release's kind and format need, in their tested versions.

    Raises ReleaseError for a format that cannot be served.
    """
    found = read_json(paths.release / "model/variant.json")
    serving = serving_class(found["kind"])
    if found["format"] not in serving.formats:
        raise ReleaseError(f"the release's format is {found['format']!r}; the service runs {' and '.join(serving.formats)}")
    options: dict[str, Any] = yaml.safe_load((paths.project / "bentofile.yaml").read_text(encoding="utf-8"))
    lines = (paths.project / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0]: line for line in lines if "==" in line}
    needed = [pinned[name] for name in (*serving.requires, *serving.formats[found["format"]])]
    options["python"]["packages"] = sorted([*options["python"]["packages"], *needed])
    return options


def bento(paths: Paths) -> tuple[str, bool]:
    """(tag, whether it is new) of the Bento. Raises ReleaseError where the release is not whole, or cannot be served."""
    tag = tag_of(paths)
    described = with_packages(paths)
    try:
        return str(bentoml.bentos.get(tag).tag), False
    except bentoml.exceptions.NotFound:
        with tempfile.TemporaryDirectory() as folder:
            context = Path(folder)
            # BentoML reads a description only from below the current folder, which this is not.
            options = described | {"description": (paths.project / "README.md").read_text(encoding="utf-8")}
            (context / "bentofile.yaml").write_text(yaml.safe_dump(options), encoding="utf-8")
            for source in (paths.project / "service", paths.release):
                shutil.copytree(source, context / source.name, ignore=shutil.ignore_patterns("__pycache__"))
            name, _, version = tag.partition(":")
            built = bentoml.bentos.build_bentofile(
                str(context / "bentofile.yaml"), name=name, version=version, build_ctx=str(context)
            )
        return str(built.tag), True


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tasks.release.bento", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tag", action="store_true", help="only say its tag")
    add_option(parser)
    given = parser.parse_args()
    try:
        paths = find_workload(given.workload)
        if given.tag:
            print(tag_of(paths))
            return
        tag, new = bento(paths)
    except (ReleaseError, StageError) as error:
        sys.exit(f"bento: {error}")
    print(f"built {tag}" if new else f"{tag} is built already")


if __name__ == "__main__":
    main()
