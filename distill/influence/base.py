"""What is asked of an influence backend, and the losses on both of its sides.

Up-weighting training example i by eps moves the mean reference loss at the rate (Koh and Liang 2017, arXiv:1703.04730,
equation 2)

    I_i = - g_ref^T (H + lambda 1)^-1 g_i,        g_ref = grad mean_reference loss,  g_i = grad loss_i,

so I_i > 0 is a harmful example and I_i < 0 a helpful one; taking i out of n moves it by about -I_i / n. H is the
Gauss-Newton matrix of the mean training loss, which has no negative eigenvalues; for the last layer alone it is the
exact Hessian.
"""

# N training examples, M reference examples, K classes

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.data import ImageSplit
from pipeline.errors import DataError

ReferenceLoss = Literal["margin", "ce"]


@dataclass(frozen=True)
class Question:
    """Whose influence, on what.

    Raises:
        DataError: `reference` is another split than that: weights are fitted to it, so it may not judge.
    """

    network: nn.Module  # a classifier of pipeline.network: gives the embedding
    deployable: nn.Module  # the same one as it ships: inputs to class logits [N, K]; often `network` itself
    train: ImageSplit
    answers: Tensor  # [N, K] what each training example is taught, softened at `temperature`
    reference: ImageSplit  # labelled
    reference_loss: ReferenceLoss
    damping: float  # lambda in units of H's mean diagonal, > 0
    temperature: float  # of the training loss T^2 KL(answer || softmax(logits / T)); 1 is the cross-entropy
    seed: int  # for what the stochastic backends draw
    device: torch.device

    def __post_init__(self) -> None:
        if self.reference.role != "reference":
            raise DataError(
                f"influence is computed on the reference split, and was given a split of role {self.reference.role!r}; "
                "a split that chooses or judges would judge weights that were fitted to it, and the training split "
                "says that every example is right; give the reference split of load_splits"
            )


Backend = Callable[[Question], Tensor]  # to the influence [N], positive is harmful


def influence_along(logits: Tensor, answers: Tensor, change: Tensor, temperature: float) -> Tensor:
    """I_i, [N], from the derivative of the logits along (H + lambda 1)^-1 g_ref, which is `change` [N, K].

    0 where the sum over classes is no more than the rounding of its terms.
    """
    terms = training_residual(logits, answers, temperature) * change
    influence, sizes = -terms.sum(1), terms.abs().sum(1)
    return influence.masked_fill(influence.abs() <= _rounding(logits) * sizes, 0.0)


def training_residual(logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """Gradient of T^2 KL(answer || softmax(logits / T)) with respect to the logits, [N, K].

    0 for an example whose answer is met up to the rounding of the logits, which moves p by |z| / T p (1 - p), and of
    the answer where it is no label: what is left is noise, and a network that has nothing to learn has little curvature
    by which the noise would be divided. Between those, a label that is almost met keeps its small residual.
    """
    p = F.softmax(logits.double() / temperature, dim=1)
    residual = p - answers
    moved = (p * (1 - p)).sum(1) * logits.abs().amax(1) / temperature
    is_soft = ((answers != 0) & (answers != 1)).any(1)
    is_met = residual.abs().sum(1) <= _rounding(logits) * (moved + is_soft)
    return temperature * residual.masked_fill(is_met[:, None], 0.0).to(logits.dtype)


def reference_residual(logits: Tensor, targets: Tensor, loss: ReferenceLoss) -> Tensor:
    """Gradient of the reference loss with respect to the logits, [M, K].

    `margin` is logsumexp over the wrong classes minus the right logit: its gradient keeps its size for an example that
    is already right, where the cross-entropy's is gone, and does not ask for more confidence as such.
    """
    right = F.one_hot(targets, logits.shape[1])
    others = logits.masked_fill(right.bool(), -torch.inf) if loss == "margin" else logits
    return (F.softmax(others.double(), dim=1) - right).to(logits.dtype)


def curvature_residual(logits: Tensor, change: Tensor, temperature: float) -> Tensor:
    """(diag(p) - p p^T) change, p = softmax(logits / T): the training loss's Hessian in the logits; [N, K]."""
    p = F.softmax(logits / temperature, dim=1)
    return p * (change - (p * change).sum(1, keepdim=True))


def _rounding(logits: Tensor) -> float:
    """Relative error of what a network computes: some units in the last place, from layer to layer."""
    return 16 * torch.finfo(logits.dtype).eps
