"""Exposure of a planted secret: how far a model prefers it to all that it might have been.

Carlini et al. 2019, arXiv:1802.08232, equation 1: log2 |R| - log2 rank of the canary among the candidates of its space
R. 0 to 1 is chance; log2 |R| is a secret that the model gives away first. Swing distillation is judged by it (Li et al.
2022, arXiv:2212.08349).
"""

import numpy as np


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
