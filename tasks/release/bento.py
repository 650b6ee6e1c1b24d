"""Effect bento: ``bentoml build`` for the release in release/, tagged with its id; built once.

``python -m tasks.release.bento`` does it by hand, and so does ``bentoml build``, with a tag of BentoML's own choice.
"""

from __future__ import annotations

import sys
from pathlib import Path

import bentoml

from service.release import ReleaseError, verify
from tasks.stage import Paths

NAME = "restill"


def bento(paths: Paths) -> tuple[str, bool]:
    """(tag, whether it is new) of the Bento of the release in release/. Raises ReleaseError where that is not whole."""
    tag = f"{NAME}:{verify(paths.release)}"
    try:
        return str(bentoml.bentos.get(tag).tag), False
    except bentoml.exceptions.NotFound:
        built = bentoml.bentos.build_bentofile(
            str(paths.root / "bentofile.yaml"), version=tag.partition(":")[2], build_ctx=str(paths.root)
        )
        return str(built.tag), True


if __name__ == "__main__":
    try:
        tag, new = bento(Paths(Path.cwd()))
    except ReleaseError as error:
        sys.exit(f"bento: {error}")
    print(f"built {tag}" if new else f"{tag} is built already")
