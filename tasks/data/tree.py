"""All files below a folder, each once: its path, its source group, and the reason where it must not be opened.

Symbolic links are followed, but no folder or file is read twice: files of the tree itself come first, then links to folders,
then links to files, each sorted by name. So there are as many entries as files and links not followed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

_SYSTEM = re.compile(r"(?:ehthumbs(?:_vista)?|thumbs)\.db|desktop\.ini|\.ds_store|\._.*|\.directory|icon\r", re.I | re.S)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

Parts = tuple[str, ...]
"""The path below the root: names of folders, and of the file."""

_MAILDIR = frozenset({"cur", "new", "tmp"})
_MAILDIR_NAME = re.compile(r"\d{9,}[._].+|.*[:;!]2,[A-Za-z]*", re.S)
"""A file name in a Maildir: the time and two more words; flags (after the colon, or its substitute on Windows)."""


@dataclass(frozen=True)
class Entry:
    """One file, or one link or folder that is not followed; ``reason`` says why it must not be opened."""

    parts: Parts
    group: str
    """The first folder below the root, for a Maildir++ without its dot; the root's own name for files directly in it."""
    reason: str | None
    one_message: bool
    """In a Maildir, where each file is one message."""
    index: bool
    """Beside a Maildir's messages, where a file without a message is an index."""


def entries(root: Path) -> list[Entry]:
    """All files below ``root``, sorted by path."""
    tree = _Tree(root)
    tree.walk(())
    while tree.folder_links:
        links, tree.folder_links = sorted(tree.folder_links), []
        for parts in links:
            tree.follow_folder(parts)
    for parts in sorted(tree.file_links):
        tree.follow_file(parts)
    return sorted((tree.entry(parts, reason) for parts, reason in tree.files), key=lambda entry: entry.parts)


class _Tree:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = root.absolute().name
        self.files: list[tuple[Parts, str | None]] = []
        self.folder_links: list[Parts] = []
        self.file_links: list[Parts] = []
        self.maildirs: set[Parts] = set()
        self.seen: set[Path] = set()
        """The real paths of folders whose files are read, and of files behind links."""

    def walk(self, top: Parts) -> None:
        """Find the files below ``top``; links are collected for later."""
        shapes: dict[Parts, set[str]] = {}
        folders = {top: self.root.joinpath(*top).resolve()}
        stack = [top]
        while stack:
            parts = stack.pop()
            for subfolder in self._scan(parts, folders[parts], shapes):
                folders[subfolder] = folders[parts] / subfolder[-1]
                stack.append(subfolder)
        self.maildirs |= {parts for parts, shape in shapes.items() if _is_maildir(shape)}
        self.seen |= {real for parts, real in folders.items() if not self._hidden((*parts, "file"))}

    def _scan(self, parts: Parts, real: Path, shapes: dict[Parts, set[str]]) -> list[Parts]:
        """Read one folder: record its files and its shape, and return its subfolders."""
        subfolders = []
        try:
            with os.scandir(self.root.joinpath(*parts)) as listing:
                for item in listing:
                    child = (*parts, item.name)
                    is_folder = self._record_link(child) if item.is_symlink() else item.is_dir(follow_symlinks=False)
                    if is_folder and item.name in _MAILDIR:
                        shapes.setdefault(parts, set()).add(item.name)
                    elif parts and parts[-1] in ("cur", "new") and _MAILDIR_NAME.fullmatch(item.name):
                        shapes.setdefault(parts[:-1], set()).add("named")
                    if is_folder and not item.is_symlink():
                        if real / item.name in self.seen:
                            self.files.append((child, "link_seen_before"))
                        else:
                            subfolders.append(child)
                    elif not item.is_symlink():
                        self.files.append((child, None if item.is_file(follow_symlinks=False) else "special_file"))
        except OSError as error:
            self.files.append((parts, f"unreadable: {error.strerror}"))
        return subfolders

    def _record_link(self, parts: Parts) -> bool:
        """Collect a link for later, or record why it cannot be followed; returns whether it leads to a folder."""
        try:
            mode = self.root.joinpath(*parts).stat().st_mode
        except OSError as error:
            reasons = {errno.ENOENT: "link_dangling", errno.ENOTDIR: "link_dangling", errno.ELOOP: "link_loop"}
            self.files.append((parts, reasons.get(error.errno or 0, f"unreadable: {error.strerror}")))
            return False
        if stat.S_ISDIR(mode):
            self.folder_links.append(parts)
        elif stat.S_ISREG(mode):
            self.file_links.append(parts)
        else:
            self.files.append((parts, "special_file"))
        return stat.S_ISDIR(mode)

    def follow_folder(self, parts: Parts) -> None:
        """Follow a link to a folder; a hidden one only where it leads to a Maildir, as in a Maildir++."""
        path = self.root.joinpath(*parts)
        real = path.resolve()
        ancestors = (self.root.joinpath(*parts[:depth]).resolve() for depth in range(len(parts)))
        maildir = parts[-1] in _MAILDIR or any(os.access(path / name, os.F_OK) for name in ("cur", "new"))
        if any(folder.is_relative_to(real) for folder in ancestors):
            self.files.append((parts, "link_loop"))
        elif real in self.seen:
            self.files.append((parts, "link_seen_before"))
        elif not maildir and any(part.startswith(".") for part in parts):
            self.files.append((parts, "hidden"))
        else:
            self.walk(parts)

    def follow_file(self, parts: Parts) -> None:
        real = self.root.joinpath(*parts).resolve()
        if real in self.seen or (real.parent in self.seen and not real.name.startswith(".")):
            self.files.append((parts, "link_seen_before"))
            return
        self.files.append((parts, None))
        if not self._hidden(parts):
            self.seen.add(real)

    def _maildir_of(self, parts: Parts) -> Parts | None:
        return parts[:-2] if len(parts) > 1 and parts[-2] in _MAILDIR and parts[:-2] in self.maildirs else None

    def _hidden(self, parts: Parts) -> bool:
        """Whether a name on the path begins with a dot, except for the folders of a Maildir++ (``.Spam/cur``)."""
        in_maildir = self._maildir_of(parts) is not None or parts[:-1] in self.maildirs
        return any(part.startswith(".") for part in (parts[-1:] if in_maildir else parts))

    def entry(self, parts: Parts, reason: str | None) -> Entry:
        maildir = self._maildir_of(parts)
        top = parts[:-1] if maildir is None else maildir
        group = (top[0].lstrip(".") or top[0]) if top else self.name
        if reason is None and self._hidden(parts):
            reason = "system_file" if is_system_file(parts[-1]) else "hidden"
        elif reason is None and maildir is not None and parts[-2] == "tmp":
            reason = "maildir_not_delivered"
        return Entry(parts, group, reason, maildir is not None, parts[:-1] in self.maildirs)


def _is_maildir(shape: set[str]) -> bool:
    """``cur`` with one of the other two, or files named as in a Maildir: some programs omit empty folders."""
    return "named" in shape or ("cur" in shape and len(shape) > 1)


def is_system_file(name: str) -> bool:
    """Whether operating systems create files of this name."""
    return bool(_SYSTEM.fullmatch(name))


def in_utf8(name: str, mark: str = "") -> str:
    """``name``, or where it is not UTF-8 or holds control characters, ``mark`` and its bytes as ``%E9`` (RFC 3986)."""
    raw = os.fsencode(name)  # the bytes are the name: Python's decoding depends on the locale
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = ""
    return text if text and not _CONTROL.search(text) else mark + quote(raw)
