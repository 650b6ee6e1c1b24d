"""API keys and access control. Only hashes of the keys are stored.

    python -m service.access add NAME --scope classify --scope feedback     prints a new key, once
    python -m service.access list
    python -m service.access remove NAME

Several keys are valid at once: to rotate a key, add the new one before removing the old one. The service applies a change
of the file with the next request. If the keys cannot be checked, all requests are refused.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import hmac
import ipaddress
import json
import logging
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from service.config import ConfigError, read_config
from service.episode_log import EpisodeLog, reason_of
from service.refused import Refused

log = logging.getLogger("restill.access")

SCOPES = ("classify", "feedback")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_HASH = re.compile(r"[0-9a-f]{64}")
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via", "origin")
"""Headers of a request that only appears local: a proxy forwarded it, or a web page in a browser sent it."""


class KeysError(Exception):
    """An invalid key file; the message names the file and the error."""


@dataclass(frozen=True)
class Key:
    name: str
    scopes: tuple[str, ...]
    hash: str
    """SHA-256 of the key in hexadecimal. A key has 256 random bits, so a slow hash is not needed."""


def hash_key(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(path: Path) -> list[Key]:
    """The keys in a file; empty if there is no file. Raises KeysError if its format is not that of ``add``."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise KeysError(f"{path}: cannot be read: {error}") from error
    if not isinstance(stored, list):
        raise KeysError(f"{path}: expected a list of keys, found {type(stored).__name__}")
    return [_parse_key(entry, f"{path}: key {number}") for number, entry in enumerate(stored, start=1)]


def _parse_key(entry: object, place: str) -> Key:
    if not isinstance(entry, dict) or entry.keys() != {"name", "scopes", "hash"}:
        raise KeysError(f"{place}: expected an object with name, scopes and hash")
    name, scopes, key_hash = entry["name"], entry["scopes"], entry["hash"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise KeysError(f"{place}: a name has 1 to 40 letters, digits, dots, lines or underscores")
    if not isinstance(key_hash, str) or not _HASH.fullmatch(key_hash):
        raise KeysError(f"{place}: the hash is no SHA-256 in hexadecimal")
    if not isinstance(scopes, list) or not scopes or any(scope not in SCOPES for scope in scopes):
        raise KeysError(f"{place}: scopes are {' and '.join(SCOPES)}, at least one")
    return Key(name, tuple(scopes), key_hash)


def match(keys: list[Key], key: str) -> Key | None:
    """The stored key that ``key`` matches. All keys are compared, each in constant time, so timing reveals nothing."""
    key_hash, matched = hash_key(key), None
    for stored in keys:
        if hmac.compare_digest(stored.hash, key_hash):
            matched = stored
    return matched


class Access:
    """Authenticates each request by the current key file. In ``dev`` mode, while there is no key, local clients need none."""

    def __init__(self, path: Path, dev: bool, salt: bytes) -> None:
        self._path, self._dev, self._salt = path, dev, salt
        self._file_version: tuple[int, int, int] | None = None
        self._keys: list[Key] = []
        self._episode = EpisodeLog(log, "the API keys cannot be read, and nobody is let in")

    def admit(self, headers: Mapping[str, str], client: str | None, scope: str) -> str:
        """The name of the client. Raises Refused: 401 without a valid key, 403 without the scope, 503 without readable keys."""
        keys = self._current_keys()
        sent_key = _sent_key(headers)
        if sent_key is None:
            if self._dev and not keys and _is_local(headers, client):  # once there is a key, it is required
                return "dev-" + hmac.digest(self._salt, str(client).encode(), "sha256").hex()[:8]
            raise Refused(401, _missing_key_sentence(keys))
        key = match(keys, sent_key)
        if key is None:
            raise Refused(401, "This API key is not known." if keys else _missing_key_sentence(keys))
        if scope not in key.scopes:
            raise Refused(403, f"This API key lacks the scope {scope}.")
        return key.name

    def _current_keys(self) -> list[Key]:
        try:
            self._reload()
        except (OSError, KeysError) as error:
            self._episode.report(reason_of(error) if isinstance(error, OSError) else str(error))
            raise Refused(503, "The API keys cannot be read; nobody is let in until they can.") from error
        self._episode.resolve()
        return self._keys

    def _reload(self) -> None:
        """Read the file if it has changed. Raises OSError or KeysError."""
        try:
            status = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._file_version, self._keys = None, []
            return
        version = (status.st_mtime_ns, status.st_size, status.st_ino)
        if version != self._file_version:
            self._file_version = None
            self._keys = read_keys(self._path)
            self._file_version = version


def _missing_key_sentence(keys: list[Key]) -> str:
    if keys:
        return "An API key is needed: send it as `Authorization: Bearer KEY`."
    command = "python -m service.access add NAME --scope classify"
    return f"No API key is set, so nobody is let in: run `{command}` where the service runs."


def _sent_key(headers: Mapping[str, str]) -> str | None:
    """The key in the request headers, or None. Another authorization scheme counts as a wrong key, not as none."""
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, key = authorization.partition(" ")
        return key.strip() if scheme.lower() == "bearer" else ""
    return headers.get("x-api-key")


def _is_local(headers: Mapping[str, str], client: str | None) -> bool:
    try:
        loopback = client is not None and ipaddress.ip_address(client).is_loopback
    except ValueError:
        return False
    return loopback and not any(name in headers for name in _PROXY_HEADERS)


# --- the command ------------------------------------------------------------------------------------------------


@contextmanager
def _edit_keys(path: Path) -> Iterator[list[Key]]:
    """Lock the key file and yield its keys, to be changed in place; the file is then replaced atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = read_keys(path)
        yield keys
        temporary = path.with_name(f".{path.name}.tmp")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(json.dumps([asdict(key) for key in keys], indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def add(path: Path, name: str, scopes: list[str]) -> str:
    """Add a key and return it; only its hash is stored. Raises KeysError if the name is taken or invalid."""
    key = f"restill_{secrets.token_urlsafe(32)}"
    entry = _parse_key({"name": name, "scopes": scopes, "hash": hash_key(key)}, name)
    with _edit_keys(path) as keys:
        if any(other.name == name for other in keys):
            raise KeysError(f"{name}: there is a key of this name; remove it first, or choose another name")
        keys.append(entry)
    return key


def remove(path: Path, name: str) -> None:
    """Remove a key. Raises KeysError if no key has this name."""
    with _edit_keys(path) as keys:
        remaining = [key for key in keys if key.name != name]
        if len(remaining) == len(keys):
            raise KeysError(f"{name}: there is no such key; there are {', '.join(key.name for key in keys) or 'none'}")
        keys[:] = remaining


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m service.access", description="API keys of the service.")
    commands = parser.add_subparsers(dest="command", required=True)
    add_command = commands.add_parser("add", help="make a key and print it, once")
    add_command.add_argument("name")
    add_command.add_argument("--scope", action="append", required=True, choices=SCOPES)
    commands.add_parser("list", help="names and scopes")
    commands.add_parser("remove", help="a key that is removed is refused at once").add_argument("name")
    options = parser.parse_args(arguments)
    try:
        path = read_config(os.environ).keys
        if options.command == "add":
            print(add(path, options.name, options.scope))
        elif options.command == "remove":
            remove(path, options.name)
        else:
            for key in read_keys(path):
                print(key.name, *key.scopes)
    except (ConfigError, KeysError, OSError) as error:
        sys.exit(f"access: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
