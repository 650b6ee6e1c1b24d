"""The evaluation as one table: for the end of a run, for Prefect, and as Markdown for README.

python -m tasks.release.table        prints reports/evaluation.json as Markdown
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tasks.files import read_json
from tasks.stage import StageError, add_option, find_workload

SHOWN = (("test", "pr_auc"), ("golden", "pr_auc"), ("future", "pr_auc"), ("future", "f1"), ("future", "fpr_at_recall"))
"""Splits and metrics where a label is positive."""
SHOWN_OF_ALL = tuple((split, metric) for metric in ("accuracy", "pr_auc") for split in ("test", "golden", "future"))
"""Where none is."""
NAMES = {"accuracy": "accuracy", "pr_auc": "PR-AUC", "f1": "F1", "fpr_at_recall": "FPR at recall"}


def evaluation_rows(report: dict[str, Any]) -> list[dict[str, str]]:
    """A row a variant: what it weighs, what it costs, how good it is. A figure that there is not is a dash; a split that
    there is not has no column."""
    faster = f"times faster than {report['fastest_teacher']}"
    rows = []
    for name, entry in report["variants"].items():
        against = report["against_teacher"][name]
        row = {
            "variant": name,
            "bytes": f"{entry['bytes']:,}",
            "times smaller": f"{against['times_smaller']:.1f}",
            "µs an input": f"{entry['latency_us']:,.0f}",
            faster: f"{against['times_faster']:.1f}",
        }
        for split, metric in SHOWN if report["positive"] is not None else SHOWN_OF_ALL:
            if split not in report["splits"]:
                continue
            value = entry["metrics"].get(split, {}).get(metric)
            row[f"{NAMES[metric]} {split}"] = "-" if value is None else f"{value:.4f}"
        rows.append(row)
    return rows


def markdown(rows: list[dict[str, str]]) -> str:
    lines = ["| " + " | ".join(rows[0]) + " |", "| --- |" + " ---: |" * (len(rows[0]) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row.values()) + " |" for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.release.table", description=__doc__)
    add_option(parser)
    try:
        path = find_workload(parser.parse_args().workload).report("evaluation.json")
    except StageError as error:
        sys.exit(f"table: {error}")
    if not path.exists():
        sys.exit(f"{path.name}: not there yet; `make run` makes it")
    print(markdown(evaluation_rows(read_json(path))))


if __name__ == "__main__":
    main()
