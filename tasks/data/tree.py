"""Every file below a folder, once: where it lies, what group it belongs to, and which must not be opened, and why.

Symbolic links are followed, but no folder or file is read twice: what lies in the tree itself comes first, then links to
folders, then links to files, each by name. So the count of entries is the count of files and of links not followed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from tasks.data.contents import system_file

Parts = tuple[str, ...]
"""Names of folders, and the file, below the root."""

_MAILDIR = frozenset({"cur", "new", "tmp"})
_MAILDIR_NAME = re.compile(r"\d{9,}[._].+|.*[:;!]2,[A-Za-z]*", re.S)
"""A file's name in a Maildir: the time and two more words; flags (in place of the colon, what Windows bears)."""


@dataclass(frozen=True)
class Entry:
    """One file, or one link or folder that is not followed; ``reason`` says why it is not to be opened."""

    parts: Parts
    group: str
    """The first folder below the root; of a Maildir++, that folder without its dot; the root's own name for what lies in it."""
    reason: str | None
    one_message: bool
    """It lies in a Maildir: a file there is one message."""
    index: bool
    """It lies beside a Maildir's messages: what is no message there is an index."""


def entries(root: Path) -> list[Entry]:
    """All files below ``root``, by name."""
    tree = _Tree(root)
    tree.walk(())
    while tree.folder_links:
        links, tree.folder_links = sorted(tree.folder_links), []
        for parts in links:
            tree.follow_folder(parts)
    for parts in sorted(tree.file_links):
        tree.follow_file(parts)
    return sorted((tree.entry(parts, reason) for parts, reason in tree.found), key=lambda entry: entry.parts)


class _Tree:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = root.absolute().name
        self.found: list[tuple[Parts, str | None]] = []
        self.folder_links: list[Parts] = []
        self.file_links: list[Parts] = []
        self.maildirs: set[Parts] = set()
        self.seen: set[Path] = set()
        """The true folders whose files are read, and the true files behind links."""

    def walk(self, top: Parts) -> None:
        """Find the files below ``top``; links are kept for later."""
        shapes: dict[Parts, set[str]] = {}
        folders = {top: self.root.joinpath(*top).resolve()}
        waiting = [top]
        while waiting:
            parts = waiting.pop()
            for inner in self._look(parts, folders[parts], shapes):
                folders[inner] = folders[parts] / inner[-1]
                waiting.append(inner)
        self.maildirs |= {parts for parts, shape in shapes.items() if _is_maildir(shape)}
        self.seen |= {true for parts, true in folders.items() if not self._hidden((*parts, "file"))}

    def _look(self, parts: Parts, true: Path, shapes: dict[Parts, set[str]]) -> list[Parts]:
        """One folder: its files are found, its shape is told, its folders returned."""
        inner = []
        try:
            with os.scandir(self.root.joinpath(*parts)) as listing:
                for item in listing:
                    mine = (*parts, item.name)
                    is_folder = self._sort_link(mine) if item.is_symlink() else item.is_dir(follow_symlinks=False)
                    if is_folder and item.name in _MAILDIR:
                        shapes.setdefault(parts, set()).add(item.name)
                    elif parts and parts[-1] in ("cur", "new") and _MAILDIR_NAME.fullmatch(item.name):
                        shapes.setdefault(parts[:-1], set()).add("named")
                    if is_folder and not item.is_symlink():
                        if true / item.name in self.seen:
                            self.found.append((mine, "link_seen_before"))
                        else:
                            inner.append(mine)
                    elif not item.is_symlink():
                        self.found.append((mine, None if item.is_file(follow_symlinks=False) else "special_file"))
        except OSError as error:
            self.found.append((parts, f"unreadable: {error.strerror}"))
        return inner

    def _sort_link(self, parts: Parts) -> bool:
        """Keep a link for later, or say why it leads nowhere; whether it leads to a folder."""
        try:
            mode = self.root.joinpath(*parts).stat().st_mode
        except OSError as error:
            named = {errno.ENOENT: "link_dangling", errno.ENOTDIR: "link_dangling", errno.ELOOP: "link_loop"}
            self.found.append((parts, named.get(error.errno or 0, f"unreadable: {error.strerror}")))
            return False
        if stat.S_ISDIR(mode):
            self.folder_links.append(parts)
        elif stat.S_ISREG(mode):
            self.file_links.append(parts)
        else:
            self.found.append((parts, "special_file"))
        return stat.S_ISDIR(mode)

    def follow_folder(self, parts: Parts) -> None:
        """A hidden link is followed only where it leads to a Maildir, as a folder of a Maildir++ may."""
        path = self.root.joinpath(*parts)
        true = path.resolve()
        above = (self.root.joinpath(*parts[:depth]).resolve() for depth in range(len(parts)))
        maildir = parts[-1] in _MAILDIR or any(os.access(path / name, os.F_OK) for name in ("cur", "new"))
        if any(folder.is_relative_to(true) for folder in above):
            self.found.append((parts, "link_loop"))
        elif true in self.seen:
            self.found.append((parts, "link_seen_before"))
        elif not maildir and any(part.startswith(".") for part in parts):
            self.found.append((parts, "hidden"))
        else:
            self.walk(parts)

    def follow_file(self, parts: Parts) -> None:
        true = self.root.joinpath(*parts).resolve()
        if true in self.seen or (true.parent in self.seen and not true.name.startswith(".")):
            self.found.append((parts, "link_seen_before"))
            return
        self.found.append((parts, None))
        if not self._hidden(parts):
            self.seen.add(true)

    def _maildir_of(self, parts: Parts) -> Parts | None:
        return parts[:-2] if len(parts) > 1 and parts[-2] in _MAILDIR and parts[:-2] in self.maildirs else None

    def _hidden(self, parts: Parts) -> bool:
        """Files and folders whose names begin with a dot, but for the folders of a Maildir++ (``.Spam/cur``)."""
        shown = self._maildir_of(parts) is not None or parts[:-1] in self.maildirs
        return any(part.startswith(".") for part in (parts[-1:] if shown else parts))

    def entry(self, parts: Parts, reason: str | None) -> Entry:
        maildir = self._maildir_of(parts)
        top = parts[:-1] if maildir is None else maildir
        group = (top[0].lstrip(".") or top[0]) if top else self.name
        if reason is None and self._hidden(parts):
            reason = "system_file" if system_file(parts[-1]) else "hidden"
        elif reason is None and maildir is not None and parts[-2] == "tmp":
            reason = "maildir_not_delivered"
        return Entry(parts, group, reason, maildir is not None, parts[:-1] in self.maildirs)


def _is_maildir(shape: set[str]) -> bool:
    """``cur`` with one of the other two, or files whose names say it: programs leave out folders that are empty."""
    return "named" in shape or ("cur" in shape and len(shape) > 1)
