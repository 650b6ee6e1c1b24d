"""Serving half of text classification: raw texts and messages in, normalised texts for the model.

A raw input is a text; of a mail it is the subject and the visible text. The model's input is the normalised text.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from service.kinds import Model, Reviewed, Route
from service.kinds.text_classification.descriptors import NAMES, describe
from service.kinds.text_classification.mail import Mail, parse_mail
from service.kinds.text_classification.scorer import Student, load_student
from service.kinds.text_classification.text import Normaliser, document
from service.kinds.text_classification.transformer import WindowedStudent
from service.refused import Empty, Refused
from service.requests import JSON, Body, Verdict, parse

MAIL = ("message/rfc822", "message/global")
"""A message (RFC 5322), and one with headers in UTF-8 (RFC 6532). Its parts declare their own charsets."""


class OneText(Body):
    expected = '"text"'
    text: str


class ManyTexts(Body):
    expected = '"texts"'
    texts: list[str]


class TextVerdict(Verdict):
    """A reviewer's label with the classified message: its text, or the mail in base64."""

    expected = '"id", "label" and either "text" or "raw"'
    text: str | None = None
    raw: str | None = None


def mail_text(mail: Mail, characters: int) -> str:
    """The raw text of a parsed message as ``/classify_mail`` classifies it, and as feedback must match it."""
    return document(mail.subject, mail.text)[:characters]


def one_text(body: bytes, media_type: str, limits: Mapping[str, int]) -> list[tuple[Any, str]]:
    """The text of ``{"text": ...}``."""
    return [(parse(OneText, body).text, "text")]


def many_texts(body: bytes, media_type: str, limits: Mapping[str, int]) -> list[tuple[Any, str]]:
    """The texts of ``{"texts": [...]}``."""
    texts = parse(ManyTexts, body).texts
    if not texts:
        raise Empty(f"texts holds 0 texts; 1 to {limits['batch']} are allowed.")
    if len(texts) > limits["batch"]:
        raise Refused(422, f"texts holds {len(texts)} texts; 1 to {limits['batch']} are allowed.")
    return [(text, f"texts.{number}") for number, text in enumerate(texts)]


def one_mail(body: bytes, media_type: str, limits: Mapping[str, int]) -> list[tuple[Any, str]]:
    """The subject and text of a raw message."""
    if not body.strip():
        raise Empty("The message is empty.")
    return [(mail_text(parse_mail(body), limits["characters"]), "The message")]


class Serving:
    """Text classification as ``service.kinds`` describes it."""

    descriptors: ClassVar[tuple[str, ...]] = NAMES
    routes: ClassVar[Mapping[str, Route]] = {
        "/classify": Route(JSON, one_text),
        "/classify_batch": Route(JSON, many_texts, many=True),
        "/classify_mail": Route(MAIL, one_mail, slow=True),
    }
    formats: ClassVar[Mapping[str, Collection[str]]] = {"student": (), "onnx-transformer": ("tokenizers",)}
    requires: ClassVar[Collection[str]] = ("chardetng-py", "selectolax", "tinycss2", "webencodings")
    verdict: ClassVar[type[Verdict]] = TextVerdict

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.normaliser = Normaliser.from_settings(settings["normaliser"])

    @staticmethod
    def load(folder: Path, threads: int) -> Student | WindowedStudent:
        return load_student(folder, threads)

    def raw_of(self, content: Mapping[str, Any]) -> str:
        return document(content["subject"], content["text"])

    def check(self, raw: str, limits: Mapping[str, int], place: str) -> None:
        if not raw.strip():
            raise Empty(f"{place} is empty.")
        if len(raw) > limits["characters"]:
            raise Refused(422, f"{place} has {len(raw)} characters; at most {limits['characters']} are allowed.")

    def preprocess(self, raw: str) -> str:
        return self.normaliser(raw)

    def is_truncated(self, model_input: str) -> bool:
        return len(model_input) >= self.normaliser.characters

    def describe(self, raw: str, model_input: str, model: Model) -> dict[str, float]:
        assert isinstance(model, Student | WindowedStudent)
        return describe(raw, model.tokenizer.unknown_share(model_input))

    def identity(self, raw: str) -> bytes:
        return raw.encode("utf-8", "surrogatepass")

    def recorded(self, limits: Mapping[str, int]) -> dict[str, Any]:
        """The length to which mails are cut: a later release may cut elsewhere, and feedback must use this one."""
        return {"characters": limits["characters"]}

    def review(self, verdict: TextVerdict, answered: Mapping[str, Any], limits: Mapping[str, int]) -> Reviewed:
        """A text is not cut, so a different text with the same beginning does not match."""
        if (verdict.text is None) == (verdict.raw is None):
            raise Refused(422, 'Send the message that was answered, either as "text" or as "raw" (base64 of a message/rfc822).')
        if verdict.text is not None:
            return Reviewed(verdict.text, {"subject": "", "text": verdict.text}, None)
        try:
            mail = parse_mail(base64.b64decode(verdict.raw or "", validate=True))
        except (binascii.Error, ValueError):
            raise Refused(422, "raw: is not base64.") from None
        raw = mail_text(mail, answered.get("characters", limits["characters"]))
        return Reviewed(raw, {"subject": mail.subject, "text": mail.text}, mail.received)

    def to_json(self, raw: str) -> str:
        return raw

    def from_json(self, value: str) -> str:
        return value

    def warm_up(self, probes: Sequence[str]) -> Sequence[str]:
        """Short and long texts."""
        words = " ".join(probes).split(" ")
        return [" ".join(words[:count]) for count in (1, 100, len(words))]
