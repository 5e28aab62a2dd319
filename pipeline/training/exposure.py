"""Exposure of a planted secret: how far a model prefers it to all that it might have been.

Carlini et al. 2019, arXiv:1802.08232, equation 1: log2 |R| - log2 rank of the canary among the candidates of its space
R. 0 to 1 is chance; log2 |R| is a secret that the model gives away first. Swing distillation is judged by it (Li et al.
2022, arXiv:2212.08349).
"""

# N texts, T tokens, R rows

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.pipeline.data.sequences import batch_of_texts
from edgestill.pipeline.networks.network import evaluating, logits_at


def exposure(losses: np.ndarray, canary: int) -> float:
    """Return the exposure in bits of the candidate `canary` from a model's losses [R] on all candidates.

    Of equal losses the canary stands in the middle.

    Raises:
        ValueError: a loss is NaN, or `canary` is no candidate.
    """
    if np.isnan(losses).any() or not 0 <= canary < len(losses):
        raise ValueError(f"candidate {canary} of {len(losses)} has no rank among these losses")
    below, equal = int((losses < losses[canary]).sum()), int((losses == losses[canary]).sum())
    return float(np.log2(len(losses)) - np.log2(below + (equal + 1) / 2))


def answer_losses(network: nn.Module, texts: Tensor) -> Tensor:
    """Return a language model's loss on the answer of each text [N, T], the sum over its tokens, [N]."""
    batch = batch_of_texts(texts)
    assert batch.rows is not None
    each = F.cross_entropy(logits_at(network, batch.inputs, batch.rows).float(), batch.targets, reduction="none")
    return torch.zeros(len(texts), device=texts.device).index_add(0, batch.rows[:, 0], each)


@torch.no_grad()
def text_exposure(network: nn.Module, candidates: Tensor, canary: int, at_once: int = 1024) -> float:
    """Return the exposure in bits of one of the candidate texts [N, T], by losses on their answers."""
    with evaluating(network):
        losses = [answer_losses(network, few) for few in torch.split(candidates, at_once)]
    return exposure(torch.cat(losses).double().cpu().numpy(), canary)
