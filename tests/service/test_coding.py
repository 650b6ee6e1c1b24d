"""service/coding.py: bodies in every coding come out as they went in, and what lies is refused in bounded memory."""

from __future__ import annotations

import json
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.coding import ACCEPTED, MAX_CODINGS, MAX_MEMBERS, codings, decode, encoded_limit
from service.refused import Refused
from tests.zipped import zipped

LIMIT = 100_000
"""That of the release that the tests make."""
BODY = json.dumps({"text": "winner prize money"}).encode()
BROKEN = [
    ("gzip", b""),
    ("gzip", BODY),
    ("gzip", b"\x1f"),
    ("gzip", zipped(BODY)[:-1]),
    ("gzip", zipped(BODY)[:9]),
    ("gzip", zipped(BODY) + b"\0"),
    ("gzip", zipped(BODY) + b"garbage"),
    ("gzip", zipped(BODY) + zipped(BODY)[:-5]),
    ("gzip", zipped(BODY)[:-8] + bytes(8)),
    ("gzip", zlib.compress(BODY)),
    ("gzip", zipped(b"") * (MAX_MEMBERS + 1)),
    ("deflate", b""),
    ("deflate", b"x"),
    ("deflate", BODY),
    ("deflate", zipped(BODY)),
    ("deflate", zlib.compress(BODY)[:-1]),
    ("deflate", zlib.compress(BODY) + b"\0"),
    ("deflate", zlib.compress(BODY)[:-4] + bytes(4)),
    ("deflate", b"\x78\xbb" + zlib.compress(BODY)[2:]),  # wants a dictionary
    ("gzip, deflate", zipped(BODY)),
]


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def in_members(data: bytes, size: int = 7) -> bytes:
    return b"".join(zipped(data[at : at + size]) for at in range(0, len(data) or 1, size))


APPLY = {
    "gzip": [zipped, in_members],
    "x-gzip": [zipped],
    "deflate": [zlib.compress, raw_deflate],
    "identity": [bytes],
}


@given(st.data(), st.binary(max_size=300))
def test_what_was_coded_comes_out_as_it_went_in(data: st.DataObject, body: bytes) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(APPLY)), max_size=MAX_CODINGS))
    coded = body
    for name in names:
        coded = data.draw(st.sampled_from(APPLY[name]))(coded)
    written = [data.draw(st.sampled_from([name, name.upper(), f" {name} ", name.title()])) for name in names]
    for headers in (written, [",".join(written)], [" , ".join(["", *written, ""])]):
        assert decode(coded, codings(headers), LIMIT) == body


@pytest.mark.parametrize(("header", "coded"), BROKEN)
def test_what_is_broken_is_a_400(header: str, coded: bytes) -> None:
    with pytest.raises(Refused, match="not what its Content-Encoding says") as refused:
        decode(coded, codings([header]), LIMIT)
    assert refused.value.status == 400


@pytest.mark.parametrize("header", ["br", "zstd", "compress", "x-zip", "gzip, br", "gzip;q=1", "*", "gzipped", "a b", "\xff"])
def test_another_coding_is_a_415_that_says_what_is_read(header: str) -> None:
    with pytest.raises(Refused, match="gzip, deflate, identity") as refused:
        codings([header])
    assert refused.value.status == 415
    assert refused.value.headers == {"Accept-Encoding": ACCEPTED}
    with pytest.raises(Refused, match="at most 5"):
        codings(["gzip, " * 6, "identity"])


def test_the_limit_is_that_of_the_decoded_body_to_the_byte() -> None:
    dense = random.Random(0).randbytes(LIMIT + 1)  # grows when it is compressed
    for pack, name in ((zipped, "gzip"), (raw_deflate, "deflate"), (zlib.compress, "deflate")):
        for body in (dense, bytes(LIMIT + 1)):
            coded = pack(body[:LIMIT])
            assert len(coded) <= encoded_limit(LIMIT)
            assert decode(coded, [name], LIMIT) == body[:LIMIT]
            with pytest.raises(Refused, match="larger than 100000 bytes") as refused:
                decode(pack(body), [name], LIMIT)
            assert refused.value.status == 413


def test_a_bomb_stops_at_the_limit() -> None:
    bomb = zipped(bytes(200_000_000))
    nested = zipped(bomb)
    for coded, names in ((bomb, ["gzip"]), (nested, ["gzip", "gzip"]), (zlib.compress(bytes(200_000_000)), ["deflate"])):
        tracemalloc.start()
        with pytest.raises(Refused, match="larger"):
            decode(coded, names, LIMIT)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20 * LIMIT


@given(st.sampled_from(["gzip", "deflate"]), st.binary(max_size=200))
def test_no_bytes_do_anything_else_than_come_out_or_be_refused(name: str, body: bytes) -> None:
    for coded in (body, zipped(body)[: len(body)], b"\x1f\x8b\x08" + body, b"\x78\x9c" + body):
        try:
            assert len(decode(coded, [name], 50)) <= 50
        except Refused as refused:
            assert refused.status in (400, 413)


def test_the_routes_read_coded_bodies(client: TestClient) -> None:
    json_, mail = {"content-type": "application/json"}, {"content-type": "message/rfc822"}
    plain = client.post("/classify", content=BODY, headers=json_).json()
    for content, coding in (
        (zipped(BODY), "GZIP"),
        (zlib.compress(BODY), "deflate"),
        (raw_deflate(zipped(BODY)), "gzip, Deflate"),
        (BODY, "identity"),
        (BODY, ""),
    ):
        answer = client.post("/classify", content=content, headers=json_ | {"content-encoding": coding})
        assert answer.json()["score"] == plain["score"]
    message = b"Subject: winner\n\nprize money"
    for content, status in ((message, 400), (zipped(message), 200), (zipped(b""), 422), (b"", 400)):
        assert client.post("/classify_mail", content=content, headers=mail | {"content-encoding": "gzip"}).status_code == status
    refused = client.post("/classify", content=BODY, headers=json_ | {"content-encoding": "br"})
    assert (refused.status_code, refused.headers["accept-encoding"]) == (415, ACCEPTED)
    bomb = client.post("/classify", content=zipped(bytes(50_000_000)), headers=json_ | {"content-encoding": "gzip"})
    assert (bomb.status_code, bomb.json()["error"]) == (413, "The body is larger than 100000 bytes.")
