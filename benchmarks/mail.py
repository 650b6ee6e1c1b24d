"""Readers of mail side by side: the time a message takes, and how much of what a mail program shows they read.

    python -m benchmarks.mail --rounds 5

The readers are this project's, the standard library as its documentation uses it, and fast-mail-parser (Rust; the extra
``bench``). Time is over the whole default corpus, in turns. Right is an obfuscated message (``benchmarks/obfuscations.py``)
whose subject and text have the words of the message without it; the markup of all readers is rendered by the same code.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from email import message_from_bytes, policy
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.obfuscations import OBFUSCATIONS, Letter
from service.mail import parse_mail
from service.text import STEPS, Normaliser
from tasks.data import npm
from tasks.stage import Paths

Reader = Callable[[bytes], tuple[str, str]]
"""Raw bytes to subject and text, in which HTML stands as it is."""
EVERY = 60
"""One of so many messages of the corpus is obfuscated."""
SEEN = Normaliser(tuple(STEPS), (), 200_000)


def ours(raw: bytes) -> tuple[str, str]:
    mail = parse_mail(raw)
    return mail.subject, mail.text


def standard_library(raw: bytes) -> tuple[str, str]:
    message = message_from_bytes(raw, policy=policy.default)
    body = message.get_body(preferencelist=("html", "plain"))
    return str(message.get("subject", "")), body.get_content() if body is not None else ""


def fast_mail_parser(raw: bytes) -> tuple[str, str]:
    from fast_mail_parser import parse_email

    mail = parse_email(raw)
    return mail.subject, "\x1c".join(mail.text_html or mail.text_plain)


def readers() -> dict[str, Reader]:
    found: dict[str, Reader] = {"ours": ours, "standard library": standard_library}
    if find_spec("fast_mail_parser"):
        return found | {"fast-mail-parser": fast_mail_parser}
    print("fast-mail-parser is not there; pip install -c constraints.txt -e '.[bench]' brings it")
    return found


def words(reader: Reader, raw: bytes) -> list[str] | None:
    """What a reader sees of the message; None where it raises."""
    try:
        subject, text = reader(raw)
        return SEEN(f"{subject}\x1c{text}").split()
    except Exception:  # readers raise of every kind: that is what is counted
        return None


def seconds(reader: Reader, raws: Sequence[bytes]) -> float:
    begun = time.perf_counter()
    for raw in raws:
        with suppress(Exception):  # as above
            reader(raw)
    return time.perf_counter() - begun


def share_right(reader: Reader, letters: Sequence[Letter]) -> float:
    wanted = [words(reader, letter.plain()) for letter in letters]
    right = [
        words(reader, obfuscation(letter)) == plain
        for obfuscation in CONTENT_STAYS
        for letter, plain in zip(letters, wanted, strict=True)
    ]
    return float(np.mean(right))


OWN_TEXT = ("byte order mark", "blank lines first", "carriage returns")
"""Obfuscations that keep the text of the message with its own lines; the others write it anew."""
SUBJECT_TWICE = ("message in a message, base64",)
CONTENT_STAYS = [obfuscation for name, obfuscation in OBFUSCATIONS.items() if name not in OWN_TEXT + SUBJECT_TWICE]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mail", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each reader reads the corpus")
    rounds = parser.parse_args().rounds
    pointer = npm.read_pointer(Path("data/spamassassin.json"))
    raws = [raw for _, _, raw in npm.messages(npm.fetch(pointer, Paths(Path.cwd()).downloads), pointer.messages)]
    letters = [letter for raw in raws[::EVERY] if len((letter := Letter.of(raw)).text.split()) > 5]
    found = readers()
    times = {name: [seconds(reader, raws) for _ in range(1)] for name, reader in found.items()}  # warm-up, and the first round
    for _ in range(rounds - 1):
        for name, reader in found.items():
            times[name].append(seconds(reader, raws))
    print(
        "| reader | µs a message, median | times ours | messages of the corpus it raises on | obfuscated messages read right |"
    )
    print("| --- | ---: | ---: | ---: | ---: |")
    own = np.median(times["ours"])
    for name, reader in found.items():
        raised = sum(words(reader, raw) is None for raw in raws)
        middle = np.median(times[name])
        print(
            f"| {name} | {middle / len(raws) * 1e6:.0f} | {middle / own:.2f} | {raised} | {share_right(reader, letters):.1%} |"
        )


if __name__ == "__main__":
    main()
