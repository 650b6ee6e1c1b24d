"""Checks that a port is free before the server starts, whose own error would be a long traceback.

python -m service.port PORT=3000 [NAME=NUMBER ...]     prints one line and exits with 1 if a port is not free
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys

import click
from bentoml._internal.container import BentoMLContainer

LOOPBACK = "127.0.0.1"


class PortError(ValueError):
    """A port that cannot be used; the message names it, the cause and a remedy."""


def check_port(name: str, value: str, host: str = LOOPBACK) -> None:
    """Raises PortError if ``value``, of the variable or option ``name``, is not a port or is in use on ``host``."""
    digits = value.strip()
    if not (digits.isascii() and digits.isdigit() and 1 <= int(digits[:10]) <= 65_535):
        raise PortError(f"{name} = {value!r}: expected a whole number from 1 to 65535")
    port = int(digits)
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        raise PortError(f"--host = {host!r}: expected an IP address, as in --host=127.0.0.1") from None
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: closing connections do not count
        try:
            listener.bind((host, port))
            listener.listen()
        except OSError as error:
            raise PortError(
                f"{name} = {port}: cannot listen on {host}:{port} ({os.strerror(error.errno or 0)}): "
                f"stop what uses it, or choose another port, as in {name}={port + 1 if port < 65_535 else 3000}"
            ) from None


def check_served_port() -> None:
    """Exit with a one-line error if the port that was passed to `bentoml serve` is not free."""
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "serve":  # started by another program, which reports errors itself
        return
    port = context.params.get("port") or BentoMLContainer.http.port.get()
    host = context.params.get("host") or BentoMLContainer.http.host.get()
    try:
        check_port("--port", str(port), str(host))
    except PortError as error:
        sys.exit(f"restill: {error}")


def main(arguments: list[str]) -> None:
    try:
        for argument in arguments:
            name, _, value = argument.partition("=")
            check_port(name, value)
    except PortError as error:
        sys.exit(f"restill: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
