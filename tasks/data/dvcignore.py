"""What lies in a folder of messages at which DVC stops or waits, and the lines of .dvcignore that let it pass.

    python -m tasks.data.dvcignore >> .dvcignore

The stage ingest reads these files all the same, or says in the quarantine why it cannot.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import SCMError

from tasks.stage import StageError, read_params

_NO_UTF8 = re.compile("[\udc80-\udcff]")
_WILD = re.compile(r"[\\*?\[\]]")


def check_folder(root: Path) -> None:
    """Raises StageError where a source of ingest is missing, or a folder that DVC cannot hash: dangling links, odd names."""
    check_sources(root)
    found = list(stoppers(root))
    if found:
        path, why = found[0]
        others = f" ({len(found) - 1} more are like it)" if len(found) > 1 else ""
        mend = "`python -m tasks.data.dvcignore >> .dvcignore` lets it pass; ingest counts such files"
        raise StageError(f"{ascii(str(path))[1:-1]}: {why}, and DVC stops at it{others}: {mend}")


def check_sources(root: Path) -> None:
    """Raises StageError where what ``ingest`` reads is not there."""
    for name in ("path", "feedback"):
        given = _ingest(root).get(name)
        if isinstance(given, str) and not (root / given).exists():
            raise StageError(f"params.yaml: ingest.{name} = {given}: there is no such file or folder")


def _ingest(root: Path) -> dict[str, Any]:
    """The block ``ingest`` of params.yaml; empty where it has none, as that of a graph of other stages."""
    block = read_params(root).get("ingest") if (root / "params.yaml").exists() else None
    return block if isinstance(block, dict) else {}


def stoppers(root: Path) -> Iterator[tuple[Path, str]]:
    """(path below ``root``, why) of each file of the folder ``ingest.path`` at which DVC would stop, by name."""
    block = _ingest(root)
    folder = root / str(block.get("path"))
    if block.get("source") != "folder" or not folder.is_dir() or not folder.resolve().is_relative_to(root.resolve()):
        return
    odd = [(path, why) for path in _files(folder) if (why := _odd(path))]
    if not odd:
        return
    try:
        ignored = Repo(str(root)).dvcignore
    except (DvcException, SCMError):  # it says so itself
        return
    for path, why in odd:
        if not ignored.is_ignored_file(str(path.absolute())):
            yield path.relative_to(root), why


def _files(folder: Path) -> Iterator[Path]:
    """All that is no folder below ``folder``; links to folders are not followed, as DVC does not."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted([*names, *(name for name in folders if _NO_UTF8.search(name))]):
            yield Path(place, name)


def _odd(path: Path) -> str | None:
    if _NO_UTF8.search(path.name):
        return "its name is not UTF-8"
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"a link that leads nowhere ({error.strerror})" if path.is_symlink() else str(error.strerror)
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "it is no file, but a pipe, a socket or a device"


def pattern(path: Path) -> str:
    """The line of .dvcignore (gitignore's rules) that matches ``path``, below the folder of that file."""
    name = _NO_UTF8.sub("[!!-~]", _WILD.sub(r"\\\g<0>", path.as_posix()))
    return re.sub(r"\s\Z", "[ ]", f"/{name}")


def main() -> None:
    try:
        for path, _ in stoppers(Path.cwd()):
            print(pattern(path))
    except StageError as error:
        sys.exit(f"dvcignore: {error}")


if __name__ == "__main__":
    main()
