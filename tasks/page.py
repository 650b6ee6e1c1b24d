"""Pages that open anywhere: one HTML file each, from a template beside the module that fills it, nothing fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FRAME = Path(__file__).with_name("page.html.j2")
"""What such a template extends: the style is in it, so that a page needs no second file."""


def render(template: Path, **values: Any) -> str:
    """A page from its template, which extends ``page.html.j2``; everything that came from outside is escaped."""
    places = FileSystemLoader([template.parent, FRAME.parent])
    return Environment(loader=places, autoescape=True, undefined=StrictUndefined).get_template(template.name).render(**values)


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
