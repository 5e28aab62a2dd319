"""DisWOT's two metrics as distances between a teacher's and a student's view of one batch.

Dong, Li and Wei 2023, arXiv:2303.15678. The search turns them into scores of untrained networks
(`search/scorers/diswot.py`), distillation into losses against the trained teacher (`distill/methods/diswot_plus.py`).
Both are differentiable with respect to the student's view, and computed in the dtype of their inputs.
"""

# B batch, C channels, H W height and width, K classes

import torch.nn.functional as F
from torch import Tensor

from edgestill.pipeline.networks.network import View

EPS = 1e-12  # the official code's; rows of a smaller norm drop out


def relation(features: Tensor) -> Tensor:
    """R = A A^T with rows normalised, A = features flattened to [B, C H W]; [B, B]."""
    flat = features.flatten(1)
    half = flat @ flat.detach().T
    products = half + (half.T - half.T.detach())  # A A^T; its gradient (G + G^T) A takes one product instead of two
    return F.normalize(products, dim=1, eps=EPS)


def last_relation(view: View) -> Tensor:
    """Relation of the last feature maps, or of the embedding where features are tokens [B, T, D].

    The embedding is the tokens' mean (or the class token, in networks that have one), without padding. Position t of
    one sentence has nothing to do with position t of another, so tokens are not compared one by one. Embeddings may
    be negative: M_r then goes down to -4 / B.
    """
    return relation(view.features if view.features.dim() == 4 else view.embedding)


def relation_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """-M_r = ||R_T - R_S||_F^2 / B^2, in [0, 2 / B] for non-negative features. Its scale depends on B."""
    return (teacher - student).square().sum() / len(teacher) ** 2


def classifier_gradient(view: View, targets: Tensor) -> Tensor:
    """dL/dW of the last Linear for the mean cross-entropy L, [K, C], in closed form: (softmax - onehot)^T e / B."""
    probabilities = view.logits.softmax(1)
    error = probabilities - F.one_hot(targets, probabilities.shape[1])
    return error.T @ view.embedding / len(targets)


def semantic_distance(teacher: Tensor, student: Tensor, eps: float = EPS) -> Tensor:
    """-M_s = sum_k ||E_T[k] - E_S[k]||_F^2 / (K C), E[k] = g_k g_k^T with each row normalised.

    Row i of E[k] is a_ki g_k with a_ki = g_ki / max(|g_ki| |g_k|, eps), so E[k] = a_k g_k^T is of rank one and
    the distance needs four inner products a class instead of C x C matrices. Rounding can take it below 0.

    Args:
        teacher, student: classifier gradients [K, C] of the same shape.
    """
    classes, width = teacher.shape
    a_t, a_s = (_row_scales(gradient, eps) for gradient in (teacher, student))
    own = a_t.square().sum(1) * teacher.square().sum(1) + a_s.square().sum(1) * student.square().sum(1)
    cross = (a_t * a_s).sum(1) * (teacher * student).sum(1)
    distance: Tensor = (own - 2 * cross).sum() / (classes * width)
    return distance


def _row_scales(gradient: Tensor, eps: float) -> Tensor:
    norms: Tensor = gradient.norm(dim=1, keepdim=True)
    return gradient / (gradient.abs() * norms).clamp_min(eps)
