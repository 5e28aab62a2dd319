"""Calibration of a classifier's confidence."""

# N examples, K classes

import numpy as np

ECE_BINS = 15  # of equal width; the number of Guo et al. 2017, arXiv:1706.04599


def calibration(logits: np.ndarray, targets: np.ndarray, bins: int = ECE_BINS) -> tuple[float, float]:
    """Return the expected calibration error and the mean confidence of the softmax.

    ECE = sum over bins of (share of examples in the bin) * |accuracy - mean confidence|, in bins of equal width over
    confidences (0, 1] (Naeini et al. 2015; Guo et al. 2017, equation 3).
    """
    probabilities = softmax(logits)
    confidence, hit = probabilities.max(1), logits.argmax(1) == targets
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = (abs(float((hit[bin_of == b] - confidence[bin_of == b]).sum())) for b in range(bins))
    return sum(gaps) / len(targets), float(confidence.mean())


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp((logits - logits.max(1, keepdims=True)).astype(np.float64))
    shares: np.ndarray = powers / powers.sum(1, keepdims=True)
    return shares
