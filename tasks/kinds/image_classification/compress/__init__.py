"""Image classification, its compress part: small convolutional students (``tasks.kinds.CompressPart``)."""

from tasks.kinds.image_classification.compress.families import (
    context,
    extra_inputs,
    families,
    forecast,
    learn,
    new_student,
    saved_context,
)
from tasks.kinds.image_classification.compress.pruning import remove_share
from tasks.kinds.image_classification.compress.quantizing import quantize_student
from tasks.kinds.image_classification.compress.settings import Distill, Prune, Quantize

__all__ = [
    "Distill",
    "Prune",
    "Quantize",
    "context",
    "extra_inputs",
    "families",
    "forecast",
    "learn",
    "new_student",
    "quantize_student",
    "remove_share",
    "saved_context",
]
