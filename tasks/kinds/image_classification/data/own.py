"""What `make new` writes in place of what only fits another workload's data."""

from __future__ import annotations

from collections.abc import Mapping

OWN_INGEST = """ingest:
  source: folder                  # debian | idx | npz | folder | table: what path is
  path: data/images               # a folder of images by class; or a pointer, idx files, an .npz, a .parquet
  until: null                     # the snapshot: what was received before, as "2026-01-31"; null: everything
  label_names: null               # debian, idx, npz: the names of the labels 0, 1, ...; null: the numbers are the labels
  label_table: null               # folder: a CSV below path with the columns file,label; null: the folder's name is the label
  feedback: data/feedback.jsonl   # what reviewers said of answered images; a retraining writes it
  feedback_weight: 3.0            # a fed-back image counts as so many: only some of the traffic gets a label
  label_mix_prior: 30.0           # fed-back images that the source's label mix counts as; null: labels weigh as in the source
"""
EMPTIED: Mapping[str, str] = {"slices": "{}"}
