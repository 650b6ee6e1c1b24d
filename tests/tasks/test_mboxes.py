"""mboxes.py: where in a box each message begins and ends, and what of its quoting is taken away."""

from __future__ import annotations

import mailbox
import mmap
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.kinds.text_classification.data.mboxes import Data, begins_message, find_box, text_start

A = b"From a@example.invalid Thu Aug 22 13:17:22 2002\n"
B = b"From b@example.invalid Fri Aug 23 13:17:22 2002\n"
OLDER = b"From b@example.invalid Wed Aug 21 13:17:22 2002\n"
SECOND = B + b"Subject: second\n\nshort\n"


def split(data: Data, *, named_box: bool = False, one_expected: bool = False) -> list[bytes | None]:
    """The messages of a box; a file that is none is one message."""
    box = find_box(data, named_box=named_box, one_expected=one_expected)
    return list(box.messages()) if box else [data[:]]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    "body",
    [
        b"From Monday on we also sell compost.\n",
        b"\nFrom now on, call first.\n",
        b"\nFrom Thu Aug 22 on we meet.\n",
        b"\nFrom a@b.c Thu Aug 22 2002\n",
        b"\nFrom the log of Thu Aug 22 13:17:22 2002\nthe machine was down.\n",
        b"\nFrom Thu Aug 22 13:17:22 2002\nto Fri Aug 23 13:17:22 2002 we are closed.\n",
        b"\nFrom a@b.c Thu Aug 22 13:17:22 2002 I heard this\nSubject: is what it says\n",
        b"\nFrom a@b.c Thu Aug 22 13:17:22 2002\nis a line that a program wrote.\n",
        b"no blank line\nFrom a@b.c Thu Aug 22 13:17:22 2002\nSubject: x\n",
        b"\n From a@b.c Thu Aug 22 13:17:22 2002\nSubject: indented\n",
        b"\n> From a@b.c Thu Aug 22 13:17:22 2002\n> Subject: quoted\n",
        b"\nFrom: a@b.c\nSubject: forwarded\n",
        b"\nfrom a@b.c Thu Aug 22 13:17:22 2002\nSubject: x\n",
        b"\nFrom \nhere on it is downhill.\n",
        b"\nFrom Anna\nTo: Bob\n",
        b"\nFrom a@b.c Thu Aug 32 13:17:22 2002\n\nno such day\n",
    ],
)
def test_lines_of_a_body_that_are_no_envelope_split_nothing(body: bytes, line_end: bytes) -> None:
    first = (A + b"Subject: first\n\ntext\n" + body).replace(b"\n", line_end)
    second = SECOND.replace(b"\n", line_end)
    assert split(first + line_end + second) == [first, second]
    assert split(first) == [first]


@pytest.mark.parametrize(
    "envelope",
    [
        "From b@c Fri Aug 23 13:17:22 CEST 2002", "From b@c Fri Aug 23 13:17:22 +0200 2002", "From b@c Fri Aug 23 13:17 2002",
        "From b@c Fri, 23 Aug 2002 13:17:22 -0400", "From - Fri Aug 23 13:17:22 2002",
        "From uucp Fri Aug 23 13:17:22 2002 remote from x",
        "From b at c  Fri Aug 23 13:17:22 2002", 'From "b c"@d Fri Aug 23 13:17:22 2002',
        "From B C <b@c> Fri Aug 23 13:17:22 2002",
        "From John Smith Fri Aug 23 13:17:22 2002", "From Fri Aug 23 13:17:22 2002", "From b@c", "From -", "From ",
    ],
)  # fmt: skip
def test_envelopes_of_many_programs_split(envelope: str) -> None:
    second = envelope.encode() + b"\nReceived: from x\nSubject: second\n\nshort\n"
    assert split(A + b"Subject: first\n\ntext\n\n" + second) == [A + b"Subject: first\n\ntext\n", second]


@pytest.mark.parametrize(
    "second",
    [B, B.rstrip(), B + b"Subj", B + b"Subject: x", B + b"\nno headers\n", B + b"no colon\nSubject: x\n\n",
     B + b"Custom: 1\n\nx", B + b">From c@d Fri Aug 23 13:17:22 2002 remote from x\nSubject: x\n\n"],
)  # fmt: skip
def test_the_last_message_may_be_cut_and_headers_may_be_broken(second: bytes) -> None:
    first = A + b"Subject: first\n\ntext\n"
    assert split(first + b"\n" + second) == [first, second]


def test_messages_without_a_body_and_without_text_between(tmp_path: Path) -> None:
    assert split(A + b"Subject: first\n\n" + SECOND) == [A + b"Subject: first\n", SECOND]
    assert split(A + b"\n" + SECOND) == [A, SECOND]


@pytest.mark.parametrize(
    ("boxed", "meant"),
    [(b">From here", b"From here"), (b">>From here", b">From here"), (b">>>From ", b">>From "), (b"> From x", b"> From x"),
     (b">From: x", b">From: x"), (b" >From x", b" >From x"), (b"a >From x", b"a >From x")],
)  # fmt: skip
def test_a_box_quotes_lines_of_the_body_and_one_mark_is_taken_away(boxed: bytes, meant: bytes) -> None:
    header = A + b">From c@d Thu Aug 22 13:17:22 2002\nSubject: first\n\n"
    assert split(header + boxed + b"\n" + boxed + b"\n\n" + SECOND)[0] == header + meant + b"\n" + meant + b"\n"
    single = header + boxed + b"\n"
    assert split(single) == [single], "a file of one message was written by no box's rule"


def test_a_content_length_that_is_true_is_believed_and_one_that_lies_is_not() -> None:
    body = b"one\n\nFrom c@d Fri Aug 23 13:17:22 2002\nSubject: within\n\n>From the archive\n"
    for between in (b"\n", b""):
        first = A + b"Content-Length: %d\n\n" % len(body) + body
        assert [message.rstrip() for message in split(first + between + SECOND) if message] == [first.rstrip(), SECOND.rstrip()]
        assert split(SECOND + b"\n" + first) == [SECOND, first]
    for length in (len(body) - 5, len(body) + 7, 10**9, 0):
        lies = A + b"Content-Length: %d\n\n" % length + body
        assert len(split(lies + b"\n" + SECOND)) == 3
    quoted = b"one\n\n>From here\n"
    first = A + b"Content-Length: %d\n\n" % len(quoted) + quoted
    assert split(first + b"\n" + SECOND)[0] == first.replace(b">From here", b"From here"), "mboxcl quotes as well"


MULTIPART = b'Subject: fwd\nContent-Type: multipart/mixed;\n boundary="=_x"\n\n--=_x\nContent-Type: message/rfc822\n\n'


@pytest.mark.parametrize("one_expected", [True, False])
def test_a_mail_within_a_part_stays_there(one_expected: bool) -> None:
    first = A + MULTIPART + SECOND + b"\n--=_x--\n"
    assert split(first, one_expected=one_expected) == [first]
    third = B + b"Subject: third\n\nend\n"
    assert split(first + b"\n" + third, one_expected=one_expected) == [first, third]


def test_a_multipart_that_was_cut_does_not_swallow_the_next_message() -> None:
    cut = A + MULTIPART + b"text\n"
    whole = B + MULTIPART + b"text\n\n--=_x--\n"
    assert split(cut + b"\n" + SECOND) == [cut, SECOND]
    assert split(cut + b"\n" + whole) == [cut, whole], "a second copy, with the same boundary"


def test_a_mail_that_quotes_a_whole_mail_is_torn_only_where_nothing_tells_it_from_a_box() -> None:
    without = b"Subject: fwd\n\nlook:\n\n" + SECOND
    quoting = A + b"Subject: fwd\n\nlook:\n\n" + OLDER + b"Subject: second\n\nshort\n"
    box = A + b"Subject: first\n\ntext\n\n" + SECOND
    assert split(without) == split(without, one_expected=True) == [without], "no box begins with a header"
    assert split(quoting, one_expected=True) == [quoting], "what a mail quotes is older than itself"
    assert len(split(quoting)) == 2, "a box need not be in the order of time"
    assert len(split(box, one_expected=True)) == len(split(box)) == 2


def test_a_named_box_may_lack_its_first_envelope_and_another_file_not() -> None:
    data = b"Subject: head\n\ntext\n\n" + SECOND
    assert split(data, named_box=True) == [b"Subject: head\n\ntext\n", SECOND]
    assert split(data) == [data]
    assert find_box(b"no mail\n", named_box=True, one_expected=False) is None


def test_what_python_writes_is_read_back(tmp_path: Path) -> None:
    bodies = [b"text\nFrom here\n", b"\nFrom there\n", b"", b"end"]
    box = mailbox.mbox(tmp_path / "box")
    for number, body in enumerate(bodies):
        box.add(b"Subject: %d\n\n" % number + body)
    box.flush()
    found = [message.partition(b"\n\n")[2].rstrip() for message in split((tmp_path / "box").read_bytes()) if message]
    assert found == [body.rstrip() for body in bodies]


LINES = st.sampled_from([b"", b"text", b"From here", b"From a@b.c Thu Aug 22 13:17:22 2002", b"Subject: x", b">From x",
                         b">>From x", b"--=_x", b"\xef\xbb\xbf", b"\xff\x00"])  # fmt: skip


@given(st.lists(st.lists(LINES, max_size=8), min_size=1, max_size=5), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_any_messages_that_are_quoted_as_mboxrd_come_back(bodies: list[list[bytes]], line_end: bytes, mapped: bool) -> None:
    messages = [(A + b"Subject: x\n\n" + b"".join(line + b"\n" for line in lines)).replace(b"\n", line_end) for lines in bodies]
    quoted = [
        head + blank + re.sub(rb"(?m)^(>*From )", rb">\1", body)
        for head, blank, body in (message.partition(line_end * 2) for message in messages)
    ]
    data: Data = line_end.join(quoted)
    if mapped:
        held = mmap.mmap(-1, len(data))
        held.write(data)
        data = held
    assert split(data, named_box=True) == messages


@given(st.binary(max_size=400))
def test_no_bytes_raise_and_none_are_lost(noise: bytes) -> None:
    for data in (noise, A + noise, A + b"Content-Length: 5\n\n" + noise, A + MULTIPART + noise + b"\n\n" + SECOND):
        begins_message(data, text_start(data))
        for one_expected in (True, False):
            box = find_box(data, named_box=True, one_expected=one_expected)
            spans = list(box.spans()) if box else []
            assert [end for _, end in spans] == [begin for begin, _ in spans[1:]] + [len(data)] * bool(spans)
