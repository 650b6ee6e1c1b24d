"""The release in service, and hot swaps to another one between two requests.

The store's pointer names the champion. A thread polls it, loads that release, verifies it (manifest, probes) and warms it up
while the current one serves; then one reference is changed. The previous release stays in memory, so a rollback needs no
loading. A release that fails verification is refused with a reason, and the current one stays in service.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from service.release import Release, ReleaseError
from service.store import Pointer, StoreError, read_pointer, release_folder

log = logging.getLogger("restill.swap")

RETRY_SECONDS = 30.0
"""How often a refused release is tried again while the pointer still names it."""

Listener = Callable[[str, "HotSwap"], None]
"""Called after a release was ``swapped`` in or ``refused``, or after a refusal was ``settled``."""


class HotSwap:
    """The release in service. Handlers read ``current`` once per request and keep using that release."""

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

    @property
    def routes(self) -> Collection[str]:
        """The routes of the served release's kind; none where no release is served."""
        return self.current.serving.routes if self.current is not None else ()

    def state(self) -> dict[str, Any]:
        """The served and the refused release, as JSON for the status routes."""
        current, previous = self.current, self._previous
        return {
            "release": current.id if current else None,
            "token": self.token,
            "previous": previous.id if previous else None,
            "refused": self.refused,
        }

    def watch(self, seconds: float) -> None:
        """Check the pointer every ``seconds`` in a thread, until ``stop``. A fixed release is never swapped."""
        if self._fixed is None:
            self._thread = threading.Thread(target=self._poll, args=(seconds,), name="swap", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(10)

    def check(self) -> None:
        """Check the pointer once, and swap if it names another release."""
        try:
            pointer = read_pointer(self._store)
        except StoreError as error:
            self._refuse("pointer", self._public_reason(error), 0)
            return
        if pointer is None:
            return
        if self.current is not None and self.current.id == pointer.champion:
            self.token = pointer.token
            if self.refused is not None:
                self.refused = None
                self._notify("settled")
            return
        if self._is_refused(pointer) and time.monotonic() < self._retry_at:
            return
        self._swap_to(pointer)

    def _start(self, packed: Path) -> None:
        """Load the first release: the fixed one; otherwise the champion, its predecessor or the packed one."""
        if self._fixed is not None:
            self._activate(self._load(self._fixed))  # a configured folder has no fallback
            return
        self.check()
        for folder in (*self._fallbacks(), packed):
            if self.current is not None:
                return
            try:
                self._activate(self._load(folder), refused=self.refused)
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

    def _poll(self, seconds: float) -> None:
        while not self._stopping.wait(seconds):
            try:
                self.check()
            except Exception as error:  # the thread must survive any error of a release, to be able to replace it
                self._refuse("unknown", f"{type(error).__name__}: {error}", 0)

    def _swap_to(self, pointer: Pointer) -> None:
        try:
            if self._previous is not None and self._previous.id == pointer.champion:
                release = self._previous  # verified when it was loaded; changes on the disk do not affect it
            else:
                release = self._load(release_folder(self._store, pointer.champion))
                if release.id != pointer.champion:
                    raise ReleaseError(f"the folder of {pointer.champion} holds the release {release.id}")
        except (ReleaseError, StoreError) as error:
            self._refuse(pointer.champion, self._public_reason(error), pointer.token)
            return
        self._activate(release, pointer.token)

    def _load(self, folder: Path) -> Release:
        """Load and warm up. Raises ReleaseError for any failure."""
        try:
            release = Release(folder)
            release.warm_up()
        except ReleaseError:
            raise
        except Exception as error:  # a manifest proves that files are unchanged, not that they are valid
            raise ReleaseError(f"{folder}: does not load: {type(error).__name__}: {error}") from error
        return release

    def _activate(self, release: Release, token: int = 0, refused: dict[str, Any] | None = None) -> None:
        previous = self.current
        self.current = release
        self._previous, self.token, self.refused = previous, token, refused
        log.info("release %s answers%s", release.id, f" in place of {previous.id}" if previous else "")
        self._notify("swapped")

    def _refuse(self, release: str, reason: str, token: int) -> None:
        refused = {"release": release, "reason": reason, "token": token}
        if refused != self.refused:
            current = self.current.id if self.current else "none"
            log.error("release %s is refused, %s goes on: %s", release, current, reason)
            self.refused = refused
            self._notify("refused")
        self._retry_at = time.monotonic() + RETRY_SECONDS

    def _is_refused(self, pointer: Pointer) -> bool:
        """Whether this change of the pointer was refused before."""
        refused = self.refused
        return refused is not None and (refused["release"], refused["token"]) == (pointer.champion, pointer.token)

    def _public_reason(self, error: Exception) -> str:
        """The error without the paths of this machine, for public responses."""
        return str(error).replace(f"{self._store}/", "")

    def _notify(self, event: str) -> None:
        if self._listener is not None:
            self._listener(event, self)
