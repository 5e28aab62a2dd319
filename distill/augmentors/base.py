"""What changes images on the way to teacher and student, and how its images join a batch."""

# B batch, C channels, H W height and width

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from pipeline.data import UNLABELLED, Batch, channels_last


class Augmentor(nn.Module, ABC):
    """a_phi(x, u): its parameters are phi, its randomness is all in the noise u, and u = 0 leaves the image alone."""

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Noise for `count` images, [count, ...], from the generator alone."""

    @abstractmethod
    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """[B, C, H, W] in [0, 1] to the same, differentiable in phi."""

    def regulariser(self) -> Tensor | float:
        """What the augmentor descends on beside the policy's objective."""
        return 0.0

    @torch.no_grad()
    def project(self) -> None:
        """Bring phi back into its bounds."""

    @abstractmethod
    def measures(self) -> dict[str, float]:
        """What phi stands for, in units that a person knows."""


def with_augmented(batch: Batch, augmented: Tensor, weight: float) -> Batch:
    """The batch and, behind it, other versions of its inputs, such that the loss is D(clean) + weight * D(augmented).

    The loss is a mean over all examples, so each half's weight is divided by its share of them. What was altered has
    no label: its target is what the teacher says of it.
    """
    clean, count = len(batch.targets), len(augmented)
    total, of_whole = clean + count, torch.ones_like(batch.index, dtype=torch.float32)
    return Batch(
        inputs=channels_last(torch.cat([batch.inputs, augmented])),
        targets=torch.cat([batch.targets, torch.full_like(batch.targets[:count], UNLABELLED)]),
        index=torch.cat([batch.index, batch.index[:count]]),
        altered=torch.arange(total, device=batch.index.device) >= clean,
        weight=torch.cat([of_whole * (total / clean), of_whole[:count] * (weight * total / count)]),
        view=batch.view,
    )
