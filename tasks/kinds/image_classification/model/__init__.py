"""Image classification, its model part: features of the baseline, and a teacher (``tasks.kinds.ModelPart``)."""

from tasks.kinds.image_classification.model.learning import ImageTeacher, load_teacher, new_teacher
from tasks.kinds.image_classification.model.pixels import Gradients, Pixels, quick_features, vectorizer
from tasks.kinds.image_classification.model.settings import Baseline, Train

__all__ = [
    "Baseline",
    "Gradients",
    "ImageTeacher",
    "Pixels",
    "Train",
    "load_teacher",
    "new_teacher",
    "quick_features",
    "vectorizer",
]
