"""Files in a folder of data on which DVC fails or hangs, and the lines of .dvcignore that exclude them.

    python -m tasks.data.dvcignore >> .dvcignore

The stage ingest still reads these files, or reports in the quarantine why it cannot.
"""

from __future__ import annotations

import argparse
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

from tasks.stage import Paths, StageError, add_option, find_workload, read_params

_NO_UTF8 = re.compile("[\udc80-\udcff]")
_WILD = re.compile(r"[\\*?\[\]]")


def check_folder(paths: Paths) -> None:
    """Raises StageError for a missing source of ingest, or a folder that DVC cannot hash: dangling links, invalid names."""
    check_sources(paths.root)
    blocking = list(blocking_files(paths))
    if blocking:
        path, reason = blocking[0]
        others = f" ({len(blocking) - 1} more are like it)" if len(blocking) > 1 else ""
        fix = "`python -m tasks.data.dvcignore >> .dvcignore` lets it pass; ingest counts such files"
        raise StageError(f"{ascii(str(path))[1:-1]}: {reason}, and DVC stops at it{others}: {fix}")


def check_sources(root: Path) -> None:
    """Raises StageError where a file or folder that ``ingest`` reads does not exist."""
    for key in ("path", "feedback"):
        setting = _ingest(root).get(key)
        if isinstance(setting, str) and not (root / setting).exists():
            raise StageError(f"params.yaml: ingest.{key} = {setting}: there is no such file or folder")


def _ingest(root: Path) -> dict[str, Any]:
    """The block ``ingest`` of params.yaml; empty where there is none."""
    block = read_params(root).get("ingest") if (root / "params.yaml").exists() else None
    return block if isinstance(block, dict) else {}


def blocking_files(paths: Paths) -> Iterator[tuple[Path, str]]:
    """(path below the project, reason) of each file in the folder ``ingest.path`` on which DVC would fail, by name."""
    block, project = _ingest(paths.root), paths.project
    folder = paths.root / str(block.get("path"))
    if block.get("source") != "folder" or not folder.is_dir() or not folder.resolve().is_relative_to(project.resolve()):
        return
    problems = [(path, reason) for path in _files(folder) if (reason := _problem(path))]
    if not problems:
        return
    try:
        ignored = Repo(str(project)).dvcignore
    except (DvcException, SCMError):  # DVC reports that itself
        return
    for path, reason in problems:
        if not ignored.is_ignored_file(str(path.absolute())):
            yield path.relative_to(project), reason


def _files(folder: Path) -> Iterator[Path]:
    """All files below ``folder``, and folders whose names are not UTF-8; like DVC, it does not follow links to folders."""
    for folder_path, subfolders, names in os.walk(folder):
        subfolders.sort()
        for name in sorted([*names, *(name for name in subfolders if _NO_UTF8.search(name))]):
            yield Path(folder_path, name)


def _problem(path: Path) -> str | None:
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
    parser = argparse.ArgumentParser(prog="python -m tasks.data.dvcignore", description=__doc__)
    add_option(parser)
    try:
        for path, _ in blocking_files(find_workload(parser.parse_args().workload)):
            print(pattern(path))
    except StageError as error:
        sys.exit(f"dvcignore: {error}")


if __name__ == "__main__":
    main()
