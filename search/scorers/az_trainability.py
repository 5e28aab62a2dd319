"""AZ-NAS's trainability score: high if gradients keep their size from block to block."""

# B batch, C channels, H W height and width, T tokens, D width

import itertools
import math
import statistics
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import Initialisation
from edgestill.search.scorers.base import Scorer, Student
from edgestill.search.scoring.observe import gradient

EPS = 1e-6  # the official code's
FLOOR = -1e4  # for a block that passes gradients on unchanged; the official code's -inf would make the mean infinite


class AzTrainability(Scorer):
    """Mean over blocks of 2 - s - 1 / (s + eps), s the spectral norm of the block's gradient correlation; at most 0.

    Lee and Ham 2024, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search", arXiv:2403.19232,
    the trainability proxy of its section 3.2; one of the paper's four. A block with vanishing gradients gets the
    floor too. Tokens [B, T, D] are T positions of D channels, padding included, as the block's input has it too.
    """

    name: ClassVar[str] = "az_trainability"
    initialisation: ClassVar[Initialisation | None] = "kaiming"
    needs_blocks: ClassVar[bool] = True
    needs_graph: ClassVar[bool] = True

    def __call__(self, student: Student) -> float:
        assert student.graph is not None
        rng = np.random.default_rng(derive_seed(student.seed, self.name))
        pairs = itertools.pairwise(student.graph.blocks)
        scores = [block_trainability(before, after, random_signs(after, rng)) for before, after in pairs]
        return statistics.fmean(scores) if scores else math.nan


def random_signs(like: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw -1 or +1 for each element, from one random bit: drawing integers takes as long as the backward pass."""
    count = like.numel()
    bits = np.unpackbits(np.frombuffer(rng.bytes((count + 7) // 8), dtype=np.uint8), count=count)
    signs = torch.from_numpy(bits).to(like.device, like.dtype)
    return signs.mul_(2).sub_(1).view(like.shape)


def block_trainability(before: Tensor, after: Tensor, g_out: Tensor) -> float:
    """Return 2 - s - 1 / (s + eps) of one block; `before` and `after` are in one graph."""
    g_in = gradient(after, before, g_out)
    if g_in.shape == g_out.shape and torch.equal(g_in, g_out):
        return FLOOR
    spectral_norm = float(torch.linalg.matrix_norm(gradient_correlation(g_in, g_out), ord=2))
    return max(2 - spectral_norm - 1 / (spectral_norm + EPS), FLOOR)


def gradient_correlation(g_in: Tensor, g_out: Tensor) -> Tensor:
    """Mean over batch and positions of g_in g_out^T, [C_in, C_out].

    If the block strides, the positions it joins count as channels (pixel-unshuffle), as in the official code.
    Sides not divisible by the stride are padded with zeros; the benchmarks of the official code have none.
    """
    if g_out.dim() == 3:
        return torch.einsum("bti,btj->ij", g_in, g_out) / (g_out.shape[0] * g_out.shape[1])
    height, width = g_out.shape[2:]
    stride = max(-(-g_in.shape[2] // height), -(-g_in.shape[3] // width))
    if stride > 1:
        missing = (stride * height - g_in.shape[2], stride * width - g_in.shape[3])
        g_in = F.pixel_unshuffle(F.pad(g_in, (0, missing[1], 0, missing[0])), stride)
    columns = [g.movedim(1, 0).flatten(1) for g in (g_in, g_out)]
    return columns[0] @ columns[1].T / columns[1].shape[1]
