"""What `make new` writes in place of what only fits another workload's data."""

from __future__ import annotations

from collections.abc import Mapping

OWN_INGEST = """ingest:
  source: table                   # npm | table | folder: what path is
  path: data/table.csv            # an npm pointer file, a .csv/.jsonl/.parquet table, or a folder of messages
  until: null                     # the snapshot: what was received before, as "2026-01-31"; null: everything
  labels: {}                      # npm, folder: source group -> label; a group not named here is its own label
  label_table: null               # folder: a CSV below path with the columns file,label, in place of labels
  columns:                        # table: its names for our columns; null where it has none
    id: null
    received: null
    source: null
    label: label
    subject: null
    text: text
  feedback: data/feedback.jsonl   # what reviewers said of answered messages; a retraining writes it
  feedback_weight: 3.0            # a feedback message counts as so many: only some of the traffic gets a label
  label_mix_prior: 30.0           # feedback messages that the source's label mix counts as; null: labels weigh as in the source
"""
EMPTIED: Mapping[str, str] = {"redact": "[]", "slices": "{}"}
