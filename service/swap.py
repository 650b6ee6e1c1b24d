"""Which release answers, and how another takes its place between two requests.

The store's pointer says who should answer. A thread looks at it, loads what it names, has it prove itself (manifest,
probes) and warms it up, all beside the release in service; then one reference is changed. The release before stays
in memory: going back to it takes no loading. What does not prove itself is refused with its reason, and the one in
service goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.release import Release, ReleaseError
from service.store import Pointer, StoreError, read_pointer, release_folder

log = logging.getLogger("restill.swap")

RETRY_SECONDS = 30.0
"""How often a refused release is tried again while the pointer still names it."""

Listener = Callable[[str, "Serving"], None]
"""Told, after it happened, that a release was ``swapped`` in or ``refused``, or that a refusal is ``settled``."""


class Serving:
    """The release in service. Handlers read ``current`` once a request and stay with what they got."""

    def __init__(self, store: Path, packed: Path, fixed: Path | None, listener: Listener | None = None) -> None:
        self.current: Release | None = None
        self.refused: dict[str, Any] | None = None
        self.token = 0
        self._previous: Release | None = None
        self._store, self._fixed = store, fixed
        self._listener = listener
        self._retry_at = 0.0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._start(packed)

    def state(self) -> dict[str, Any]:
        """What is served and what was refused, for whoever asks."""
        current, previous = self.current, self._previous
        return {
            "release": current.id if current else None,
            "token": self.token,
            "previous": previous.id if previous else None,
            "refused": self.refused,
        }

    def watch(self, seconds: float) -> None:
        """Look at the pointer every so often, in a thread, until ``stop``. A fixed release is never swapped."""
        if self._fixed is None:
            self._thread = threading.Thread(target=self._watch, args=(seconds,), name="swap", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(10)

    def check(self) -> None:
        """Look at the pointer once, and swap if it names another release."""
        try:
            pointer = read_pointer(self._store)
        except StoreError as error:
            self._refuse("pointer", self._plain(error), 0)
            return
        if pointer is None:
            return
        if self.current is not None and self.current.id == pointer.champion:
            self.token = pointer.token
            if self.refused is not None:
                self.refused = None
                self._tell("settled")
            return
        if self._is_refused(pointer) and time.monotonic() < self._retry_at:
            return
        self._follow(pointer)

    def _start(self, packed: Path) -> None:
        """The first release: the fixed one, or else the champion, the one before it, the packed one."""
        if self._fixed is not None:
            self._take(self._load(self._fixed))  # whoever names a folder wants that one or none
            return
        self.check()
        for folder in (*self._fallbacks(), packed):
            if self.current is not None:
                return
            try:
                self._take(self._load(folder), refused=self.refused)
            except ReleaseError as error:
                log.error("the release in %s cannot stand in: %s", folder, error)
        if self.current is None:
            log.error("no release can be served; waiting for the store to name one")

    def _fallbacks(self) -> list[Path]:
        try:
            pointer = read_pointer(self._store)
            return [release_folder(self._store, pointer.previous)] if pointer and pointer.previous else []
        except StoreError:
            log.error("the store's pointer cannot be read; the packed release stands in")
            return []

    def _watch(self, seconds: float) -> None:
        while not self._stopping.wait(seconds):
            try:
                self.check()
            except Exception as error:  # whatever a strange release does, the thread that could replace it must live
                self._refuse("unknown", f"{type(error).__name__}: {error}", 0)

    def _follow(self, pointer: Pointer) -> None:
        try:
            if self._previous is not None and self._previous.id == pointer.champion:
                release = self._previous  # proved when it was loaded; nothing on the disk can have changed it
            else:
                release = self._load(release_folder(self._store, pointer.champion))
                if release.id != pointer.champion:
                    raise ReleaseError(f"the folder of {pointer.champion} holds the release {release.id}")
        except (ReleaseError, StoreError) as error:
            self._refuse(pointer.champion, self._plain(error), pointer.token)
            return
        self._take(release, pointer.token)

    def _load(self, folder: Path) -> Release:
        """Raises ReleaseError, whatever it is that does not load."""
        try:
            release = Release(folder)
            release.warm_up()
        except ReleaseError:
            raise
        except Exception as error:  # a manifest proves that files are unchanged, not that they make sense
            raise ReleaseError(f"{folder}: does not load: {type(error).__name__}: {error}") from error
        return release

    def _take(self, release: Release, token: int = 0, refused: dict[str, Any] | None = None) -> None:
        before = self.current
        self.current = release
        self._previous, self.token, self.refused = before, token, refused
        log.info("release %s answers%s", release.id, f" in place of {before.id}" if before else "")
        self._tell("swapped")

    def _refuse(self, release: str, reason: str, token: int) -> None:
        refused = {"release": release, "reason": reason, "token": token}
        if refused != self.refused:
            current = self.current.id if self.current else "none"
            log.error("release %s is refused, %s goes on: %s", release, current, reason)
            self.refused = refused
            self._tell("refused")
        self._retry_at = time.monotonic() + RETRY_SECONDS

    def _is_refused(self, pointer: Pointer) -> bool:
        """Whether this very change of the pointer was refused before."""
        known = self.refused
        return known is not None and (known["release"], known["token"]) == (pointer.champion, pointer.token)

    def _plain(self, error: Exception) -> str:
        """A reason that strangers may read: without this machine's folders."""
        return str(error).replace(f"{self._store}/", "")

    def _tell(self, what: str) -> None:
        if self._listener is not None:
            self._listener(what, self)
