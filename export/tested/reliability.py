"""Confidence against accuracy, by bins."""

# N examples, K classes

import numpy as np

from edgestill.export.tested.result import Reliability
from edgestill.pipeline.training.calibration import ECE_BINS, softmax


def reliability(logits: np.ndarray, targets: np.ndarray) -> Reliability:
    """Sum examples, hits and confidences over the bins of the expected calibration error.

    Args:
        logits: [N, K]; targets: [N].
    """
    confidence, hit = softmax(logits).max(1), logits.argmax(1) == targets
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    return Reliability(
        counts=tuple(np.bincount(bins, minlength=ECE_BINS).tolist()),
        hits=tuple(np.bincount(bins[hit], minlength=ECE_BINS).tolist()),
        confidences=tuple(np.bincount(bins, weights=confidence, minlength=ECE_BINS).tolist()),
    )
