"""Tokens of feature maps and of sequences: the same positions of teacher and student."""

# B batch, C channels, H W height and width, T tokens, D width, P positions

import math

import torch.nn.functional as F
from torch import Tensor

from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.input_kind.base import PADDING


def same_tokens(one: Tensor, other: Tensor, side: int | None) -> tuple[Tensor, Tensor]:
    """Return the tokens [B, P, D] of two networks' features at the same positions.

    Maps [B, C, H, W] are averaged over a grid of patches, at most `side` by `side` and no finer than the coarser map.
    Tokens [B, T, D] of an image are a grid too, if they are a square number behind at most two others, such as a class
    token, which are left out. Other tokens, and all with no `side`, such as a text's, are sequences; the longer one is
    averaged down to the shorter.
    """
    if all(features.dim() == 3 for features in (one, other)) and one.shape[1] == other.shape[1]:
        return one, other
    grids = [_as_grid(features) for features in (one, other)]
    if side is not None and all(grid is not None for grid in grids):
        height = min(side, *(grid.shape[2] for grid in grids if grid is not None))
        width = min(side, *(grid.shape[3] for grid in grids if grid is not None))
        first, second = (_patches(grid, height, width) for grid in grids if grid is not None)
        return first, second
    rows = [features.flatten(2).transpose(1, 2) if features.dim() == 4 else features for features in (one, other)]
    count = min(part.shape[1] for part in rows)
    first, second = (F.adaptive_avg_pool1d(part.transpose(1, 2), count).transpose(1, 2) for part in rows)
    return first, second


def _as_grid(features: Tensor) -> Tensor | None:
    """Return features [B, D, H, W]; None for tokens that are no grid."""
    if features.dim() == 4:
        return features
    count = features.shape[1]
    for others in (0, 1, 2):
        side = math.isqrt(max(count - others, 0))
        if side > 1 and side * side == count - others:
            rows = features[:, others:].transpose(1, 2)
            return rows.reshape(*rows.shape[:2], side, side)
    return None


def _patches(grid: Tensor, height: int, width: int) -> Tensor:
    return F.adaptive_avg_pool2d(grid, (height, width)).flatten(2).transpose(1, 2)


def is_token(batch: Batch, count: int) -> Tensor | None:
    """Return a mask [B, P] of the positions of a text that are no padding; None for other inputs or positions."""
    if batch.inputs.dim() != 2 or batch.inputs.shape[1] != count:
        return None
    return batch.inputs != PADDING


def pooled(features: Tensor, batch: Batch) -> Tensor:
    """Mean over positions, padding left out; [B, C, H, W] or [B, T, D] to [B, D]."""
    if features.dim() == 4:
        return features.mean((2, 3))
    mask = is_token(batch, features.shape[1])
    if mask is None:
        return features.mean(1)
    kept = mask[:, :, None].to(features.dtype)
    return (features * kept).sum(1) / kept.sum(1).clamp_min(1)
