"""Image classification, its data part: image files and arrays as model inputs (``tasks.kinds.DataPart``)."""

from tasks.kinds.image_classification.data.inputs import fingerprint, prepare_inputs, serving_settings
from tasks.kinds.image_classification.data.own import EMPTIED, OWN_INGEST
from tasks.kinds.image_classification.data.reading import CONTENT, content_of, read
from tasks.kinds.image_classification.data.rules import (
    MEANINGS,
    expectations,
    measure,
    propose_bounds,
    propose_row_rules,
    row_rules,
    usable,
)
from tasks.kinds.image_classification.data.settings import Ingest, Prepare, Validate

__all__ = [
    "CONTENT",
    "EMPTIED",
    "MEANINGS",
    "OWN_INGEST",
    "Ingest",
    "Prepare",
    "Validate",
    "content_of",
    "expectations",
    "fingerprint",
    "measure",
    "prepare_inputs",
    "propose_bounds",
    "propose_row_rules",
    "read",
    "row_rules",
    "serving_settings",
    "usable",
]
