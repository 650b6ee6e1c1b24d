"""service/connection.py on a running server: what raw bytes get for an answer, when they are cut, and what is kept of them."""

from __future__ import annotations

import gzip
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.service.serving import Answer, Server, exchange, parse_answers, serving, talk

MARKER = "zebrafinch"
BODY = json.dumps({"text": f"winner {MARKER} prize"}).encode()
HEAD = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GOOD = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
LAST = GOOD.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n")
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
MIB = 1_048_576


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, students: tuple[Path, Path]) -> Iterator[Server]:
    """One worker, for which a head and a body may take a second."""
    short = {"RESTILL_DEV": "1", "RESTILL_HEAD_SECONDS": "1", "RESTILL_BODY_SECONDS": "1", "RESTILL_STATUS_SECONDS": "0.3"}
    with serving(students[1], tmp_path_factory.mktemp("connection"), "none", short) as served:
        yield served


@pytest.fixture(autouse=True)
def quiet(server: Server) -> Iterator[None]:
    """After each test the service answers as before, and its log says nothing of any caller."""
    yield
    (answer,) = talk(server.port, LAST)
    assert answer.status == 200, answer
    log = server.log.read_text()
    assert MARKER not in log
    assert "Traceback" not in log


def memory(server: Server) -> int:
    return max(psutil.Process(pid).memory_info().rss for pid in server.pids())


def one(answers: list[Answer]) -> Answer:
    (answer,) = answers
    return answer


def chunked(*chunks: bytes) -> bytes:
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks)


ALL_OF_IT = b"%x\r\n%s\r\n" % (len(BODY), BODY)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (LAST, 200),
        (LAST + b"garbage behind the last request", 200),
        (LAST.replace(b"/classify", b"/%63lassify"), 200),
        (LAST.replace(b"/classify", b"/classify?x=1"), 200),
        (LAST.replace(b"/classify", b"http://elsewhere.invalid/classify"), 200),
        (LAST.replace(b"/classify", b"http://elsewhere.invalid:80/classify?x=1"), 200),
        (LAST.replace(b"/classify", b"//classify"), 404),
        (LAST.replace(b"/classify", b"/classify/"), 404),
        (LAST.replace(b"/classify", b"/classify%2F"), 404),
        (LAST.replace(b"/classify", b"/classify%00"), 404),
        (LAST.replace(b"/classify", b"/%ff%fe"), 404),
        (LAST.replace(b"/classify", b"/Classify"), 404),
        (LAST.replace(b"/classify", b"/./classify"), 404),
        (LAST.replace(b"/classify", b"/x/../classify"), 404),
        (LAST.replace(b"/classify", b"//elsewhere.invalid/"), 404),
        (LAST.replace(b"/classify", b"/classify;x"), 404),
        (LAST.replace(b"/classify", b"/static_content/x.html"), 404),
        (LAST.replace(b"/classify", b"/" + MARKER.encode()), 404),
        (LAST.replace(b"POST", b"PUT"), 405),
        (LAST.replace(b"POST", b"TRACE"), 405),
        (LAST.replace(b"/classify", b"/livez"), 405),
        (LAST.replace(b"/classify", b"/docs.json"), 405),
        (b"GET http://elsewhere.invalid HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
        (b"GET http://elsewhere.invalid?x=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"\r\n\r\nGET / HTTP/1.0\r\n\r\n", 200),
        (LAST.replace(b"POST", MARKER.encode()), 400),
        (LAST.replace(b"/classify", b"/" + "ü".encode()), 400),
        (LAST.replace(b"/classify", b"classify"), 400),
        (LAST.replace(b"/classify", b"*"), 400),
        (LAST.replace(b"/classify", b"ftp:" + MARKER.encode()), 400),
        (LAST.replace(b"HTTP/1.1", b"HTTP/9.9"), 400),
        (b"CONNECT elsewhere.invalid:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400),
        (b"GET / HTTP/1.1\r\n" + MARKER.encode() + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1e3\r\n\r\n", 400),
        (HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", 400),
        (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: zebra\r\n\r\n0\r\n\r\n", 400),
        (chunked(b"zz\r\n", b"{}\r\n0\r\n\r\n"), 400),
        (chunked(b"2\r\n{}!!\r\n0\r\n\r\n"), 400),
        (chunked(b"-2\r\n{}\r\n0\r\n\r\n"), 400),
        (chunked(b"fffffffffffffffffff\r\n"), 400),
        (chunked(b"2\n{}\n0\n\n"), 400),
        (HEAD + b"Content-Length: 99999999\r\n\r\n", 413),
        (HEAD + b"Content-Length: 100001\r\nExpect: 100-continue\r\n\r\n", 413),
        (chunked(b"20000\r\n" + b"x" * 0x20000), 413),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: x\r\n" % number for number in range(101)) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 33_000 + b"\r\n\r\n", 431),
    ],
    ids=lambda value: value[:60] if isinstance(value, bytes) else None,
)
def test_every_kind_of_request_gets_one_answer_and_every_error_a_sentence(server: Server, request_: bytes, status: int) -> None:
    answer = one(talk(server.port, request_, half_close=status not in (408, 413)))
    assert answer.status == status, answer
    if status != 200:
        assert answer.error
    assert MARKER.encode() not in answer.body + str(answer.headers).encode()
    if status == 405:
        assert "OPTIONS" in answer.headers["allow"]


def test_options_and_head_are_answered(server: Server) -> None:
    def asked(method: bytes, target: bytes) -> Answer:
        request_ = method + b" " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        received = exchange(server.port, request_)
        return one(parse_answers(received, (method.decode(),)))

    routes = json.loads(asked(b"GET", b"/").body)["routes"]
    assert {"/classify", "/model", "/livez", "/readyz"} <= set(routes)
    for route in routes:
        given = asked(b"OPTIONS", route.encode())
        posts = route in ("/classify", "/classify_batch", "/classify_mail", "/feedback")
        assert (given.status, given.body) == (204, b"")
        assert given.headers["allow"] == ("OPTIONS, POST" if posts else "GET, HEAD, OPTIONS")
        assert asked(b"HEAD", route.encode()).status == (405 if posts else 200), route
        assert asked(b"GET", route.encode()).status == (405 if posts else 200), route
    assert asked(b"OPTIONS", b"*").status == 204
    assert asked(b"OPTIONS", b"/nowhere").status == 404


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c", b"TLS/1.3", MARKER.encode()])
def test_an_upgrade_is_passed_over_and_its_body_read(server: Server, upgrade: bytes) -> None:
    """Java's client asks for HTTP/2 with each POST."""
    asking = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + upgrade + b"\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    upgrading = GOOD.replace(b"Host: x\r\n", b"Host: x\r\n" + asking)
    closing = upgrading.replace(b"Upgrade, HTTP2", b"close, Upgrade, HTTP2")
    for pieces in ([upgrading + closing], [upgrading, closing], [upgrading[:-20], upgrading[-20:] + GOOD, closing], [closing]):
        answers = talk(server.port, *pieces, pause=0.05)
        assert [answer.status for answer in answers] == [200] * (b"".join(pieces).count(b"POST"))
    assert 0 < len(talk(server.port, upgrading * 20)) < 20, "and then it is closed"


def test_a_body_in_pieces_and_requests_in_a_row_are_answered_in_order(server: Server) -> None:
    assert one(talk(server.port, *(LAST[at : at + 1] for at in range(len(LAST))))).status == 200
    small = chunked(*(b"1;extension=%d\r\n%c\r\n" % (at, byte) for at, byte in enumerate(BODY)), b"0\r\nTrailer: x\r\n\r\n")
    assert one(talk(server.port, small, half_close=True)).status == 200
    in_a_row = GOOD + b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" + chunked(ALL_OF_IT, b"0\r\n\r\n") + LAST
    assert [answer.status for answer in talk(server.port, in_a_row)] == [200, 404, 200, 200]


@pytest.mark.parametrize(
    "broken", [b"garbage\r\n\r\n", HEAD + b"Content-Length: x\r\n\r\n", chunked(b"zz\r\n"), b"GET / HTTP/1.1\r\nA"]
)
def test_what_is_whole_is_answered_before_what_is_broken(server: Server, broken: bytes) -> None:
    for before in (1, 3):
        answers = talk(server.port, GOOD * before + broken, half_close=True)
        assert [answer.status for answer in answers[:before]] == [200] * before
        assert [answer.status for answer in answers[before:]] in ([], [400])


def test_a_content_length_that_lies_costs_nobody_else_an_answer(server: Server) -> None:
    longer = HEAD + b"Content-Length: %d\r\n\r\n" % (len(BODY) + 9) + BODY
    assert one(talk(server.port, longer, half_close=True)).error == "The request ended before it was whole."
    late = one(talk(server.port, longer))
    assert (late.status, late.error) == (408, "The body did not come within 1 seconds.")
    shorter = HEAD + b"Content-Length: %d\r\n\r\n" % (len(BODY) - 5) + BODY
    assert talk(server.port, shorter, half_close=True)[0].status == 400


@pytest.mark.parametrize(
    ("start", "more", "says"),
    [
        (b"", b"G", "head"),
        (b"GET / HTTP/1.1\r\n", b"A: b\r\n", "head"),
        (b"GET /", b"a", "head"),
        (b"GET / HTTP/1.1\r\nA: ", b"b", "head"),
        (HEAD + b"Content-Length: 9999\r\n\r\n", b" ", "body"),
        (HEAD + b"Content-Length: 9999\r\n\r\n{", b"", "body"),
        (chunked(), b"1\r\n \r\n", "body"),
        (chunked(b"1;"), b"x", "body"),
        (chunked(b"1\r\n \r\n0\r\n"), b"A: b\r\n", "body"),
    ],
)
def test_what_trickles_for_ever_ends_with_408(server: Server, start: bytes, more: bytes, says: str) -> None:
    for first in (b"", GOOD):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(first + start)
            connection.settimeout(0.1)
            received, begun = bytearray(), time.monotonic()
            while time.monotonic() < begun + 15:
                try:
                    connection.sendall(more if start or received else b"GET / HTTP/1.1\r\nA: b")
                    piece = connection.recv(65_536)
                except TimeoutError:
                    continue
                except OSError:
                    break
                received += piece
                if not piece:
                    break
        answers = parse_answers(bytes(received))
        assert answers[-1].status == 408, answers
        assert says in answers[-1].error
        assert len(answers) == (2 if first else 1)


def test_who_says_nothing_is_cut_and_so_is_who_does_not_read(server: Server) -> None:
    assert talk(server.port) == []
    assert talk(server.port, b"\r\n") == []
    before = memory(server)
    with socket.create_connection(("127.0.0.1", server.port), timeout=1) as connection, suppress(OSError):
        for _ in range(300):
            connection.sendall(b"GET /model HTTP/1.1\r\nHost: x\r\n\r\n" * 3000)
    assert memory(server) - before < 32 * MIB


@pytest.mark.parametrize(
    ("start", "piece", "status"),
    [
        (b"GET / HTTP/1.1\r\n", b"".join(b"H: x\r\n" for _ in range(1000)), 431),
        (b"GET / HTTP/1.1\r\nH: ", b"x" * 100_000, 431),
        (b"GET / HTTP/1.1\r\n", b"x" * 100_000, 431),
        (b"GET /", b"x" * 100_000, 414),
        (b"GET /?", b"x" * 100_000, 414),
        (chunked(b"1;"), b"x" * 100_000, 400),
        (chunked(b"1\r\n \r\n0\r\n"), b"".join(b"H: x\r\n" for _ in range(1000)), 400),
        (chunked(b"1\r\n \r\n0\r\nH: "), b"x" * 100_000, 400),
        (chunked(), b"1\r\nx\r\n" * 20_000, 413),
        (HEAD + b"Content-Length: 99999999\r\n\r\n", b"x" * 100_000, 413),
        (HEAD.replace(b"json", b"zip") + b"Content-Length: 99999999\r\n\r\n", b"x" * 100_000, 415),
    ],
)
def test_what_is_too_large_is_refused_in_bounded_memory(server: Server, start: bytes, piece: bytes, status: int) -> None:
    before = memory(server)
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: answers.extend(talk(server.port, start, *[piece] * (10 * MIB // len(piece)))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [status] * 4
    assert all(answer.error for answer in answers)
    assert memory(server) - before < 32 * MIB


def test_a_hundred_slow_ones_do_not_keep_others_waiting(server: Server) -> None:
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    for number, connection in enumerate(slow):
        connection.sendall(GOOD[: -1 - number % 200])
    assert one(talk(server.port, LAST)).status == 200
    time.sleep(1.5)
    for connection in slow:
        connection.settimeout(10)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 408 ")
        connection.close()


def fuzzed(rng: random.Random) -> bytes:
    """One to three requests, put together of good and bad parts, and then spoilt here and there."""
    parts = []
    for _ in range(rng.randrange(1, 4)):
        body = rng.choice([BODY, b"", b"{", b'{"text": NaN}', b"\xff" * 9, gzip.compress(BODY), b"Subject: x\r\n\r\nwinner"])
        headers = rng.sample(
            [
                b"Host: x", b"Content-Type: application/json", b"Content-Type: message/rfc822", b"Content-Encoding: gzip",
                b"Content-Encoding: " + MARKER.encode(), b"Connection: close", b"Connection: Upgrade", b"Upgrade: h2c",
                b"Expect: 100-continue", b"Content-Length: %d" % len(body), b"Content-Length: %d" % (len(body) + 1),
                b"Transfer-Encoding: chunked", b"Authorization: Bearer " + MARKER.encode(), b"X: \xff",
                MARKER.encode() + b": 1",
            ],
            rng.randrange(8),
        )  # fmt: skip
        if rng.random() < 0.7:
            headers.append(b"Content-Length: %d" % len(body))
        method = rng.choice([b"GET", b"POST", b"POST", b"POST", b"OPTIONS", b"HEAD", b"DELETE", b"CONNECT", b"get"])
        targets = [b"/classify", b"/classify_batch", b"/classify_mail", b"/feedback", b"/", b"*", b"/" + MARKER.encode()]
        line = method + b" " + rng.choice(targets) + b" HTTP/1." + rng.choice([b"1", b"1", b"0"])
        parts.append(b"\r\n".join([line, *headers, b"", b""]) + body)
    spoilt = bytearray(b"".join(parts))
    for _ in range(rng.choice([0, 0, 1, 2, 9])):
        at = rng.randrange(len(spoilt))
        spoilt[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    return bytes(spoilt)


def test_no_bytes_at_all_make_a_500_or_a_hang(server: Server) -> None:
    rng, begun, tried = random.Random(0), time.monotonic(), 0
    while tried < 2000 and (tried < 100 or time.monotonic() < begun + 20):
        tried += 1
        request_ = fuzzed(rng)
        cut = sorted(rng.randrange(len(request_) + 1) for _ in range(rng.randrange(3)))
        pieces = [request_[first:last] for first, last in zip([0, *cut], [*cut, len(request_)], strict=True)]
        received = exchange(server.port, *pieces, half_close=True)
        for line in received.split(b"HTTP/1.1 ")[1:]:
            assert line[:3].isdigit() and line[:1] in b"124", (request_, received)
        assert received, request_
        assert MARKER.encode() not in received
