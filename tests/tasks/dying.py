"""A program that moves the pointer of a store in processes of its own, and has each killed where it is told.

It reads one order a line, {"call", "arguments", "at", "seconds"}: at the file operation number ``at`` of the call, or
after so many seconds, the process gets SIGKILL. It answers one line, {"signal", "operations"}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tasks.release import store

EVENTS = {"open", "os.rename", "os.mkdir", "os.chmod", "os.truncate", "os.remove", "os.rmdir"}
CALLS = {"add": store.add, "promote": store.promote, "rollback": store.rollback}


class Killer:
    """Counts the file operations of this process, and ends it at one of them."""

    def __init__(self, at: int | None) -> None:
        self.count = 0
        self.at = at
        self.write, self.fsync = os.write, os.fsync
        os.write, os.fsync = self.torn_write, self.no_fsync  # type: ignore[assignment]
        sys.addaudithook(lambda event, _: self.step() if event in EVENTS else None)

    def step(self) -> None:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def torn_write(self, file: int, data: bytes) -> int:
        """A process may die when half of its bytes are in the file."""
        if self.count + 1 == self.at:
            self.write(file, data[: len(data) // 2])
        self.step()
        return self.write(file, data)

    def no_fsync(self, file: int) -> None:
        self.step()
        self.fsync(file)


def obey(order: dict[str, Any], answers: int) -> None:
    arguments = order["arguments"] | {"store": Path(order["arguments"]["store"])}
    if "folder" in arguments:
        arguments["folder"] = Path(arguments["folder"])
    if order["seconds"] is not None:
        threading.Thread(target=lambda: (time.sleep(order["seconds"]), os.kill(os.getpid(), signal.SIGKILL))).start()
    killer = Killer(order["at"])
    CALLS[order["call"]](**arguments)  # type: ignore[operator]
    killer.write(answers, str(killer.count).encode())
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    for line in sys.stdin:
        answers, said = os.pipe()
        child = os.fork()
        if not child:
            try:
                obey(json.loads(line), said)
            finally:
                os._exit(1)
        os.close(said)
        _, status = os.waitpid(child, 0)
        operations = os.read(answers, 100).decode()
        os.close(answers)
        print(json.dumps({"signal": os.WTERMSIG(status), "operations": int(operations or 0)}), flush=True)


if __name__ == "__main__":
    main()
