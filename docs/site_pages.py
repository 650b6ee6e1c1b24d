"""Hook of MkDocs: README is the first page of the site, and each workload's README is a page of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")


def address(page: Path, link: str) -> str:
    """Where a file of the project that ``page`` links to lies in the site, from the site's root."""
    name = (page.parent / link).resolve().relative_to(ROOT)
    if name.parts[0] == "docs":
        return str(name.relative_to("docs"))
    if name.parts[0] == "workloads" and name.name == "README.md":
        return f"workloads/{name.parts[1]}.md"
    return "index.md" if str(name) == "README.md" else str(name)


def relinked(text: str, page: Path, place: str) -> str:
    """The text of ``page`` with its links as they are in the site, from ``place`` there."""
    up = "../" * place.count("/")

    def found(match: re.Match[str]) -> str:
        link, anchor = match[1], match[2] or ""
        return match[0] if "://" in link else f"]({up}{address(page, link)}{anchor})"

    return LINK.sub(found, text)


def on_files(files: Files, config: Any) -> Files:
    """Add README, the workloads' READMEs and the licence."""
    pages = {"index.md": ROOT / "README.md"}
    pages |= {f"workloads/{path.parent.name}.md": path for path in sorted((ROOT / "workloads").glob("*/README.md"))}
    for place, path in pages.items():
        text = relinked(path.read_text(encoding="utf-8"), path, place)
        files.append(File.generated(config, place, content=text))
    files.append(File.generated(config, "LICENSE", abs_src_path=str(ROOT / "LICENSE")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links of the pages of docs/ out of it."""
    path = ROOT / "docs" / page.file.src_uri
    return relinked(markdown, path, page.file.src_uri) if path.is_file() else markdown
