"""Mixup and CutMix: each image of a batch is mixed with another of the batch, and so are the labels.

Zhang et al. 2018, arXiv:1710.09412; Yun et al. 2019, arXiv:1905.04899. Shares are drawn for each image by itself.
"""

# B batch, C channels, H W height and width

import numpy as np
import torch
from torch import Tensor

from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.image_steps import in_boxes
from edgestill.pipeline.data.splits import UNLABELLED, Batch, Mixed, channels_last


def mixed(batch: Batch, config: AugmentConfig, generator: torch.Generator) -> Batch:
    """Return the batch with its images mixed by mixup or CutMix; of both, one is drawn for each image."""
    count, device = len(batch.targets), batch.inputs.device
    partner = torch.randperm(count, generator=generator).to(device)
    numbers = torch.rand(3, count, generator=generator).to(device)
    seed = int(torch.randint(2**62, (), generator=generator))
    cuts = numbers[0] < 0.5 if config.mixup and config.cutmix else torch.full_like(numbers[0], config.cutmix > 0) > 0
    of_cutmix, of_mixup = (_shares(alpha, count, seed).to(device) for alpha in (config.cutmix, config.mixup))
    share = torch.where(cuts, of_cutmix, of_mixup)
    other = batch.inputs[partner]
    boxes, cut_share = _cut(batch.inputs, share, numbers[1:])
    weight = torch.where(cuts[:, None, None, None], 1.0 - boxes.float(), share[:, None, None, None])
    kept = torch.where(cuts, cut_share, share)
    pairs = Mixed(
        torch.stack([batch.targets, batch.targets[partner]]), torch.stack([batch.index, batch.index[partner]]), kept
    )
    return batch._replace(
        inputs=channels_last(weight * batch.inputs + (1 - weight) * other),
        targets=torch.full_like(batch.targets, UNLABELLED),
        view=None,
        weight=None if batch.weight is None else pairs.blended(batch.weight, batch.weight[partner]),
        mixed=pairs,
    )


def _shares(alpha: float, count: int, seed: int) -> Tensor:
    """Draw the share of the first image of each pair, lambda ~ Beta(alpha, alpha); 1 for an alpha of 0."""
    if not alpha:
        return torch.ones(count)
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, count).astype(np.float32))


def _cut(images: Tensor, share: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Draw rectangles [B, 1, H, W] for the other image, and return the share of pixels that each leaves.

    Their sides are sqrt(1 - lambda) of the image's, around any pixel, and are cut at the image's edge.
    """
    height, width = images.shape[2:]
    side = (1 - share).clamp(min=0).sqrt()
    rows, columns = (height * side).floor(), (width * side).floor()
    top = (numbers[0] * height).floor() - (rows / 2).floor()
    left = (numbers[1] * width).floor() - (columns / 2).floor()
    inside = in_boxes(images, top, left, top + rows, left + columns)
    return inside, 1 - inside.float().mean((1, 2, 3))
