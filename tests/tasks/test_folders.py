"""folders.py, tree.py and contents.py: each file below a folder is a message, a box of them, or a reason."""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import mailbox
import os
import random
import resource
import socket
import tarfile
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.ingest import ingest
from tasks.data.sources import Rejected, Row
from tasks.data.tables import labelled, read_labels
from tasks.files import read_json
from tasks.kinds.text_classification.data import Ingest, contents
from tasks.kinds.text_classification.data.folders import read_folder
from tasks.stage import Paths, StageError
from tests.conftest import of_kind
from tests.zipped import zipped

COLUMNS = {"id": None, "received": None, "source": None, "label": "label", "subject": None, "text": "text"}
PLAIN = b"Date: Thu, 22 Aug 2002 15:00:00 +0000\nSubject: greenhouse\n\nA note about the garden.\n"
BOX = (
    b"From a@example.invalid Thu Aug 22 13:17:22 2002\nSubject: first\n\nTwo lots.\n\n"
    b"From b@example.invalid Fri Aug 23 13:17:22 2002\nSubject: second\n\nshort\n"
)


def rows_of(root: Path, label_table: str | None = None) -> list[Row | Rejected]:
    rows = read_folder(root, {}, label_table)
    return list(labelled(rows, read_labels(root / label_table), label_table) if label_table else rows)


def read(root: Path) -> dict[str, str]:
    """Subject or reason of each row, by id; ids are unique and can be stored."""
    rows = rows_of(root)
    found = {row.id: row.content["subject"] if isinstance(row, Row) else row.reason for row in rows}
    assert len(found) == len(rows)
    for row in rows:
        assert (row.id + row.source + row.file).encode()
    return found


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may read everything; whoever runs the tests as root becomes nobody meanwhile."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "feedback.jsonl").touch()
    return Paths(of_kind(tmp_path))


def ingested(paths: Paths, labels: dict[str, str]) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """Corpus, quarantine and report of the folder ``mail``."""
    parameters = {"source": "folder", "path": "mail", "until": None, "labels": labels, "label_table": None, "columns": COLUMNS,
                  "feedback": "feedback.jsonl", "feedback_weight": 3.0, "label_mix_prior": None}  # fmt: skip
    ingest(Ingest.model_validate(parameters), paths)
    return pd.read_parquet(paths.corpus), pd.read_csv(paths.quarantine / "ingest.csv"), read_json(paths.report("ingest.json"))


def test_folders_boxes_and_maildirs(paths: Paths) -> None:
    mail = write(paths.root / "mail", {"good/1.eml": PLAIN, "bad/1.eml": PLAIN, "good/empty.eml": b" \n"})
    box = mailbox.mbox(mail / "archive.mbox")
    box.add(b"Subject: boxed one\n\nbody\n")
    box.add(b"Subject: boxed two\n\nFrom the body\n")
    box.flush()
    mailbox.Maildir(mail / "good" / "dir").add(b"Subject: dir one\n\nbody\n")
    corpus, quarantine, report = ingested(paths, {"bad": "spam", "good": "ham", "archive": "ham"})
    assert sorted(corpus.subject) == ["boxed one", "boxed two", "dir one", "greenhouse", "greenhouse"]
    assert corpus.set_index("id").label.to_dict()["bad/1.eml"] == "spam"
    assert corpus.set_index("id").source.to_dict()["archive.mbox#1"] == "archive"
    assert corpus.set_index("id").text.to_dict()["archive.mbox#1"] == "From the body"
    assert dict(zip(quarantine.id, quarantine.reason, strict=True)) == {"good/empty.eml": "empty_file"}
    assert (report["files"], report["boxes"], report["in_boxes"], report["rows"]) == (5, 1, 2, 6)


def test_a_maildir_and_its_subfolders_as_the_source(paths: Paths) -> None:
    directory = mailbox.Maildir(paths.root / "mail")
    directory.add(b"Subject: top\n\nbody\n")
    directory.add_folder("Spam").add(b"Subject: filed\n\nbody\n")
    corpus, _, report = ingested(paths, {"mail": "ham", "Spam": "spam"})
    assert corpus.set_index("subject").label.to_dict() == {"top": "ham", "filed": "spam"}
    assert report["quarantined"] == {"maildir_index": 1}, "Python's maildirfolder"


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("name", ["Inbox", "archive.MBOX", "2002-August.txt", "list.2002", "a.mbox", "b.mbx", "mbox", "x.eml"])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\n\n", b"\xef\xbb\xbf\r\n"])
def test_a_box_is_known_by_its_content(tmp_path: Path, name: str, line_end: bytes, before: bytes) -> None:
    write(tmp_path / "mail", {f"spam/{name}": before + BOX.replace(b"\n", line_end)})
    rows = rows_of(tmp_path / "mail")
    assert [(row.id, row.content["subject"], row.content["text"], row.label) for row in rows if isinstance(row, Row)] == [
        (f"spam/{name}#0", "first", "Two lots.", "spam"),
        (f"spam/{name}#1", "second", "short", "spam"),
    ]


def test_a_box_in_the_folder_itself_is_a_group_of_its_own_name(tmp_path: Path) -> None:
    write(tmp_path / "mail", {"ham.mbox": BOX, "spam.mbox.gz": zipped(BOX), "news.2002": BOX, "one.eml": PLAIN})
    assert Counter(row.source for row in rows_of(tmp_path / "mail")) == {"ham": 2, "spam": 2, "news": 2, "mail": 1}


def test_one_message_is_a_box_only_by_name(tmp_path: Path) -> None:
    one = BOX.partition(b"\n\nFrom b")[0]
    write(tmp_path, {"a/1.mbox": one, "a/1.eml": one, "a/1": one, "a/1.txt": one, "a/2.mbox": PLAIN})
    assert read(tmp_path) == {"a/1.mbox#0": "first", "a/1.eml": "first", "a/1": "first", "a/1.txt": "first",
                              "a/2.mbox#0": "greenhouse"}  # fmt: skip


def test_the_head_of_a_box_that_was_cut_off_is_told(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"a/1.mbox": b"the end of a mail\n\n" + BOX, "a/2.mbox": b"no envelope here\n", "a/3.mbox": PLAIN + b"\n" + BOX},
    )
    assert read(tmp_path) == {
        "a/1.mbox": "mbox_head_cut", "a/1.mbox#0": "first", "a/1.mbox#1": "second",
        "a/2.mbox": "mbox_without_messages",
        "a/3.mbox#0": "greenhouse", "a/3.mbox#1": "first", "a/3.mbox#2": "second",
    }  # fmt: skip


NOT_MAIL = {
    "2.msg": (contents._OLE + bytes(range(256)) * 8, "outlook_msg"),
    "renamed.eml": (contents._OLE + b"\0" * 600 + contents._OUTLOOK + b"\0" * 9000, "outlook_msg"),
    "letter.doc": (contents._OLE + b"\0" * 600, "office_file"),
    "Thumbs.db": (contents._OLE + b"\0" * 600, "system_file"),
    "desktop.ini": (b"[.ShellClassInfo]\r\n", "system_file"),
    "THUMBS.DB": (b"\0\1\2", "system_file"),
    ".DS_Store": (b"\0\0\0\1Bud1" + b"\0" * 50, "system_file"),
    "._1.eml": (b"\0\5\x16\7", "system_file"),
    ".hidden": (PLAIN, "hidden"),
    ".git/config": (b"[core]\n", "hidden"),
    "3.eml": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 812\n", "git_lfs_pointer"),
    "4.eml": (b"/annex/objects/MD5E-s812--00.eml\n", "git_annex_pointer"),
    "Inbox.msf": (b"// <!-- <mdb:mork:z v=\"1.4\"/> -->\n< <(a=c)> (80=ns)>\n", "mail_index"),
    "Trash.MSF": (b"x", "mail_index"),
    "dovecot-uidlist": (b"3 V1 N1\n1 :a\n", "mail_index"),
    "1.png": (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "image"),
    "1.jpg": (b"\xff\xd8\xff\xe0" + b"\0" * 50, "image"),
    "1.pdf": (b"%PDF-1.4\n", "pdf"),
    "1.pst": (b"!BDN" + b"\0" * 50, "outlook_store"),
    "winmail.dat": (b"\x78\x9f\x3e\x22" + b"\0" * 50, "outlook_attachment"),
    "1.zst": (b"\x28\xb5\x2f\xfd\0\0", "archive_unpack_it_first"),
    "1.7z": (b"7z\xbc\xaf\x27\x1c\0", "archive_unpack_it_first"),
    "1.rar": (b"Rar!\x1a\7\0", "archive_unpack_it_first"),
    "1.bin": (random.Random(1).randbytes(5000), "binary"),
    "1.so": (b"\x7fELF\2\1\1" + b"\0" * 50, "binary"),
    "mmdf": (b"\1\1\1\1\n" + PLAIN + b"\1\1\1\1\n", "box_of_another_kind"),
    "RMAIL": (b"BABYL OPTIONS:\nVersion: 5\n", "box_of_another_kind"),
    "cmds": (b"mv 00001.aaa 00002.bbb\nmv 00003.ccc 00004.ddd\n", "not_a_message"),
    "README": (b"Of the year 2002.\n\nSubject: is a header's name.\n", "not_a_message"),
    "note.txt": (b"Meet me at noon.\n", "not_a_message"),
    "page.html": (b"<html><body>From: here</body></html>\n", "not_a_message"),
    "front.md": (b"---\ntitle: x\ndate: 2002-08-22\n---\ntext\n", "not_a_message"),
    "labels.csv": (b"file,label\n1.eml,ham\n", "not_a_message"),
    "linked": (b"../elsewhere", "link_as_text"),
    "empty": (b"", "empty_file"),
    "blank.eml": (b"\xef\xbb\xbf \r\n\n", "empty_file"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_MAIL)
def test_what_is_no_message_has_a_reason(tmp_path: Path, name: str) -> None:
    content, reason = NOT_MAIL[name]
    write(tmp_path, {f"ham/{name}": content, "ham/1.eml": PLAIN})
    assert read(tmp_path) == {f"ham/{name}": reason, "ham/1.eml": "greenhouse"}


def archive_of(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("1.eml", PLAIN)
    else:
        with tarfile.open(fileobj=file, mode="w:gz" if kind == "tgz" else "w") as tar:
            info = tarfile.TarInfo("ham/1.eml")
            info.size = len(PLAIN)
            tar.addfile(info, io.BytesIO(PLAIN))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_archives_are_to_be_unpacked(tmp_path: Path, kind: str) -> None:
    write(tmp_path, {f"ham/mail.{kind}": archive_of(kind)})
    assert read(tmp_path) == {f"ham/mail.{kind}": "archive_unpack_it_first"}


@pytest.mark.parametrize(
    "head",
    [b"", b"\xef\xbb\xbf", b"\n\r\n", b">From a@b.c Thu Aug 22 13:17:22 2002\n", b"From nobody\n", b"no header line\n",
     b"X-Spam: no\n", b"Custom: 1\n"],
)  # fmt: skip
def test_messages_with_odd_first_lines_are_messages(tmp_path: Path, head: bytes) -> None:
    write(tmp_path, {"ham/1.txt": head + PLAIN})
    (row,) = rows_of(tmp_path)
    assert isinstance(row, Row)
    assert "A note about the garden." in row.content["text"]


def test_headers_need_no_company_and_an_envelope_needs_no_headers(tmp_path: Path) -> None:
    write(tmp_path, {"a/1": b"To: all\n\nbody\n", "a/2": b"From a@b.c Thu Aug 22 13:17:22 2002\n\nbody\n",
                     "a/3": b"subject : x\n\n", "a/4": "Subject: u\n\nbody\n".encode("utf-16")})  # fmt: skip
    rows = rows_of(tmp_path)
    assert [type(row) for row in rows] == [Row] * 4
    assert [row.content["text"] for row in rows if isinstance(row, Row) and row.id != "a/3"] == ["body"] * 3


def test_a_file_of_apple_mail_is_its_message_alone(tmp_path: Path) -> None:
    plist = b'<?xml version="1.0"?>\n<plist><dict/></plist>\n'
    write(tmp_path, {"a/1.emlx": b"%-10d\n" % len(PLAIN) + PLAIN + plist, "a/2.emlx": PLAIN, "a/3.emlx": b"99999\n" + PLAIN})
    assert [row.content["text"] for row in rows_of(tmp_path) if isinstance(row, Row)] == ["A note about the garden."] * 3


def test_a_disk_that_is_full_is_not_a_broken_file(tmp_path: Path) -> None:
    write(tmp_path, {"a/1.gz": zipped(PLAIN + b"line\n" * 2**19), "a/2.gz": zipped(PLAIN)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    try:
        found = read(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert found == {"a/1.gz": "unreadable: File too large", "a/2.gz": "greenhouse"}


@pytest.mark.parametrize(("ending", "pack"), [("gz", zipped), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_packed_files_are_read_by_their_content(tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]) -> None:
    twice = pack(BOX[: BOX.index(b"From b")]) + pack(BOX[BOX.index(b"From b") :])  # as logs are appended to
    write(tmp_path, {f"a/1.eml.{ending}": pack(PLAIN), f"a/box.mbox.{ending}": pack(BOX), "a/3": pack(PLAIN),
                     f"a/4.{ending}": twice, f"a/5.{ending}": pack(b"x\n"), f"a/6.{ending}": pack(b""),
                     f"a/cut.{ending}": pack(PLAIN)[:-9],
                     f"a/large.{ending}": pack(PLAIN + b"line\n" * 300_000), f"a/7.{ending}": PLAIN})  # fmt: skip
    assert read(tmp_path) == {
        f"a/1.eml.{ending}": "greenhouse", f"a/box.mbox.{ending}#0": "first", f"a/box.mbox.{ending}#1": "second",
        "a/3": "greenhouse", f"a/4.{ending}#0": "first", f"a/4.{ending}#1": "second", f"a/5.{ending}": "not_a_message",
        f"a/6.{ending}": "empty_file", f"a/cut.{ending}": "packed_broken", f"a/large.{ending}": "greenhouse",
        f"a/7.{ending}": "greenhouse",
    }  # fmt: skip


@given(st.binary(max_size=300), st.integers(0, 200))
@settings(max_examples=200, deadline=None)
def test_broken_packed_files_are_told(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    for pack in (zipped, bz2.compress, lzma.compress):
        packed = pack(PLAIN * 3)
        found = contents.unpack(packed[:10] + packed[10:at] + noise)
        assert isinstance(found, bytes | str)
        assert not isinstance(found, str) or found == "packed_broken"


def test_what_unpacks_to_more_than_the_bound_is_told_and_costs_no_memory(tmp_path: Path) -> None:
    bomb = zipped(b"\0" * 2**20, 9) * (contents.UNPACKED_BYTES // 2**20 + 2)
    write(tmp_path, {"a/bomb.gz": bomb, "a/twice.gz": zipped(zipped(PLAIN))})
    tracemalloc.start()
    found = read(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == {"a/bomb.gz": "packed_too_much", "a/twice.gz": "binary"}
    assert peak < 2**24


def test_large_boxes_are_read_in_little_memory_and_large_messages_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.kinds.text_classification.data.mboxes.MESSAGE_BYTES", 2**21)
    monkeypatch.setattr("tasks.kinds.text_classification.data.folders.MESSAGE_BYTES", 2**21)
    box = tmp_path / "mail/a/Inbox"
    box.parent.mkdir(parents=True)
    with box.open("wb") as file:
        for number in range(40):
            lines = 2500 if number == 7 else 900
            file.write(
                b"From a@b.c Thu Aug 22 13:17:22 2002\nSubject: %d\n\n" % number + (b"words " * 170 + b"\n") * lines + b"\n"
            )
    (box.parent / "large.eml").write_bytes(PLAIN + b"line " * 2**19)
    (box.parent / "blank").write_bytes(b"\n" * 2**22)
    tracemalloc.start()
    found: Counter[str] = Counter()
    for row in read_folder(tmp_path / "mail", {}, None):
        found[row.reason if isinstance(row, Rejected) else "message"] += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == {"message": 39, "message_too_large": 2, "empty_file": 1}
    assert peak < 2**24, "the box is 38 MB large"


def test_a_maildir_may_lack_folders_and_hold_indexes(tmp_path: Path) -> None:
    named = "1030000000.M1P2.host"
    write(tmp_path / "mail", {
        f"cur/{named}:2,S": PLAIN, f"new/{named}": PLAIN, "dovecot-uidlist": b"3 V1 N1\n", "dovecot.index": b"\7\2\0",
        "subscriptions": b"INBOX\n", "maildirfolder": b"", "loose.eml": PLAIN,
        f".Spam/cur/{named}:2,": PLAIN, f".Junk/new/{named}": PLAIN, f".Junk/tmp/{named}": PLAIN, ".Both/cur/1": PLAIN,
        ".Both/new/2": BOX, ".Both/dovecot-keywords": b"0 x\n", ".notmuch/xapian/1": b"\0", "cur/.lock": b"x",
        f"work/cur/{named}:2,RS": BOX, f"work/tmp/{named}": b"half",
    })  # fmt: skip
    assert read(tmp_path / "mail") == {
        f"cur/{named}:2,S": "greenhouse", f"new/{named}": "greenhouse", "dovecot-uidlist": "maildir_index",
        "dovecot.index": "maildir_index", "subscriptions": "maildir_index", "maildirfolder": "maildir_index",
        "loose.eml": "greenhouse", f".Spam/cur/{named}:2,": "greenhouse", f".Junk/new/{named}": "greenhouse",
        f".Junk/tmp/{named}": "maildir_not_delivered", ".Both/cur/1": "greenhouse", ".Both/new/2": "first",
        ".Both/dovecot-keywords": "maildir_index", ".notmuch/xapian/1": "hidden", "cur/.lock": "hidden",
        f"work/cur/{named}:2,RS": "first", f"work/tmp/{named}": "maildir_not_delivered",
    }  # fmt: skip
    groups = {row.id.split("/")[0]: row.source for row in rows_of(tmp_path / "mail")}
    assert (groups["cur"], groups["new"], groups[".Spam"], groups[".Junk"], groups["work"]) == (
        "mail", "mail", "Spam", "Junk", "work")  # fmt: skip


def test_a_folder_named_new_is_no_maildir_by_its_name_alone(tmp_path: Path) -> None:
    write(tmp_path, {"new/1.eml": PLAIN, "old/1.eml": PLAIN, "tmp/1.eml": PLAIN})
    assert {row.source for row in rows_of(tmp_path)} == {"new", "old", "tmp"}


def test_links_are_followed_once(tmp_path: Path) -> None:
    mail = write(tmp_path / "mail", {"ham/1.eml": PLAIN, "ham/sub/2.eml": PLAIN})
    outside = write(tmp_path / "outside", {"1.eml": PLAIN, "deep/2.eml": PLAIN, "box.mbox": BOX})
    (mail / "spam").symlink_to("../outside")
    (mail / "a-first").symlink_to("ham")
    (mail / "later").symlink_to(outside)
    (mail / "part").symlink_to(outside / "deep")
    (mail / "ham/up").symlink_to("..")
    (mail / "ham/top").symlink_to("/")
    (mail / "ham/self").symlink_to(mail / "ham")
    (mail / "ham/gone.eml").symlink_to("../../nowhere.eml")
    (mail / "ham/through").symlink_to("1.eml/x")
    (mail / "ham/ring").symlink_to("ring2")
    (mail / "ham/ring2").symlink_to("ring")
    (mail / "ham/copy.eml").symlink_to("1.eml")
    (mail / "ham/other.eml").symlink_to(outside / "1.eml")
    (outside / "back").symlink_to(mail)
    assert read(mail) == {
        "ham/1.eml": "greenhouse", "ham/sub/2.eml": "greenhouse", "a-first": "link_seen_before",
        "later/1.eml": "greenhouse", "later/deep/2.eml": "greenhouse", "later/box.mbox#0": "first",
        "later/box.mbox#1": "second", "later/back": "link_loop",
        "spam": "link_seen_before", "part": "link_seen_before", "ham/up": "link_loop",
        "ham/top": "link_loop", "ham/self": "link_loop", "ham/gone.eml": "link_dangling", "ham/through": "link_dangling",
        "ham/ring": "link_loop", "ham/ring2": "link_loop", "ham/copy.eml": "link_seen_before",
        "ham/other.eml": "link_seen_before",
    }  # fmt: skip


def test_a_label_folder_that_is_a_link_is_the_group(tmp_path: Path) -> None:
    mail = write(tmp_path / "mail", {"ham/1.eml": PLAIN})
    (mail / "spam").symlink_to(write(tmp_path / "elsewhere", {"1.eml": PLAIN, "sub/2.eml": PLAIN}))
    (tmp_path / "linked").symlink_to(mail)
    for root in (mail, tmp_path / "linked"):
        assert {row.id: row.source for row in rows_of(root)} == {
            "ham/1.eml": "ham",
            "spam/1.eml": "spam",
            "spam/sub/2.eml": "spam",
        }


def test_two_linked_folders_that_link_each_other_end(tmp_path: Path) -> None:
    mail = write(tmp_path / "mail", {"ham/1.eml": PLAIN})
    for name, other in (("a", "b"), ("b", "a")):
        (write(tmp_path / name, {"1.eml": PLAIN}) / "other").symlink_to(tmp_path / other)
    (mail / "spam").symlink_to(tmp_path / "a")
    assert read(mail) == {"ham/1.eml": "greenhouse", "spam/1.eml": "greenhouse", "spam/other/1.eml": "greenhouse",
                          "spam/other/other": "link_loop"}  # fmt: skip


def test_a_file_behind_two_links_is_read_at_the_first_and_what_lies_hidden_is_read_through_a_link(tmp_path: Path) -> None:
    mail = write(tmp_path / "mail", {".annex/x/1.eml": PLAIN, ".store/spam/2.eml": PLAIN})
    write(tmp_path, {"out.eml": PLAIN})
    (mail / "ham").mkdir()
    (mail / "ham/1.eml").symlink_to("../.annex/x/1.eml")
    (mail / "ham/2.eml").symlink_to(tmp_path / "out.eml")
    (mail / "ham/3.eml").symlink_to(tmp_path / "out.eml")
    (mail / "spam").symlink_to(".store/spam")
    (mail / ".tools").symlink_to("/usr")
    assert read(mail) == {
        ".annex/x/1.eml": "hidden", ".store/spam/2.eml": "hidden", "ham/1.eml": "greenhouse", "ham/2.eml": "greenhouse",
        "ham/3.eml": "link_seen_before", "spam/2.eml": "greenhouse", ".tools": "hidden",
    }  # fmt: skip


def test_folders_of_a_maildir_may_be_links(tmp_path: Path) -> None:
    mail = write(tmp_path / "mail", {"cur/1:2,S": PLAIN, "new/1030000000.a.b": PLAIN})
    (mail / ".Spam").symlink_to(write(tmp_path / "spam", {"cur/9:2,": PLAIN, "new/1030000001.a.b": PLAIN}))
    assert {row.id: row.source for row in rows_of(mail)} == {
        "cur/1:2,S": "mail", "new/1030000000.a.b": "mail", ".Spam/cur/9:2,": "Spam", ".Spam/new/1030000001.a.b": "Spam",
    }  # fmt: skip


def test_special_files_are_not_opened(tmp_path: Path) -> None:
    mail = write(tmp_path / "mail", {"ham/1.eml": PLAIN})
    os.mkfifo(mail / "ham/pipe")
    (mail / "ham/linked").symlink_to("pipe")
    (mail / "ham/zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(mail / "ham/socket"))
    assert read(mail) == {"ham/1.eml": "greenhouse", "ham/pipe": "special_file", "ham/linked": "special_file",
                          "ham/zero": "special_file", "ham/socket": "special_file"}  # fmt: skip


def test_what_may_not_be_read_is_told(tmp_path: Path) -> None:
    mail = write(tmp_path / "mail", {"ham/1.eml": PLAIN, "ham/2.eml": PLAIN, "spam/1.eml": PLAIN, "x/1.eml": PLAIN})
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.geteuid() and path.stat().st_mode & 0o055 != 0o055 and path != Path("/"):
            path.chmod(0o755)
    (mail / "ham/2.eml").chmod(0)
    (mail / "spam").chmod(0)
    (mail / "x").chmod(0o444)
    try:
        with ordinary_user():
            found = read(mail)
            (tmp_path / "mail/spam").stat()
            with pytest.raises(StageError, match="spam: it cannot be read"):
                rows_of(mail / "spam")
    finally:
        (mail / "spam").chmod(0o755)
        (mail / "x").chmod(0o755)
    denied = "unreadable: Permission denied"
    assert found == {"ham/1.eml": "greenhouse", "ham/2.eml": denied, "spam": denied, "x/1.eml": denied}


def test_names_that_are_no_utf8_or_hold_anything_else(tmp_path: Path) -> None:
    names = ["box#1", "a#1", "new\nline", "c\rd", " x ", "grün.eml", "100%.eml", 'a,"b', "%E9"]
    mail = write(tmp_path / "mail", {"ham/box": BOX} | {f"ham/{name}": PLAIN for name in names})
    write(mail, {os.fsdecode(name): PLAIN for name in (b"caf\xe9/1.eml", b"caf\xe9/\xff\xfe", b"caf\xe9/\xff", b"ham/\xe9")})
    assert sorted(read(mail)) == sorted([
        "ham/box#0", "ham/box#1", "./ham/box%231", "ham/a#1", "./ham/new%0Aline",
        "./ham/c%0Dd", "ham/ x ", "ham/grün.eml", "ham/100%.eml", 'ham/a,"b',
        "ham/%E9", "./ham/%E9", "./caf%E9/1.eml", "./caf%E9/%FF%FE", "./caf%E9/%FF",
    ])  # fmt: skip
    assert {row.source for row in rows_of(mail)} == {"ham", "caf%E9"}


def test_odd_names_come_through_the_stage(paths: Paths) -> None:
    no_utf8 = os.fsdecode(b"ham/\xe9")
    write(paths.root / "mail", {"ham/new\nline": PLAIN, "ham/Icon\r": b"x", "gru\u0308n/1.eml": PLAIN, no_utf8: b"no mail"})
    corpus, quarantine, report = ingested(paths, {"grün": "spam"})
    assert set(corpus.id) == {"./ham/new%0Aline", "gru\u0308n/1.eml"}
    assert dict(zip(corpus.id, corpus.label, strict=True))["gru\u0308n/1.eml"] == "spam"
    assert dict(zip(quarantine.id, quarantine.reason, strict=True)) == {
        "./ham/Icon%0D": "system_file", "./ham/%E9": "not_a_message",
    }  # fmt: skip
    assert report["files"] == 4


def test_a_label_table_labels_by_path_and_is_no_file_of_the_source(tmp_path: Path) -> None:
    write(tmp_path, {"0.eml": PLAIN, "1.eml": PLAIN, "sub/2.eml": PLAIN, "box.mbox": BOX,
                     "labels.csv": b"file,label\n0.eml,ham\nsub/2.eml,spam\nbox.mbox#1,spam\n"})  # fmt: skip
    labels = {row.id: row.label for row in rows_of(tmp_path, "labels.csv") if isinstance(row, Row)}
    assert labels == {"0.eml": "ham", "1.eml": None, "sub/2.eml": "spam", "box.mbox#0": None, "box.mbox#1": "spam"}


def test_a_folder_that_holds_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="there is no such folder"):
        rows_of(tmp_path / "gone")
    with pytest.raises(StageError, match="there is no such folder"):
        rows_of(write(tmp_path / "a", {"file": b"x"}) / "file")
    with pytest.raises(StageError, match="the folder holds no message"):
        rows_of(write(tmp_path / "b", {".hidden": PLAIN, ".git/x": b"x"}))


def test_many_nested_folders_end_in_a_reason_and_not_in_an_error(tmp_path: Path) -> None:
    write(tmp_path, {"ham/1.eml": PLAIN})
    here = os.open(tmp_path / "ham", os.O_RDONLY)
    for _ in range(30):  # the whole path is longer than the system takes
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    found = read(tmp_path)
    assert found.pop("ham/1.eml") == "greenhouse"
    assert list(found.values()) == ["unreadable: File name too long"]


NAMES = st.sampled_from(
    ["a", "b.eml", "c.mbox", "d#0", "d", os.fsdecode(b"\xe9"), "e\nf", ".g", "cur", "new", "tmp", "1030000000.x.y:2,S", "h.gz"]
)
FILES = st.sampled_from([PLAIN, BOX, b"", b"text", zipped(PLAIN), zipped(BOX), zipped(PLAIN)[:-4], b"\0\1", b"From x\n\n"])
PLACES = st.lists(NAMES, min_size=1, max_size=4)
TREES = st.lists(st.tuples(PLACES, st.one_of(FILES, st.lists(NAMES, max_size=3))), max_size=12)


def grow(root: Path, tree: list[tuple[list[str], bytes | list[str]]]) -> None:
    """Files, and links to places below ``root`` or to itself, where there is room for them."""
    for names, content in tree:
        path = root.joinpath(*names)
        with contextlib.suppress(OSError):  # a name that is taken, or a folder below a file or a link
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, list):
                path.symlink_to(root.joinpath(*content))
            elif not path.is_symlink() and not path.exists():
                path.write_bytes(content)


@given(TREES)
@settings(max_examples=150, deadline=None)
def test_the_count_of_files_is_the_count_of_rows_and_reasons(
    tmp_path_factory: pytest.TempPathFactory, tree: list[tuple[list[str], bytes | list[str]]]
) -> None:
    """Random trees of files, boxes, broken packed files, and links to anywhere: each file on disk has its row."""
    root = write(tmp_path_factory.mktemp("tree") / "mail", {"sure.eml": PLAIN})
    grow(root, tree)
    rows = rows_of(root)
    assert len({row.id for row in rows}) == len(rows)
    found = [unquote_to_bytes(file[2:]) if file.startswith("./") else file.encode() for file in {row.file for row in rows}]
    on_disk, links = set(), set()
    for folder, inner, names in os.walk(os.fsencode(root)):
        here = os.path.relpath(folder, os.fsencode(root))
        on_disk |= {os.path.normpath(here + b"/" + name) for name in names}
        links |= {
            os.path.normpath(here + b"/" + name) for name in inner if Path(os.fsdecode(folder), os.fsdecode(name)).is_symlink()
        }
    followed = links - set(found)  # these stand for what is behind them, any other link for itself
    assert sorted(name for name in found if not name.startswith(tuple(link + b"/" for link in followed))) == sorted(
        on_disk | links - followed
    )
