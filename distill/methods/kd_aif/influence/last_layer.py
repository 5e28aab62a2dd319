"""Influence through the last layer alone, in closed form: one forward pass and one small linear system.

The gradients of a linear softmax head are outer products, g_i = (p_i - y_i) f_i^T, and the Hessian of its mean
cross-entropy is mean_i (diag(p_i) - p_i p_i^T) (x) f_i f_i^T, exactly: the Gauss-Newton matrix and the Hessian are
the same. f is the embedding with a 1 for the bias.

A head that is not linear, such as LELP's K S subclass logits folded to K class logits, is treated as if a linear map
of the embedding, with weights 0, were added to its class logits. For a linear head this map stands for the head
itself; for LELP's it stands for the directions that move all subclasses of a class alike.
"""

# N training examples, M reference examples, K classes, D embedding width plus 1

import torch
import torch.nn.functional as F
from torch import Tensor

from edgestill.distill.methods.kd_aif.influence.base import (
    Question,
    curvature_residual,
    influence_along,
    reference_residual,
)
from edgestill.distill.methods.kd_aif.influence.solvers import conjugate_gradient
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.networks.network import look

_BATCH = 128  # at 512, a CPU's caches overflow and a forward pass takes 1.7 times as long
_DIRECT = 2048  # largest number of weights for a solution by Cholesky
_LEAST = 1e-300  # floor of a mean diagonal: without any curvature the influence would be infinite


def last_layer(question: Question) -> Tensor:
    """Compute the influence [N] of the training examples through the last layer."""
    embedding, logits = _outputs(question, question.train)
    seen, answered = _outputs(question, question.reference)
    gradient = reference_residual(answered, question.reference.targets, question.reference_loss).T @ seen / len(seen)
    direction = solve_head(embedding, logits, gradient, question.damping, question.temperature)
    return influence_along(logits, question.answers, embedding @ direction.T, question.temperature)


def solve_head(embedding: Tensor, logits: Tensor, gradient: Tensor, damping: float, temperature: float) -> Tensor:
    """Solve (H + damping mean-diagonal(H) 1) x = gradient; both [K, D], embedding [N, D], logits [N, K]."""
    p = F.softmax(logits.double() / temperature, dim=1)
    if gradient.numel() <= _DIRECT:
        system = head_hessian(embedding.double(), p)
        system.diagonal().add_(damping * system.diagonal().mean().clamp_min(_LEAST))
        factor = torch.linalg.cholesky(system)
        return torch.cholesky_solve(gradient.double().reshape(-1, 1), factor).reshape(gradient.shape).to(gradient)
    trace = ((p - p * p).sum(1) * (embedding**2).sum(1)).mean()
    damp = damping * float(trace) / gradient.numel()

    def product(vector: Tensor) -> Tensor:
        change = curvature_residual(logits, embedding @ vector.view_as(gradient).T, temperature)
        return (change.T @ embedding / len(embedding)).flatten() + damp * vector

    solved = conjugate_gradient(product, gradient.flatten(), iterations=200, tolerance=1e-4)
    return solved.view_as(gradient)


def head_hessian(embedding: Tensor, p: Tensor) -> Tensor:
    """Hessian mean_i (diag(p_i) - p_i p_i^T) (x) f_i f_i^T, [K D, K D]; classes are the outer index.

    p (1 - p) is summed from p's products with the other classes' probabilities: for a confident network 1 - p is mere
    rounding, and the matrix would be indefinite.
    """
    (count, width), classes = embedding.shape, p.shape[1]
    hessian = embedding.new_zeros(classes, width, classes, width)
    for k in range(classes):
        for other in range(k + 1, classes):
            weight = p[:, k] * p[:, other]
            block = (embedding * weight[:, None]).T @ embedding / count  # symmetric
            hessian[k, :, other] = hessian[other, :, k] = -block
            hessian[k, :, k] += block
            hessian[other, :, other] += block
    return hessian.view(classes * width, classes * width)


def _outputs(question: Question, split: ImageSplit) -> tuple[Tensor, Tensor]:
    """Return embeddings with a 1 appended [N, D], and class logits [N, K]."""
    embeddings, logits = [], []
    with torch.no_grad():
        for batch in split.batches(_BATCH, question.device):
            view = look(question.network, batch.inputs)
            shipped = question.deployable is not question.network
            logits.append(question.deployable(batch.inputs) if shipped else view.logits)
            embeddings.append(F.pad(view.embedding, (0, 1), value=1.0))
    return torch.cat(embeddings), torch.cat(logits)
