"""Cross-entropy with the labels, of plain and of mixed examples."""

# B batch, K classes

import torch.nn.functional as F
from torch import Tensor

from edgestill.pipeline.data.splits import Batch


def label_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Return the cross-entropy of each example, [B]; 0 without a label.

    A mixed example's is lam CE(y_1) + (1 - lam) CE(y_2): Zhang et al. 2018, arXiv:1710.09412, section 2, and Yun et al.
    2019, arXiv:1905.04899, equation 1, as cross-entropy is linear in the target.

    Args:
        logits: [B, K].
    """
    if batch.mixed is None:
        return F.cross_entropy(logits, batch.targets, reduction="none")
    return batch.mixed.blended(*(F.cross_entropy(logits, part, reduction="none") for part in batch.mixed.targets))
