"""Mail parsers compared: time per message, and the share of obfuscated messages whose visible text they extract.

    python -m benchmarks.mail --rounds 5

The readers are this project's, the standard library used as documented, and fast-mail-parser (Rust; the extra ``bench``).
Time is measured over the whole default corpus, in turns. An obfuscated message (``benchmarks/obfuscations.py``) is read right
if its subject and text have the words of the original; the markup of all readers is rendered by the same code.
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

from benchmarks.obfuscations import OBFUSCATIONS, ParsedMessage
from benchmarks.workload import parse
from service.kinds.text_classification.mail import parse_mail
from service.kinds.text_classification.text import STEPS, Normaliser
from tasks.data import npm
from tasks.stage import Paths

Reader = Callable[[bytes], tuple[str, str]]
"""Raw bytes -> subject and text, with HTML left as it is."""
EVERY = 60
"""One in this many messages of the corpus is obfuscated."""
NORMALISER = Normaliser(tuple(STEPS), (), 200_000)


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
    available: dict[str, Reader] = {"ours": ours, "standard library": standard_library}
    if find_spec("fast_mail_parser"):
        return available | {"fast-mail-parser": fast_mail_parser}
    print("fast-mail-parser is not there; pip install -c constraints.txt -e '.[bench]' brings it")
    return available


def words(reader: Reader, raw: bytes) -> list[str] | None:
    """The words that a reader extracts from the message; None where it raises."""
    try:
        subject, text = reader(raw)
        return NORMALISER(f"{subject}\x1c{text}").split()
    except Exception:  # readers raise exceptions of all types, which are counted
        return None


def seconds(reader: Reader, raws: Sequence[bytes]) -> float:
    start = time.perf_counter()
    for raw in raws:
        with suppress(Exception):  # as above
            reader(raw)
    return time.perf_counter() - start


def share_right(reader: Reader, messages: Sequence[ParsedMessage]) -> float:
    expected = [words(reader, message.plain()) for message in messages]
    is_right = [
        words(reader, obfuscation(message)) == plain
        for obfuscation in CONTENT_STAYS
        for message, plain in zip(messages, expected, strict=True)
    ]
    return float(np.mean(is_right))


TEXT_UNCHANGED = ("byte order mark", "blank lines first", "carriage returns")
"""Obfuscations that keep the message's own lines; the others rewrite its text."""
SUBJECT_TWICE = ("message in a message, base64",)
CONTENT_STAYS = [obfuscation for name, obfuscation in OBFUSCATIONS.items() if name not in TEXT_UNCHANGED + SUBJECT_TWICE]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mail", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each reader reads the corpus")
    rounds = parse(parser).rounds
    pointer = npm.read_pointer(Path("data/spamassassin.json"))
    raws = [raw for _, _, raw in npm.messages(npm.fetch(pointer, Paths(Path.cwd()).downloads), pointer.messages)]
    messages = [message for raw in raws[::EVERY] if len((message := ParsedMessage.parse(raw)).text.split()) > 5]
    compared = readers()
    times = {
        name: [seconds(reader, raws) for _ in range(1)] for name, reader in compared.items()
    }  # warm-up, and the first round
    for _ in range(rounds - 1):
        for name, reader in compared.items():
            times[name].append(seconds(reader, raws))
    print(
        "| reader | µs a message, median | times ours | messages of the corpus it raises on | obfuscated messages read right |"
    )
    print("| --- | ---: | ---: | ---: | ---: |")
    ours_median = np.median(times["ours"])
    for name, reader in compared.items():
        failures = sum(words(reader, raw) is None for raw in raws)
        median, right = np.median(times[name]), share_right(reader, messages)
        print(f"| {name} | {median / len(raws) * 1e6:.0f} | {median / ours_median:.2f} | {failures} | {right:.1%} |")


if __name__ == "__main__":
    main()
