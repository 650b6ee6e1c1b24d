"""What a page loads: a reader of its addresses, and a browser without a network."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import tinycss2
from selectolax.lexbor import LexborHTMLParser, LexborNode

OUTSIDE = re.compile(r"\s*(?:(?:https?|wss?|ftp):)?//", re.I)
"""How an address begins that names a host."""
CLICKED = {"a", "area"}
"""Whose ``href`` is a reader's own step."""
ADDRESSES = (
    "src",
    "href",
    "xlink:href",
    "data",
    "poster",
    "background",
    "action",
    "formaction",
    "manifest",
    "longdesc",
    "ping",
)
CALLED = re.compile(
    r"""(?:\b(?:fetch|import|importScripts|sendBeacon|EventSource|WebSocket|Worker|Request)|\.open)"""
    r"""\s*\([^()]{0,40}?["'`]\s*(?:(?:https?|wss?):)?//[^"'`]*"""
    r"""|\.(?:src|srcset)\s*=\s*["'`]\s*(?:https?:)?//[^"'`]*"""
    r"""|(?:^|[;\s])import\s*(?:[\w{},*\s]+from\s*)?["'`]\s*(?:https?:)?//[^"'`]*""",
)
"""A script that asks a host which it names on the spot."""
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")


def outside(page: str) -> list[str]:
    """Every address of another host that a browser would ask to show ``page``, with the element that names it."""
    found = []
    for node in LexborHTMLParser(page).css("*"):
        found += [f"{node.tag}: {address.strip()}" for address in _loaded(node) if OUTSIDE.match(address)]
        if node.tag == "script":
            found += [f"script: {call[0].strip()}" for call in CALLED.finditer(node.text())]
    return found


def _loaded(node: LexborNode) -> Iterator[str]:
    values = {name: value or "" for name, value in node.attributes.items()}
    for name in ADDRESSES:
        if not (name == "href" and node.tag in CLICKED):
            yield values.get(name, "")
    yield from values.get("srcset", "").split(",")
    if values.get("http-equiv", "").lower() == "refresh":
        yield values.get("content", "").partition("=")[2].strip("'\" ")
    for style in (node.text() if node.tag == "style" else "", *(v for n, v in values.items() if n == "style" or "url(" in v)):
        yield from _of_style(tinycss2.parse_component_value_list(style))
    yield from (address.partition(": ")[2] for address in outside(values["srcdoc"])) if "srcdoc" in values else ()


def _of_style(tokens: list[Any]) -> Iterator[str]:
    """Addresses of ``url()``, ``image-set()`` and ``@import`` in a style sheet or an attribute."""
    imported = False
    for token in tokens:
        inner = getattr(token, "arguments", None) or getattr(token, "content", None) or []
        if token.type == "url":
            yield token.value
        elif token.type == "function" and token.lower_name in ("url", "src", "image-set", "-webkit-image-set"):
            yield from (part.value for part in inner if part.type == "string")
        elif token.type == "string" and imported:
            yield token.value
        yield from _of_style(inner)
        imported = (imported and token.type == "whitespace") or (token.type == "at-keyword" and token.lower_value == "import")


def browser() -> str | None:
    """The Chromium of this machine, if it has one."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


@dataclass(frozen=True)
class JudgedWindow:
    """What a browser made of a page."""

    text: str
    """Of what was rendered, each run of spaces as one."""
    asked: list[str]
    """What it wanted of other hosts."""
    said: str
    """Errors of scripts, among what a browser says."""


def opened(chromium: str, page: Path, folder: Path) -> JudgedWindow:
    """``page`` in a headless Chromium whose only way out is a proxy that answers nothing and notes each request."""
    asked: list[str] = []

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(502)

        do_CONNECT = do_POST = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-dev-shm-usage", "--enable-logging=stderr", f"--user-data-dir={folder}",
            f"--proxy-server=http://127.0.0.1:{proxy.server_address[1]}", "--virtual-time-budget=10000", "--dump-dom",
            page.absolute().as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=120, check=True)
        proxy.shutdown()
    rendered = LexborHTMLParser(done.stdout)
    rendered.strip_tags(["script", "style", "noscript"])
    return JudgedWindow(" ".join(rendered.body.text(separator=" ").split()) if rendered.body else "", asked, done.stderr)
