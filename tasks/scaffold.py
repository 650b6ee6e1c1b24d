"""`make new`: the folder of another workload, with the parameters of the first one of its kind.

    python -m tasks.scaffold NAME [--kind KIND]

What only fits the other workload's data is replaced: its source, and what its kind names. What exists stays.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from tasks.files import atomic_write
from tasks.kinds import DataPart, data_part, kind_of
from tasks.stage import WORKLOADS, Paths, StageError, project_folder, read_params, workloads
from tasks.tune.space import edit_yaml

README = """# {name}

What it is, where its data come from, and under which licence. Put the data where `ingest.path` of `params.yaml` says, then

    . .venv/bin/activate && dvc repro ingest@{name} && python -m tasks.data.validate --workload {name} --propose --write

writes the rules of the block `validate` as they were measured: look at them, then `make run WORKLOAD={name}`.
"""


def parameters(text: str, kind: DataPart) -> str:
    """``params.yaml`` of a workload with what only fits its own data replaced; every other line, comments too, as it is."""
    text, found = re.subn(r"^ingest:\n(?:(?:[ #].*)?\n)*", lambda _: f"{kind.OWN_INGEST}\n", text, count=1, flags=re.M)
    for block, empty in kind.EMPTIED.items():
        text = re.sub(rf"^(  {block}:)[^\n]*\n(?:    .*\n)+", rf"\1 {empty}\n", text, flags=re.M)
    if not found:
        raise StageError("params.yaml: its block ingest does not stand by itself: copy the folder by hand")
    return edit_yaml(text, {"prepare.positive": None})


def example_of(kind: str | None, project: Path) -> Path:
    """The folder of the first workload of ``kind``; None: of whatever kind. Raises StageError where there is none."""
    folders = [project / WORKLOADS / name for name in workloads(project)]
    wanted = None if kind is None else kind.replace("-", "_")
    for folder in folders:
        if wanted is None or read_params(folder).get("kind") == wanted:
            return folder
    there = ", ".join(sorted({str(read_params(folder).get("kind")) for folder in folders}))
    raise StageError(f"KIND = {kind}: no workload is of this kind, whose parameters could be taken; there are {there}")


def scaffold(project: Path, name: str, kind: str | None = None) -> Path:
    """Make the workload ``name`` of ``kind`` (null: the first workload's) and enter it in ``params.yaml``; its folder.

    Raises StageError where that cannot be.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise StageError(f"WORKLOAD = {name!r}: expected a name of small letters, digits, - and _")
    known, folder = workloads(project), project / WORKLOADS / name
    if name in known or folder.exists():
        raise StageError(f"WORKLOAD = {name}: workloads/{name} is there already")
    example = example_of(kind, project)
    part = data_part(kind_of(Paths(example)))
    text = parameters((example / "params.yaml").read_text(encoding="utf-8"), part)
    with atomic_write(folder) as temporary:
        (temporary / "data").mkdir(parents=True)
        for file, content in (
            ("params.yaml", text),
            ("README.md", README.format(name=name)),
            ("data/feedback.jsonl", ""),
            ("data/rivals.json", "{}\n"),
        ):
            (temporary / file).write_text(content, encoding="utf-8")
    shared = project / "params.yaml"
    with atomic_write(shared) as temporary:
        temporary.write_text(edit_yaml(shared.read_text(encoding="utf-8"), {WORKLOADS: [*known, name]}), encoding="utf-8")
    read_params(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tasks.scaffold", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", help="what the workload is called")
    parser.add_argument("--kind", help="what sort of model it is; default: the first workload's")
    given = parser.parse_args()
    try:
        folder = scaffold(project_folder(), given.name, given.kind)
    except StageError as error:
        sys.exit(f"new: {error}")
    print(f"{folder}: say in its params.yaml where the data are; its README.md has the next commands")


if __name__ == "__main__":
    main()
