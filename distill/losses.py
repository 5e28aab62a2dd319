"""Losses between a teacher's and a student's outputs, one value an example."""

# N examples, K classes

import torch
import torch.nn.functional as F
from torch import Tensor


def precise(values: Tensor) -> Tensor:
    """Values in float32, or in float64 if they are so."""
    return values if values.dtype == torch.float64 else values.float()


def softened(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities softmax(logits / temperature) in float32 or finer; [N, K] to [N, K]."""
    return F.softmax(precise(logits) / temperature, dim=1)


def softened_kl(student_logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """KL(target || softmax(student / temperature)), times temperature squared.

    The square keeps the gradient's size independent of the temperature, so the weight of this term means the
    same at every temperature (Hinton et al. 2015, arXiv:1503.02531, section 2.1).

    Args:
        student_logits: [N, K], any float dtype; computed in float32 or finer.
        target: [N, K] probabilities, softened at the same temperature; taken as a constant.

    Returns:
        [N], in nats.
    """
    log_student = F.log_softmax(precise(student_logits) / temperature, dim=1)
    return F.kl_div(log_student, target.detach(), reduction="none").sum(1) * temperature**2


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q), [N]; a class without probability in p adds nothing."""
    return (log_p.exp() * torch.where(log_p > -torch.inf, log_p - log_q, 0.0)).sum(1)
