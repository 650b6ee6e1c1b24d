"""Robustness to obfuscated messages: how far the release's score changes although a reader sees the same message.

    python -m benchmarks.evasion

Twenty messages of each label of *test* are obfuscated in every way of ``benchmarks/obfuscations.py`` and scored as by the route
``/classify_mail``. Prints a table: mean and largest change of the score.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.obfuscations import OBFUSCATIONS, ParsedMessage
from benchmarks.workload import parse
from service.kinds.text_classification.mail import parse_mail
from service.kinds.text_classification.serving import mail_text
from service.release import Release
from tasks.data import npm
from tasks.files import read_json
from tasks.stage import Paths, StageError

MESSAGES = 20
"""Per label."""
WORDS = 20


def score(release: Release, raws: Sequence[bytes]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The probability of the second label of each message, as the service would answer."""
    texts = [release.preprocess(mail_text(parse_mail(raw), release.limits["characters"])) for raw in raws]
    _, probabilities, _ = release.predict(texts)
    return np.asarray(probabilities[:, 1], dtype=np.float64)


def changes(release: Release, raws: Sequence[bytes]) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Obfuscation -> absolute score change of each message."""
    originals = score(release, raws)
    messages = [ParsedMessage.parse(raw) for raw in raws]
    return {
        name: np.abs(score(release, [obfuscation(message) for message in messages]) - originals)
        for name, obfuscation in OBFUSCATIONS.items()
    }


def select_messages(paths: Paths, raw_of: Mapping[str, bytes]) -> list[bytes]:
    """The first messages of each label of *test* (*golden*, where that has too few) with at least ``WORDS`` spaces."""
    rows = pd.read_parquet(paths.prepared, columns=["id", "split", "label", "input"])
    rows = rows[rows.split.isin(["test", "golden"]) & rows.id.isin(list(raw_of)) & (rows.input.str.count(" ") >= WORDS)]
    rows = rows.sort_values(["split", "id"], ascending=[False, True])
    return [raw_of[name] for _, group in rows.groupby("label") for name in group.id[:MESSAGES]]


def table(score_changes: Mapping[str, np.ndarray[tuple[int], np.dtype[np.float64]]]) -> str:
    lines = ["| obfuscation | mean change | largest change |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {change.mean():.3f} | {change.max():.3f} |" for name, change in score_changes.items()]
    every = np.stack(list(score_changes.values()))
    return "\n".join([*lines, f"| all of them | {every.mean():.3f} | {every.max():.3f} |"])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evasion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse(parser)
    paths = Paths(Path.cwd())
    if len(read_json(paths.schema)["labels"]) != 2:
        raise StageError("benchmarks.evasion: the release must have two labels")
    pointer = npm.read_pointer(Path("data/spamassassin.json"))
    raw_of = {name: raw for name, _, raw in npm.messages(npm.fetch(pointer, paths.downloads), pointer.messages)}
    release = Release(paths.release)
    raws = select_messages(paths, raw_of)
    print(f"release {release.id}, {len(raws)} messages of test")
    print(table(changes(release, raws)))


if __name__ == "__main__":
    main()
