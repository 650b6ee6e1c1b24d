"""Whether a port can be listened on, before a server is started that would say so in a page of traceback.

python -m service.port PORT=3000 [NAME=NUMBER ...]     one line and exit code 1 where one cannot
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
    """A port that nobody can listen on; the message names it, what is wrong and what to do."""


def check_port(name: str, value: str, host: str = LOOPBACK) -> None:
    """Raises PortError where ``value``, of the variable or option ``name``, is no port or is taken on ``host``."""
    given = value.strip()
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:10]) <= 65_535):
        raise PortError(f"{name} = {value!r}: expected a whole number from 1 to 65535")
    port = int(given)
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        raise PortError(f"--host = {host!r}: expected an IP address, as in --host=127.0.0.1") from None
    with socket.socket(family) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: what is closing does not count
        try:
            opened.bind((host, port))
            opened.listen()
        except OSError as error:
            raise PortError(
                f"{name} = {port}: cannot listen on {host}:{port} ({os.strerror(error.errno or 0)}): "
                f"stop what uses it, or choose another port, as in {name}={port + 1 if port < 65_535 else 3000}"
            ) from None


def check_served_port() -> None:
    """End the process with one line where the port that `bentoml serve` was called with cannot be listened on."""
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "serve":  # started by a program, which has its own way to say it
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
