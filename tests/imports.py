"""Which files of the project a module needs, read from its import statements and from the parts of a kind that it loads."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAIL = ROOT / "workloads/mail"
FLOORS = ("service", "tasks", "flows")
LOADED = {
    "data_part": "tasks/kinds/{kind}/data",
    "model_part": "tasks/kinds/{kind}/model",
    "compress_part": "tasks/kinds/{kind}/compress",
    "release_part": "tasks/kinds/{kind}/release",
    "replay_part": "tasks/kinds/{kind}/replay",
    "serving_class": "service/kinds/{kind}/serving",
}
"""What loads a part of a kind by its name, and where that is."""


def imported_names(path: Path) -> set[str]:
    """Dotted names that ``path`` imports, those of ``if TYPE_CHECKING:`` too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def file_of(name: str) -> Path | None:
    """The file of a module or package of this project, by its dotted name."""
    base = ROOT / name.replace(".", "/")
    for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
        if name.split(".")[0] in FLOORS and file.exists():
            return file
    return None


def local_imports(path: Path) -> set[Path]:
    """Files of this project that ``path`` imports by name; empty ``__init__`` files are not work."""
    return {file for name in imported_names(path) if (file := file_of(name)) is not None and file.stat().st_size}


def closure(paths: Iterable[Path], kind: str) -> set[Path]:
    """``paths`` and all that they import, transitively, with the parts of ``kind`` that they load."""
    seen: set[Path] = set()
    todo = list(paths)
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += local_imports(file)
            loaded = {name.rpartition(".")[2] for name in imported_names(file)} & set(LOADED)
            parts = (file_of(LOADED[name].format(kind=kind).replace("/", ".")) for name in loaded)
            todo += [part for part in parts if part is not None]
    return seen
