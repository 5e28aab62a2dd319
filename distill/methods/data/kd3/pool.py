"""Selection from the pool, images of other moments, and the contrast of two views."""

# N examples, K classes, C channels, H W height and width, D width

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from edgestill.pipeline.randomness import drawn_from

_THRESHOLD = 0.95
_VOTES_UNTIL = 0.75  # share of the training after which the student votes alone: epoch 120 of the authors' 160


def teachers_share(progress: float) -> float:
    """a in the votes: 1 - exp(-5 (p - 1)^2) until three quarters of the training are done, then 0."""
    return 1 - math.exp(-5 * (progress - 1) ** 2) if progress < _VOTES_UNTIL else 0.0


def selected(votes: Tensor) -> Tensor:
    """Return a mask [N] of the votes [N, K] that exceed their class's threshold, 0.95 beta_c / (2 - beta_c)."""
    sure, said = votes.softmax(1).max(1)
    counts = torch.bincount(said, minlength=votes.shape[1]).float()
    beta = counts / counts.max().clamp_min(1)
    return sure > (_THRESHOLD * beta / (2 - beta))[said]


def mixed_moments(images: Tensor, alpha: float, generator: torch.Generator) -> Tensor:
    """MixDistribution: mean and deviation of each image's channels are mixed with another's; [N, C, H, W]."""
    count = len(images)
    partner = torch.randperm(count, generator=generator).to(images.device)
    seed = int(torch.randint(2**62, (), generator=generator))
    with drawn_from(seed):
        share = torch.distributions.Beta(alpha, alpha).sample((count, 1, 1, 1)).to(images.device)
    mean, deviation = images.mean((2, 3), keepdim=True), (images.var((2, 3), keepdim=True) + 1e-6).sqrt()
    to_mean, to_deviation = (share * part + (1 - share) * part[partner] for part in (mean, deviation))
    return (images - mean) / deviation * to_deviation + to_mean


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Contrast of each example's two views [N, D] with all other views, the mean over both (Chen et al. 2020)."""
    both = F.normalize(torch.cat([one, other]), dim=1)
    scores = both @ both.T / temperature
    scores = scores.masked_fill(torch.eye(len(both), dtype=torch.bool, device=both.device), -torch.inf)
    partner = torch.arange(len(both), device=both.device).roll(len(one))
    return F.cross_entropy(scores, partner)
