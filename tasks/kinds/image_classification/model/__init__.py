"""Image classification, its model part: pixels for logistic regression, and a residual network (``tasks.kinds.ModelPart``)."""

from tasks.kinds.image_classification.model.learning import ResidualTeacher, load_teacher, new_teacher
from tasks.kinds.image_classification.model.pixels import Pixels, quick_features, vectorizer
from tasks.kinds.image_classification.model.settings import Baseline, Train

__all__ = ["Baseline", "Pixels", "ResidualTeacher", "Train", "load_teacher", "new_teacher", "quick_features", "vectorizer"]
