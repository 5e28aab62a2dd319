"""Contract of an influence backend, and the derivatives of the training and reference losses.

Up-weighting training example i by eps moves the mean reference loss at the rate (Koh and Liang 2017, arXiv:1703.04730,
equation 2)

    I_i = - g_ref^T (H + lambda 1)^-1 g_i,        g_ref = grad mean_reference loss,  g_i = grad loss_i,

so I_i > 0 is a harmful example and I_i < 0 a helpful one; taking i out of n moves that loss by about -I_i / n. H is the
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

from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.errors import DataError

ReferenceLoss = Literal["margin", "ce"]


@dataclass(frozen=True)
class Question:
    """Input of an influence backend: the network, its training examples, and the split with the reference loss.

    Raises:
        DataError: `reference` is not the reference split. Weights are fitted to it, so a judging split will not do.
    """

    network: nn.Module  # a classifier of pipeline.network: gives the embedding
    deployable: nn.Module  # the same one as it ships: inputs to class logits [N, K]; often `network` itself
    train: ImageSplit
    answers: Tensor  # [N, K] target of each training example, softened at `temperature`
    reference: ImageSplit  # labelled
    reference_loss: ReferenceLoss
    damping: float  # lambda in units of H's mean diagonal, > 0
    temperature: float  # of the training loss T^2 KL(answer || softmax(logits / T)); 1 is the cross-entropy
    seed: int  # for the draws of the stochastic backends
    device: torch.device

    def __post_init__(self) -> None:
        if self.reference.role != "reference":
            raise DataError(
                f"influence must be computed on the reference split, and this is the {self.reference.role} split; on "
                "train every example supports its own label, and validation and test could no longer judge a student "
                "whose weights were fitted to them; give the reference split of load_splits"
            )


Backend = Callable[[Question], Tensor]  # to the influence [N], positive is harmful


def influence_along(logits: Tensor, answers: Tensor, change: Tensor, temperature: float) -> Tensor:
    """Influence I_i, [N], from `change` [N, K], the derivative of the logits along (H + lambda 1)^-1 g_ref.

    It is 0 where the sum over classes is no more than the rounding of its terms.
    """
    terms = training_residual(logits, answers, temperature) * change
    influence, sizes = -terms.sum(1), terms.abs().sum(1)
    return influence.masked_fill(influence.abs() <= _rounding(logits) * sizes, 0.0)


def training_residual(logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """Gradient of T^2 KL(answer || softmax(logits / T)) with respect to the logits, [N, K].

    It is 0 for an example with its answer met up to rounding: of the logits, which moves p by |z| / T p (1 - p), and of
    the answer if it is not a label. The rest is noise, and a network with nothing to learn has little curvature to
    divide the noise by. A label met almost, but not up to rounding, keeps its small residual.
    """
    p = F.softmax(logits.double() / temperature, dim=1)
    residual = p - answers
    moved = (p * (1 - p)).sum(1) * logits.abs().amax(1) / temperature
    is_soft = ((answers != 0) & (answers != 1)).any(1)
    is_met = residual.abs().sum(1) <= _rounding(logits) * (moved + is_soft)
    return temperature * residual.masked_fill(is_met[:, None], 0.0).to(logits.dtype)


def reference_residual(logits: Tensor, targets: Tensor, loss: ReferenceLoss) -> Tensor:
    """Gradient of the reference loss with respect to the logits, [M, K].

    `margin` is logsumexp over the wrong classes minus the right logit. Its gradient keeps its size for an example
    already right, where the cross-entropy's vanishes, and does not ask for more confidence as such.
    """
    right = F.one_hot(targets, logits.shape[1])
    others = logits.masked_fill(right.bool(), -torch.inf) if loss == "margin" else logits
    return (F.softmax(others.double(), dim=1) - right).to(logits.dtype)


def curvature_residual(logits: Tensor, change: Tensor, temperature: float) -> Tensor:
    """Product of the training loss's Hessian in the logits with `change`: (diag(p) - p p^T) change, [N, K].

    p = softmax(logits / T).
    """
    p = F.softmax(logits / temperature, dim=1)
    return p * (change - (p * change).sum(1, keepdim=True))


def _rounding(logits: Tensor) -> float:
    """Relative rounding error of a network's logits: some units in the last place, as errors add up over layers."""
    return 16 * torch.finfo(logits.dtype).eps
