"""Rules for the stage validate, measured from the corpus itself, for a person to review and put into params.yaml.

    python -m tasks.data.validate --propose           # print the block
    python -m tasks.data.validate --propose --write   # and replace the one in params.yaml

The measured corpus always passes these rules: the comments state what was measured, and a person has to judge whether that is
as it should be.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pandas as pd
import yaml

from tasks.data.proposal import Line, bound_line, percent, round_down, upper_bound_line
from tasks.data.rules import measure
from tasks.files import atomic_write
from tasks.kinds import DataPart, data_part, kind_of
from tasks.stage import Paths, StageError, read_params

COMMENT_AT = 34
"""The column of comments in params.yaml."""
SLACK_DAYS = 30
BLOCK = re.compile(r"^validate:[^\n]*(?:\n|\Z)(?:(?:[ \t]*\r?\n|#[^\n]*\n)*[ \t]+\S[^\n]*(?:\n|\Z))*", re.MULTILINE)
"""The block of params.yaml, without the blank lines and comments before the next one."""


def propose(corpus: pd.DataFrame, kind: DataPart) -> str:
    """The block ``validate`` of params.yaml for ``corpus``, as written by the stage ingest; each line says what was measured.

    Row rules are measured on all rows, the others on those known before ``ingest.until``, as in validate. Raises StageError
    where no row is left to measure.
    """
    rows = measure(corpus, kind)
    usable = kind.usable(rows) & rows.label.notna()
    known = corpus.known.astype(bool)
    snapshot = measure(corpus[usable & known], kind)
    if snapshot.empty:
        raise StageError(f"none of the {known.sum():,} known rows of corpus.parquet can be read: there is nothing to measure")
    counts = snapshot.label.value_counts().sort_index()
    unknown_later = int((usable & ~known & ~rows.label.isin(counts.index)).sum())
    later = f"; {unknown_later:,} later rows have other labels: quarantined" if unknown_later else ""
    lines: list[Line] = [
        ("validate:", f"measured on {len(corpus):,} rows of data/corpus.parquet, {len(snapshot):,} of them known and usable"),
        ("  labels:", f"{len(counts)} found{later}"),
        *(
            (f"    - {as_yaml(str(label))}", f"{count:,} rows, {percent(count / len(snapshot))}")
            for label, count in counts.items()
        ),
        ("  row_rules:", "a row that breaks one goes to data/quarantine/validate.csv"),
        *((f"    {text}", comment) for text, comment in row_lines(rows, usable, kind)),
        *((f"  {text}", comment) for text, comment in share_lines(snapshot, counts, kind)),
    ]
    width = max(COMMENT_AT - 2, *(len(text) for text, _ in lines if "severity" in text))
    return "".join(f"{text.ljust(width if 'severity' in text else COMMENT_AT - 2)}  # {comment}\n" for text, comment in lines)


def row_lines(rows: pd.DataFrame, usable: pd.Series, kind: DataPart) -> Iterator[Line]:
    """The lines of ``row_rules``: bounds somewhat wider than the range of the ``usable`` rows."""
    low, high, comment = time_range(rows.received[usable])
    yield f"received_from: {low}", comment
    yield f"received_until: {high}", "raise it where rows go on coming, or say null" if high != "null" else "any time"
    yield from kind.propose_row_rules(rows, usable)


def time_range(received: pd.Series) -> tuple[str, str, str]:
    """(first day, last day, observed range), as YAML: widened by a tenth on each side; null where no row has a time."""
    times = received.dropna().sort_values()
    if times.empty:
        return "null", "null", "no row has a time"
    first, last = times.iloc[0].date(), times.iloc[-1].date()
    middle = [times.iloc[int(share * (len(times) - 1))].date() for share in (0.01, 0.99)]
    slack = max(SLACK_DAYS, (last - first).days // 10)
    observed = f"seen {first} to {last}, the middle 98 % {middle[0]} to {middle[1]}"
    return _day(first.toordinal() - slack), _day(last.toordinal() + slack + 1), observed


def _day(ordinal: int) -> str:
    """The day as YAML; null where it is out of the calendar's range."""
    return f'"{date.fromordinal(ordinal)}"' if 1 <= ordinal <= date.max.toordinal() else "null"


def share_lines(snapshot: pd.DataFrame, counts: pd.Series, kind: DataPart) -> Iterator[Line]:
    """The rules for all rows together: half the measured value as a lower bound, half more as an upper bound."""
    yield bound_line("rows", low=max(1, len(snapshot) // 2)), f"{len(snapshot):,}"
    rarest = counts.min() / counts.sum()
    yield (
        bound_line("label_share", low=round_down(rarest / 2)),
        f"of each; the rarest: {counts.min():,} rows, {percent(rarest)}",
    )
    yield upper_bound_line("missing_time_share", snapshot.time_missing, 0.05)
    yield from kind.propose_bounds(snapshot)
    yield upper_bound_line("warning_share", snapshot.warned, 0.05, "soft")
    yield upper_bound_line("duplicate_share", snapshot.duplicate, 0.05, "soft")


def as_yaml(label: str) -> str:
    """``label`` as a YAML scalar that YAML 1.1 and 1.2 both read as this string: quoted, unless it is a plain word."""
    plain: str = yaml.safe_dump(label, allow_unicode=True).splitlines()[0]
    if plain == label and re.fullmatch(r"[^\W\d][\w-]*", label):
        return label
    quoted: str = yaml.safe_dump(label, default_style='"', allow_unicode=True, width=math.inf)
    return quoted.rstrip("\n")


def with_block(params: str, block: str) -> str:
    """The text of params.yaml with its block validate replaced by ``block``. Raises StageError where that is not safe."""
    newline = "\r\n" if "\r\n" in params else "\n"
    text, replaced = BLOCK.subn(lambda _: block.replace("\n", newline), params)
    before, after = yaml.safe_load(params), yaml.safe_load(text)
    if replaced != 1 or after != before | yaml.safe_load(block):
        raise StageError("params.yaml: its block validate does not stand by itself: put the proposed one there by hand")
    return text


def read_corpus(paths: Paths) -> pd.DataFrame:
    """data/corpus.parquet. Raises StageError where it is missing or empty."""
    name = paths.corpus.relative_to(paths.root)
    if not paths.corpus.exists():
        raise StageError(f"{name} is not there: `dvc repro ingest` makes it")
    corpus = pd.read_parquet(paths.corpus)
    if corpus.empty:
        raise StageError(f"{name} is empty: there is nothing to validate")
    return corpus


def print_proposal(paths: Paths) -> None:
    """Print rules measured from data/corpus.parquet as the block of params.yaml; look at them before you take them."""
    print(propose(read_corpus(paths), data_part(kind_of(paths))), end="")


def write_proposal(paths: Paths) -> None:
    """With --propose: also put the block into params.yaml, all else there as it is."""
    block = propose(read_corpus(paths), data_part(kind_of(paths)))
    read_params(paths.root)
    path: Path = paths.root / "params.yaml"
    text = with_block(path.read_bytes().decode("utf-8"), block)
    with atomic_write(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))
    print(block, end="")
