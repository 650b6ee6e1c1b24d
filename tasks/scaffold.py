"""`make new`: the folder of another workload, with the parameters of the first one and a table for its source.

    python -m tasks.scaffold NAME

What only fits the first workload's data (its source, labels, redactions and slices) is replaced. What exists stays.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from tasks.files import atomic_write
from tasks.stage import WORKLOADS, StageError, project_folder, read_params, workloads
from tasks.tune.space import edit_yaml

INGEST = """ingest:
  source: table                   # npm | table | folder: what path is
  path: data/table.csv            # an npm pointer file, a .csv/.jsonl/.parquet table, or a folder of messages
  until: null                     # the snapshot: what was received before, as "2026-01-31"; null: everything
  labels: {}                      # npm, folder: source group -> label; a group not named here is its own label
  label_table: null               # folder: a CSV below path with the columns file,label, in place of labels
  columns:                        # table: its names for our columns; null where it has none
    id: null
    received: null
    source: null
    label: label
    subject: null
    text: text
  feedback: data/feedback.jsonl   # what reviewers said of answered messages; a retraining writes it
  feedback_weight: 3.0            # a feedback message counts as so many: only some of the traffic gets a label
  label_mix_prior: 30.0           # feedback messages that the source's label mix counts as; null: labels weigh as in the source

"""
README = """# {name}

What it is, where its data come from, and under which licence. Put the data where `ingest.path` of `params.yaml` says, then

    . .venv/bin/activate && dvc repro ingest@{name} && python -m tasks.data.validate --workload {name} --propose --write

writes the rules of the block `validate` as they were measured: look at them, then `make run WORKLOAD={name}`.
"""


def parameters(text: str) -> str:
    """``params.yaml`` of a workload with what only fits its own data replaced; every other line, comments too, as it is."""
    text, found = re.subn(r"^ingest:\n(?:(?:[ #].*)?\n)*", lambda _: INGEST, text, count=1, flags=re.M)
    for block in ("redact", "slices"):
        empty = "[]" if block == "redact" else "{}"
        text = re.sub(rf"^(  {block}:)[^\n]*\n(?:    .*\n)+", rf"\1 {empty}\n", text, flags=re.M)
    if not found:
        raise StageError("params.yaml: its block ingest does not stand by itself: copy the folder by hand")
    return edit_yaml(text, {"prepare.positive": None})


def scaffold(project: Path, name: str) -> Path:
    """Make the workload ``name`` and enter it in ``params.yaml``; its folder. Raises StageError where that cannot be."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise StageError(f"WORKLOAD = {name!r}: expected a name of small letters, digits, - and _")
    known, folder = workloads(project), project / WORKLOADS / name
    if name in known or folder.exists():
        raise StageError(f"WORKLOAD = {name}: workloads/{name} is there already")
    text = parameters((project / WORKLOADS / known[0] / "params.yaml").read_text(encoding="utf-8"))
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
    try:
        folder = scaffold(project_folder(), parser.parse_args().name)
    except StageError as error:
        sys.exit(f"new: {error}")
    print(f"{folder}: say in its params.yaml where the data are; its README.md has the next commands")


if __name__ == "__main__":
    main()
