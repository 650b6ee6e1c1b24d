"""Every page that the project writes opens whole without a network: made by the real code, read for addresses, opened."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import copy2, copytree

import numpy as np
import pandas as pd
import pytest
import yaml

from service.kinds import serving_class
from service.kinds.text_classification.scorer import Student
from tasks.data.validate import validate
from tasks.files import read_json, write_json
from tasks.kinds.text_classification.data import Validate
from tasks.kinds.text_classification.model import Baseline
from tasks.model.baseline import baseline
from tasks.monitor.drift import Drift, drift
from tasks.monitor.report import Comparison, evidently_snapshot, write_report
from tasks.monitor.sample import Sample
from tasks.monitor.settings import Report as WindowReport
from tasks.release.checks import Check
from tasks.release.compression import Compression, compression
from tasks.release.evaluate import Evaluate, evaluate
from tasks.release.gate import Report, write
from tasks.release.package import drift_reference, seal
from tasks.replay.page import replay_page
from tasks.replay.periods import by_period, total
from tasks.stage import Paths
from tests.conftest import KIND, made_prepared, made_release, made_table, of_kind
from tests.imports import MAIL, ROOT
from tests.outside import browser, opened, outside
from tests.tasks.test_replay import answers

PARAMS = yaml.safe_load((MAIL / "params.yaml").read_text())
VARIANTS = ["baseline", "student", "student-quantized"]


@dataclass(frozen=True)
class Page:
    """A page, and figures of it from the file or the object that it was made of, as a reader sees them."""

    path: Path
    figures: list[str]


def data_docs(paths: Paths) -> Page:
    frame = made_table(["ham", "spam"], 120).assign(source="made", warnings="", known=True)
    frame.loc[:4, "label"] = "eggs"
    frame.to_parquet(paths.corpus, index=False)
    rules = PARAMS["validate"]["row_rules"] | {"received_from": "2019-01-01", "received_until": "2021-01-01"}
    rows = {"min": 50, "max": None, "severity": "hard"}
    validate(Validate.model_validate(PARAMS["validate"] | {"row_rules": rules, "rows": rows}), paths)
    report = read_json(paths.report("validate.json"))
    measured, counts = report["measured"], report["rows"]
    assert counts == {"corpus": 120, "kept": 115, "quarantined": 5}
    figures = [
        format(measured["label_share.spam"], ".6g"),
        f"{measured['rows']:,.0f} 50 hard passed",
        "label_unknown ham, spam 5",
    ]
    figures += [
        f"{len(measured)} of {len(measured)} expectations",
        "115 are kept and 5 are quarantined",
        "Great Expectations 1.",
    ]
    return Page(paths.report("data_docs/index.html"), figures)


def evaluation(paths: Paths) -> Page:
    report = read_json(paths.report("evaluation.json"))
    quality = [report["variants"][name]["metrics"]["test"]["pr_auc"] for name in VARIANTS]
    smaller = report["against_teacher"]["student-quantized"]["times_smaller"]
    return Page(
        paths.report("evaluation.html"), [*(f"{value:.4f}" for value in quality), f"{smaller:.1f}", "Size against quality"]
    )


def compressed(paths: Paths) -> Page:
    report = read_json(paths.report("compression.json"))
    entry = report["models"]["student-quantized"]
    return Page(paths.report("compression.html"), [f"{entry['bytes']:,}", f"{report['disagreements']['test']['rows']:,}"])


def drifted(paths: Paths) -> Page:
    rows = pd.read_parquet(paths.prepared)
    moved = made_prepared(["ham", "spam"], 600, seed=8).assign(split="future")
    moved.assign(raw=[f"{text.upper()} 12345" for text in moved.raw]).to_parquet(paths.prepared)
    drift(Drift.model_validate(PARAMS["drift"]), paths)
    rows.to_parquet(paths.prepared)
    found = read_json(paths.report("drift.json"))
    assert found["drifted"]["columns"]
    share = f"({len(found['drifted']['columns'])} out of {len(found['distances'])})"
    return Page(
        paths.report("drift.html"),
        ["Dataset Drift", f"{len(found['drifted']['columns'])} Drifted Columns", share, *found["drifted"]["columns"]],
    )


def too_few(paths: Paths) -> Page:
    report = paths.report("drift.html").read_bytes()
    drift(Drift.model_validate(PARAMS["drift"] | {"minimum": 10_000}), paths)
    page = paths.report("drift.html").rename(paths.report("too_few.html"))
    paths.report("drift.html").write_bytes(report)
    return Page(page, ["drift.minimum is 10000", f"{(pd.read_parquet(paths.prepared).split == 'future').sum()} rows"])


def window(paths: Paths) -> Page:
    with np.load(paths.release / "reference.npz") as stored:
        reference = dict(stored)
    moved = reference["descriptors"] * 3 + 1
    answered = reference["probabilities"].argmax(axis=1)
    current = Sample(moved, reference["probabilities"], reference["features"], answered)
    settings = WindowReport.model_validate(PARAMS["monitor"]["report"])
    snapshot = evidently_snapshot(settings, Comparison(reference, current, ["ham", "spam"]))
    page = write_report(settings, 3, snapshot, paths)
    found = json.loads(page.with_suffix(".json").read_text())
    assert found["drifted"]
    return Page(page, [*found["drifted"], f"({len(found['drifted'])} out of {len(found['distances'])})"])


def gate(paths: Paths) -> Page:
    checks = [Check("golden", 0.0123, -0.03, True, "better"), Check("bytes", 123456.0, 1000.0, False, "too large")]
    report = Report("0123456789ab", None, True, "2026-01-01T00:00:00Z", False, checks, ["latency_us"])
    return Page(
        write(report, paths.gates, 7).with_suffix(".html"),
        ["0123456789ab: refused", "golden 0.0123 -0.0300 passed", "123,456"],
    )


def replay(paths: Paths) -> Page:
    rows = answers(frozen="shhhhs", restilled="sshhhh", truth="sshhhh")
    report = {
        "since": "2002-07-01", "labelled": 0.1, "delay": 5, "seed": 1, "positive": "spam", "injected": [], "changes": [],
        "recalibrations": [],
        "begins": [], "known": 6,
        "periods": by_period(rows, "spam"), "totals": {"The whole stream": total(rows, "spam", 100, 1)},
        "windows": [{"number": 1, "action": "restill", "surprise": {"label_mix": 4.0}}],
    }  # fmt: skip
    page = paths.root / "replay.html"
    page.write_text(replay_page(report), encoding="utf-8")
    frozen = report["totals"]["The whole stream"]["frozen"]["f1"]  # type: ignore[index]
    return Page(page, ["Frozen, recalibrated and restilled", f"F1 {frozen:.3f} {frozen:.3f} 1.000", "6 inputs"])


MAKERS: dict[str, Callable[[Paths], Page]] = {
    "data_docs": data_docs, "evaluation": evaluation, "compression": compressed, "drift": drifted, "too_few": too_few,
    "window": window, "gate": gate, "replay": replay,
}  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, students: tuple[Path, Path], mlflow_store: Path) -> dict[str, Page]:
    """Each page that the project writes, by the code that writes it, from small data."""
    paths = Paths(of_kind(tmp_path_factory.mktemp("pages")))
    paths.prepared.parent.mkdir()
    frame = made_prepared(["ham", "spam"], 350, seed=4)
    frame.to_parquet(paths.prepared)
    normaliser = {"steps": ["unicode", "html", "whitespace"], "redact": [], "characters": 4000}
    write_json(paths.schema, {"kind": KIND, "labels": ["ham", "spam"], "positive": "spam", "normaliser": normaliser})
    write_json(paths.root / "data/rivals.json", {})
    for student, name in zip(students, VARIANTS[1:], strict=True):
        copytree(student, paths.model(name))
    made_release(students[1], paths.release)
    serving = serving_class(KIND)(read_json(paths.release / "settings.json"))
    np.savez(paths.release / "reference.npz", **drift_reference(serving, Student(students[1]), frame, 1.0))
    seal(paths.release)
    copy2(mlflow_store, paths.root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        baseline(Baseline.model_validate(PARAMS["baseline"] | {"C": [10]}), paths)
        small = {"variants": VARIANTS, "teacher": "baseline", "resamples": 20, "timing_inputs": 5, "slices": {}}
        evaluate(Evaluate.model_validate(PARAMS["evaluate"] | small), paths)
        shorter = {"path": VARIANTS, "resamples": 50, "student": "student-quantized", "beside": []}
        compression(Compression.model_validate(PARAMS["compression"] | shorter), paths)
    return {name: make(paths) for name, make in MAKERS.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_a_page_names_no_other_host_in_what_it_loads(pages: dict[str, Page], name: str) -> None:
    page = pages[name].path.read_text(encoding="utf-8")
    assert outside(page) == []
    assert "<!doctype html" in page[:200].lower()


def test_every_template_makes_a_page_that_is_looked_at() -> None:
    templates = {path.name.partition(".")[0] for path in (ROOT / "tasks").rglob("*.html.j2")} - {"page"}
    assert templates <= set(MAKERS), "a new page needs a maker here"


@pytest.mark.parametrize("name", MAKERS)
def test_a_browser_without_a_network_shows_the_figures(pages: dict[str, Page], name: str, tmp_path: Path) -> None:
    chromium = browser()
    if chromium is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium-headless-shell)")
    seen = opened(chromium, pages[name].path, tmp_path)
    assert seen.asked == []
    assert "Uncaught" not in seen.said
    for figure in pages[name].figures:
        assert figure in seen.text


@pytest.mark.parametrize(
    "part",
    [
        "<script src='https://cdn.example/x.js'></script>",
        "<script src=//cdn.example/x.js></script>",
        "<link rel=stylesheet href='https://cdn.example/x.css'>",
        "<img srcset='small.png 1x, https://cdn.example/large.png 2x'>",
        "<style>@import 'https://cdn.example/x.css';</style>",
        "<style>@import url(https://cdn.example/x.css);</style>",
        "<style>@media print { p { background: url('//cdn.example/x.png') } }</style>",
        "<style>@font-face { src: url(https://cdn.example/x.woff) }</style>",
        "<p style='background: url(https://cdn.example/x.png)'>",
        "<svg><image xlink:href='https://cdn.example/x.png'/></svg>",
        "<svg><rect fill='url(https://cdn.example/x.svg#a)'/></svg>",
        "<object data='https://cdn.example/x'></object>",
        "<video poster='https://cdn.example/x.png'></video>",
        "<iframe srcdoc='&lt;img src=https://cdn.example/x.png&gt;'></iframe>",
        "<meta http-equiv=refresh content='0; url=https://cdn.example/'>",
        "<base href='https://cdn.example/'>",
        "<script>fetch('https://cdn.example/x.json')</script>",
        "<script type=module>import x from 'https://cdn.example/x.js'</script>",
        "<script>image.src = `https://cdn.example/x.png`</script>",
        "<script>request.open('GET', 'https://cdn.example/')</script>",
        "<script>new WebSocket('wss://cdn.example/')</script>",
    ],
)
def test_an_address_of_another_host_is_found(part: str) -> None:
    assert len(outside(f"<!doctype html><html><body>{part}</body></html>")) == 1


@pytest.mark.parametrize(
    "part",
    [
        "<a href='https://docs.example/'>read on</a>",
        "<img src='data:image/png;base64,AAAA'>",
        "<link rel=stylesheet href=style.css>",
        "<svg xmlns='http://www.w3.org/2000/svg'><use href='#a'/></svg>",
        "<style>p { background: url(#a) } /* https://docs.example */</style>",
        "<script>const help = 'https://docs.example/'; throw Error(help)</script>",
        "<p>https://docs.example/</p>",
    ],
)
def test_what_loads_nothing_is_left_alone(part: str) -> None:
    assert outside(f"<!doctype html><html><body>{part}</body></html>") == []


def test_a_browser_tells_what_a_page_asks_for(tmp_path: Path) -> None:
    chromium = browser()
    if chromium is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium-headless-shell)")
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><body><p>seen</p><p style='display:none'>hidden</p><script src='http://cdn.example/x.js'></script>"
        "<script>document.body.append(' made ' + 6 * 7); $(1)</script></body>"
    )
    seen = opened(chromium, page, tmp_path / "profile")
    assert seen.asked == ["http://cdn.example/x.js"]
    assert "made 42" in seen.text
    assert "Uncaught ReferenceError" in seen.said
