"""A teacher network that is fine-tuned: any image model that transformers loads, mean pooling, one linear layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from service.kinds.image_classification.images import Shape
from tasks.model.pretrained import located
from tasks.stage import StageError


class Pretrained(nn.Module):
    """Logits of scaled images: ``float[n, channels, height, width]`` -> ``float[n, labels]``.

    Pooled are the positions of the last layer: tokens of a transformer, or places of a convolutional network.
    """

    def __init__(self, encoder: nn.Module, width: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, labels)
        config: dict[str, Any] = encoder.config.to_dict()  # type: ignore[operator,union-attr]
        self.plan: dict[str, Any] = {"pretrained": config, "width": width, "labels": labels}

    def pool(self, images: Tensor) -> Tensor:
        """The pooled features ``float[n, width]``."""
        return pooled(self.encoder, images)

    def classify(self, features: Tensor) -> Tensor:
        """Logits of pooled features."""
        logits: Tensor = self.head(self.dropout(features))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.pool(images))


def pooled(encoder: nn.Module, images: Tensor) -> Tensor:
    """The mean over all positions of the encoder's last layer."""
    states: Tensor = encoder(pixel_values=images).last_hidden_state
    return states.mean(dim=(2, 3)) if states.ndim == 4 else states.mean(dim=1)


def load_pretrained(model: str, shape: Shape, labels: int, dropout: float) -> Pretrained:
    """The model ``train.model`` with a new head. Raises StageError where there is none, or it takes other images."""
    with located(model) as source:
        encoder = AutoModel.from_pretrained(source, dtype=torch.float32)
    images = torch.zeros((1, shape.channels, shape.height, shape.width))
    try:
        with torch.inference_mode():
            width = pooled(encoder.eval(), images).shape[1]
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise StageError(
            f"train.model = {model!r}: {type(encoder).__name__} does not take images of "
            f"{shape.channels} x {shape.height} x {shape.width} (prepare.image): {str(error).splitlines()[0]}"
        ) from error
    return Pretrained(encoder.train(), width, labels, dropout)


def rebuild(pretrained: dict[str, Any], width: int, labels: int) -> Pretrained:
    """The network of a saved plan, without its weights."""
    config = dict(pretrained)
    return Pretrained(AutoModel.from_config(AutoConfig.for_model(config.pop("model_type"), **config)), width, labels, 0.0)
