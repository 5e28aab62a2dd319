"""A student with a transfer block and the teacher's classifier."""

# N examples, D width, H W height and width

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.distill.methods.lelp.head import with_classifier
from edgestill.pipeline.networks.network import Classifier


class TransferHead(nn.Module):
    """A bottleneck of convolutions to the teacher's width, the mean over positions, and the teacher's classifier."""

    def __init__(self, width: int, teacher_width: int, classes: int) -> None:
        super().__init__()
        middle = max(1, teacher_width // 2)
        self.transfer = nn.Sequential(
            *_convolution(width, middle, 1), *_convolution(middle, middle, 3), *_convolution(middle, teacher_width, 1)
        )
        self.classifier = nn.Linear(teacher_width, classes)

    def answer(self, transferred: Tensor) -> Tensor:
        logits: Tensor = self.classifier(transferred.mean((2, 3)))
        return logits


def _convolution(into: int, out: int, kernel: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU()


class Transferred(nn.Module):
    """The network that ships: a student's features, the transfer block and the teacher's classifier."""

    def __init__(self, student: nn.Module, head: TransferHead) -> None:
        super().__init__()
        self.student = with_classifier(student, nn.Identity())
        self.transfer, self.classifier = head.transfer, head.classifier
        self.num_classes = head.classifier.out_features

    def forward_features(self, inputs: Tensor) -> Tensor:
        network = cast(Classifier, self.student)
        features = network.forward_features(inputs)
        if features.dim() != 4:
            features = network.forward_head(features, pre_logits=True)[:, :, None, None]
        return cast(Tensor, self.transfer(features))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        embedding = features.mean((2, 3))
        return embedding if pre_logits else self.classifier(embedding)

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def forward(self, inputs: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(inputs))


def feature_width(student: nn.Module) -> int:
    """Channels of the student's features, which are the embedding's where nothing follows the pooling."""
    width = (
        getattr(student, "feature_dim", None) or cast(nn.Linear, cast(Classifier, student).get_classifier()).in_features
    )
    return int(width)


def as_map(features: Tensor, embedding: Tensor) -> Tensor:
    return features if features.dim() == 4 else embedding[:, :, None, None]


def same_size(own: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """Average the larger of two maps [N, D, H, W] down to the other's size."""
    size = min(own.shape[2], given.shape[2]), min(own.shape[3], given.shape[3])
    first, second = (F.adaptive_avg_pool2d(part, size) for part in (own, given))
    return first, second
