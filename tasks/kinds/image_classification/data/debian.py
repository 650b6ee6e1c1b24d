"""Data sets published as Debian packages: downloaded once by apt-get, verified, and read without being installed.

The pointer file names the package, its version, the size and the SHA-256 of its file (as ``apt-cache show`` prints them), and
the folder in it that holds the data. A .deb is an ar archive (``man 5 deb``); no program of Debian is needed to read one.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tasks.data import pointers
from tasks.files import atomic_write
from tasks.stage import StageError

_MAGIC = b"!<arch>\n"
_HEADER = 60
"""Bytes of the header of a member of an ar archive; its size stands in bytes 48 to 57."""


class Pointer(pointers.Pointer):
    """The committed file that points to the data: the package, its version and its checksum."""

    file: str
    """The name of the package's file below the folder of downloads."""
    size: int
    sha256: str
    folder: str
    """The folder in the package whose files are the data."""


def read_pointer(path: Path) -> Pointer:
    """Raises StageError."""
    return pointers.read_pointer(path, Pointer, "a pointer file to a Debian package")


def fetch(pointer: Pointer, downloads: Path) -> Path:
    """The package's file below ``downloads``, downloaded on the first call only. Raises StageError."""
    target = downloads / pointer.file
    if target.exists() and fault(target, pointer) is None:
        return target
    if shutil.which("apt-get") is None:
        raise StageError(
            f"ingest.source = debian: there is no apt-get here; put {pointer.file} into {downloads}, or read the data with"
            " ingest.source = idx, npz or folder"
        )
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads) as folder:
        wanted = f"{pointer.package}={pointer.version}"
        process = subprocess.run(
            ["apt-get", "download", "--quiet", wanted],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        files = list(Path(folder).glob("*.deb"))
        if process.returncode or not files:
            reason = (process.stderr.strip() or process.stdout.strip() or "no file came").splitlines()[-1]
            raise StageError(
                f"apt-get download {wanted} failed ({reason}); run `apt-get update`, or put {pointer.file} into {downloads}"
            )
        if (wrong := fault(files[0], pointer)) is not None:
            raise StageError(f"{wanted}: {wrong}")
        with atomic_write(target) as temporary:
            shutil.move(files[0], temporary)
    return target


def fault(path: Path, pointer: Pointer) -> str | None:
    """How ``path`` differs from what the pointer file says; None: it does not."""
    if (size := path.stat().st_size) != pointer.size:
        return f"its size is {size}, the pointer file says {pointer.size}"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return None if digest == pointer.sha256 else f"its SHA-256 is {digest}, the pointer file says {pointer.sha256}"


def files_in(package: Path, folder: str) -> dict[str, bytes]:
    """The files directly below ``folder`` in a package, by name. Raises StageError for one that cannot be read."""
    try:
        with tarfile.open(fileobj=io.BytesIO(_data_archive(package.read_bytes()))) as tar:
            found = {
                Path(member.name).name: file.read()
                for member in tar
                if member.isfile() and Path(member.name).parent == Path(folder) and (file := tar.extractfile(member))
            }
    except (ValueError, tarfile.TarError, EOFError, OSError) as error:
        raise StageError(f"{package}: cannot be read as a Debian package: {error}") from error
    if not found:
        raise StageError(f"{package}: holds no file below {folder}")
    return found


def _data_archive(package: bytes) -> bytes:
    """The member ``data.tar.*`` of an ar archive. Raises ValueError."""
    place = len(_MAGIC)
    while package.startswith(_MAGIC) and place + _HEADER <= len(package):
        name, size = package[place : place + 16].decode("ascii").strip(), int(package[place + 48 : place + 58])
        place += _HEADER
        if name.startswith("data.tar"):
            return package[place : place + size]
        place += size + size % 2
    raise ValueError("it has no member data.tar")
