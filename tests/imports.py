"""Which local modules a module needs, read from its import statements."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAIL = ROOT / "workloads/mail"
FLOORS = ("service", "tasks", "flows")


def local_imports(path: Path) -> set[Path]:
    """Files of this project that ``path`` imports by name; packages' empty ``__init__`` files are not work."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            file = ROOT / (name.replace(".", "/") + ".py")
            if name.split(".")[0] in FLOORS and file.exists():
                found.add(file)
    return found


def closure(path: Path) -> set[Path]:
    """``path`` and all local modules that it imports, transitively."""
    seen: set[Path] = set()
    todo = [path]
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += local_imports(file)
    return seen
