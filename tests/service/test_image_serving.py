"""The serving half of image classification: bodies, limits, verdicts. No error repeats what was sent."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from service.kinds import serving_class
from service.kinds.image_classification.bodies import ImageVerdict
from service.kinds.image_classification.images import encode_png
from service.kinds.image_classification.serving import Serving
from service.refused import Empty, Refused
from tests.service.test_image_files import BAD, animation, bomb, file_of, gradient

LIMITS = {"pixels": 10_000, "batch": 3, "body_bytes": 1_000_000}
SETTINGS = {"image": {"height": 28, "width": 28, "channels": 1, "mean": 73, "std": 90.0}}
PIXELS = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
SECRET = "c2VjcmV0"


@pytest.fixture(name="kind")
def fixture_kind() -> Serving:
    return Serving(SETTINGS)


def as_json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def base64_of(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def classify(body: bytes, media_type: str = "application/json") -> list[tuple[Any, str]]:
    return Serving.routes["/classify"].decode(body, media_type, LIMITS)


def test_it_is_found_by_its_name() -> None:
    assert serving_class("image_classification") is Serving


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", ""])
def test_a_file_is_taken_as_it_is(media_type: str) -> None:
    raw = encode_png(PIXELS)
    assert classify(raw, media_type) == [(raw, "The image")]


def test_pixels_and_the_file_in_base64_are_the_same_image(kind: Serving) -> None:
    raw = encode_png(PIXELS)
    bodies = (as_json(image=base64_of(raw)), as_json(pixels=PIXELS.tolist()))
    for body in (*bodies, b"  " + bodies[0]):
        (found, _), *rest = classify(body, "")
        assert not rest
        assert kind.identity(found) == kind.identity(raw)
        assert kind.preprocess(found) == PIXELS.tobytes()


def test_coloured_pixels_are_taken(kind: Serving) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    ((raw, _),) = classify(as_json(pixels=colours.tolist()))
    assert raw == encode_png(colours)


def test_a_batch_is_in_order() -> None:
    raws = [encode_png(PIXELS), encode_png(PIXELS.T)]
    placed = Serving.routes["/classify_batch"].decode(as_json(images=list(map(base64_of, raws))), "application/json", LIMITS)
    assert placed == [(raws[0], "images.0"), (raws[1], "images.1")]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/classify", b""),
        ("/classify", b"{"),
        ("/classify", b"\xff\xfe{}"),
        ("/classify", as_json()),
        ("/classify", as_json(image=SECRET, pixels=[[1]])),
        ("/classify", as_json(image=SECRET + "!")),
        ("/classify", as_json(image=SECRET, more=SECRET)),
        ("/classify", as_json(pixels=[])),
        ("/classify", as_json(pixels=[[]])),
        ("/classify", as_json(pixels=[[1, 2], [3]])),
        ("/classify", as_json(pixels=[[256]])),
        ("/classify", as_json(pixels=[[-1]])),
        ("/classify", as_json(pixels=[[0.5]])),
        ("/classify", as_json(pixels=[[SECRET]])),
        ("/classify", as_json(pixels=[[10**30]])),
        ("/classify", as_json(pixels=[[[1, 2]]])),
        ("/classify", as_json(pixels=[1, 2])),
        ("/classify", as_json(pixels=[[True]])),
        ("/classify", as_json(pixels=[[1]] * 10_001)),
        ("/classify_batch", as_json(images=[])),
        ("/classify_batch", as_json(images=[SECRET] * 4)),
        ("/classify_batch", as_json(images=[SECRET, SECRET + "?"])),
        ("/classify_batch", as_json(images=SECRET)),
    ],
)
def test_a_body_that_holds_no_image_is_refused_in_a_sentence_that_does_not_quote_it(path: str, body: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        Serving.routes[path].decode(body, "application/json", LIMITS)
    assert 400 <= refusal.value.status < 500
    assert refusal.value.sentence.endswith(".")
    assert SECRET not in refusal.value.sentence


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "is empty"),
        (b"private words", "neither a PNG nor a JPEG"),
        (animation(), "animated"),
        (bomb(), "60000 x 60000 pixels; at most 10000"),
        (b"\xff\xd8\xff", "is broken"),
    ],
)
def test_what_the_header_shows_is_refused_before_anything_is_decoded(kind: Serving, raw: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words) as refusal:
        kind.check(raw, LIMITS, "The image")
    assert refusal.value.status == 422
    assert "private" not in refusal.value.sentence
    assert isinstance(refusal.value, Empty) == (not raw)


@pytest.mark.parametrize("reason", ["truncated", "broken"])
def test_what_only_decoding_shows_is_no_input(kind: Serving, reason: str) -> None:
    kind.check(BAD[reason], LIMITS | {"pixels": 100_000}, "The image")
    assert not kind.preprocess(BAD[reason])


def test_a_verdict_holds_the_image_that_was_answered(kind: Serving) -> None:
    raw = encode_png(PIXELS)
    for fields in ({"image": base64_of(raw)}, {"pixels": PIXELS.tolist()}):
        reviewed = kind.review(ImageVerdict(id="1", label="bag", **fields), {}, LIMITS)
        assert reviewed.raw == raw
        assert kind.from_json(reviewed.content["image"]) == raw


@pytest.mark.parametrize("fields", [{}, {"image": SECRET, "pixels": [[1]]}, {"image": SECRET}, {"image": "?"}])
def test_a_verdict_without_an_image_is_refused(kind: Serving, fields: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refusal:
        kind.review(ImageVerdict(id="1", label="bag", **fields), {}, LIMITS)
    assert refusal.value.status == 422
    assert SECRET not in refusal.value.sentence


def test_a_warm_up_reaches_every_decoder(kind: Serving) -> None:
    raws = kind.warm_up([encode_png(PIXELS)])
    assert {raw[:3] for raw in raws} == {b"\x89PN", b"\xff\xd8\xff"}
    assert all(kind.preprocess(raw) for raw in raws)


def test_the_size_as_sent_is_described(kind: Serving) -> None:
    raw = file_of(gradient("RGB", (80, 60)), "JPEG")
    model_input = kind.preprocess(raw)
    assert model_input is not None
    found = kind.describe(raw, model_input, None)  # type: ignore[arg-type]
    assert (found["width"], found["height"]) == (80, 60)
    assert set(found) == set(Serving.descriptors)
