"""Contract of an augmentor, and the join of its images with a batch."""

# B batch, C channels, H W height and width

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from edgestill.pipeline.data.splits import UNLABELLED, Batch, Mixed, channels_last


class Augmentor(nn.Module, ABC):
    """Augmentation a_phi(x, u): phi are its parameters, the noise u is all its randomness, u = 0 is the identity.

    `VaeAugmentor` is the exception: its u = 0 gives a reconstruction.
    """

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw noise for `count` images, [count, ...], from the generator alone."""

    @abstractmethod
    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """Augment images [B, C, H, W] in [0, 1]; shape and range stay, and the result is differentiable in phi."""

    def regulariser(self) -> Tensor | float:
        """Loss of the augmentor beside the policy's objective; default: none."""
        return 0.0

    @torch.no_grad()
    def project(self) -> None:
        """Bring phi back into its bounds."""

    @abstractmethod
    def measures(self) -> dict[str, float]:
        """Figures of phi by name, in familiar units."""


def with_augmented(batch: Batch, augmented: Tensor, weight: float) -> Batch:
    """Append other versions of the batch's inputs, weighted so that the loss is D(clean) + weight * D(augmented).

    The loss is a mean over all examples, so each half's weight is divided by its share of them. Altered inputs have
    no label: their target is the teacher's answer.
    """
    clean, count = len(batch.targets), len(augmented)
    total = clean + count
    own = torch.ones_like(batch.index, dtype=torch.float32) if batch.weight is None else batch.weight
    return Batch(
        inputs=channels_last(torch.cat([batch.inputs, augmented])),
        targets=torch.cat([batch.targets, torch.full_like(batch.targets[:count], UNLABELLED)]),
        index=torch.cat([batch.index, batch.index[:count]]),
        altered=torch.arange(total, device=batch.index.device) >= clean,
        weight=torch.cat([own * (total / clean), own[:count] * (weight * total / count)]),
        view=batch.view,
        mixed=None if batch.mixed is None else _with_unlabelled(batch.mixed, count),
    )


def _with_unlabelled(mixed: Mixed, count: int) -> Mixed:
    """Append the first examples again, without their labels."""
    again = mixed.first(count)
    unlabelled = again._replace(targets=torch.full_like(again.targets, UNLABELLED))
    return Mixed(*(torch.cat(parts, -1) for parts in zip(mixed, unlabelled, strict=True)))
