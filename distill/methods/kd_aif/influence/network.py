"""Influence through all weights of the network: conjugate gradient, LiSSA, or no curvature at all.

No gradient of a single example is ever built: a product with the Gauss-Newton matrix is a forward-mode and a
reverse-mode pass, and all influences come from one forward-mode pass along the solution.
"""

# P weights, N training examples, K classes

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from edgestill.distill.methods.kd_aif.influence.base import (
    Question,
    curvature_residual,
    influence_along,
    reference_residual,
)
from edgestill.distill.methods.kd_aif.influence.solvers import conjugate_gradient, largest_eigenvalue, lissa
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.frozen import derive_seed

_EXAMPLES = 2048  # of the training split, to average the curvature over
_BATCH = 256
_LISSA_BATCH = 64
_UNSOLVED = 0.5  # largest residual of LiSSA without a warning, as a share of the gradient
_PROBES = 4  # random vectors for the mean diagonal


def identity(question: Question) -> Tensor:
    """Influence without curvature: products of gradients, as TracIn at one checkpoint.

    Pruthi et al. 2020, arXiv:2002.08484.
    """
    around = Neighbourhood(question)
    return around.along(around.reference_gradient())


def cg(question: Question, iterations: int = 50, tolerance: float = 1e-3) -> Tensor:
    """Influence with the damped system solved by conjugate gradient (Martens 2010)."""
    around = Neighbourhood(question)
    damping = question.damping * around.mean_diagonal()
    solution = conjugate_gradient(
        lambda v: around.product(v) + damping * v,
        around.reference_gradient(),
        iterations=iterations,
        tolerance=tolerance,
    )
    return around.along(solution)


def lissa_backend(question: Question, depth: int = 300, repeats: int = 2) -> Tensor:
    """Influence with the damped system solved by LiSSA over mini-batches.

    A direction of eigenvalue e reaches 1 - (1 - (e + damping) / scale)^depth of its exact solution: next to nothing
    where the largest eigenvalue is much more than `depth` times the damping, as in wide networks. Warns if the
    solution leaves more than `_UNSOLVED` of the gradient.
    """
    around = Neighbourhood(question)
    damping = question.damping * around.mean_diagonal()
    gradient = around.reference_gradient()
    # a mini-batch's largest eigenvalue exceeds the mean's, hence twice
    scale = 2.0 * largest_eigenvalue(around.product, gradient, iterations=10) + damping
    solution = lissa(around.product_of_a_few, gradient, damping=damping, scale=scale, depth=depth, repeats=repeats)
    left = (around.product(solution) + damping * solution - gradient).norm() / gradient.norm().clamp_min(1e-30)
    if not float(left) <= _UNSOLVED:
        warnings.warn(
            f"lissa left {float(left):.0%} of the system for the influence unsolved after {depth} steps: directions "
            f"without curvature need about {3 * scale / damping:,.0f}; raise kd_aif.damping, or take kd_aif.backend cg",
            RuntimeWarning,
            stacklevel=2,
        )
    return around.along(solution)


class Neighbourhood:
    """A network's losses to first and second order around its present weights, as functions of flat vectors [P]."""

    def __init__(self, question: Question) -> None:
        self._question = question
        network = question.deployable
        self._weights = {name: weight.detach() for name, weight in network.named_parameters()}
        self._buffers = dict(network.named_buffers())
        count = len(question.train)
        self._chosen = torch.randperm(count, generator=self._generator("examples"))[:_EXAMPLES].sort().values

    def reference_gradient(self) -> Tensor:
        """Compute the gradient of the mean reference loss, [P]."""
        question, total = self._question, None
        for batch in question.reference.batches(_BATCH, question.device):
            logits, pull_back = _pulling_back(self._logits(batch), self._weights)
            residual = reference_residual(logits, batch.targets, question.reference_loss)
            part = _flat(pull_back(residual / len(question.reference))[0])
            total = part if total is None else total + part
        assert total is not None
        return total

    def along(self, vector: Tensor) -> Tensor:
        """Return -g_i . v for every training example, [N]."""
        question, parts = self._question, []
        for batch in question.train.batches(_BATCH, question.device):
            logits, change = self._moved(batch, vector)
            answers = question.answers[batch.index]
            parts.append(influence_along(logits, answers, change, question.temperature).detach())
        return torch.cat(parts)

    def product(self, vector: Tensor) -> Tensor:
        """Multiply v by the Gauss-Newton matrix of the mean training loss over the chosen examples."""
        parts = [self._sum_over(index, vector) for index in torch.split(self._chosen, _BATCH)]
        return torch.stack(parts).sum(0) / len(self._chosen)

    def product_of_a_few(self, vector: Tensor, step: int) -> Tensor:
        """Multiply v by the Gauss-Newton matrix over a mini-batch drawn for the step."""
        count = len(self._question.train)
        index = torch.randint(0, count, (_LISSA_BATCH,), generator=self._generator("step", step))
        return self._sum_over(index, vector) / _LISSA_BATCH

    def mean_diagonal(self) -> float:
        """Estimate the mean diagonal, trace / P, from random signs (Hutchinson 1990)."""
        total, generator = 0.0, self._generator("probes")
        for _ in range(_PROBES):
            size = sum(weight.numel() for weight in self._weights.values())
            signs = torch.randint(0, 2, (size,), generator=generator) * 2.0 - 1
            probe = signs.to(_flat(self._weights))
            total += float(probe @ self.product(probe)) / size
        return total / _PROBES

    def _sum_over(self, index: Tensor, vector: Tensor) -> Tensor:
        question = self._question
        batch = question.train.batch(index.to(question.train.images.device), question.device)
        _, change = self._moved(batch, vector)
        logits, pull_back = _pulling_back(self._logits(batch), self._weights)
        return _flat(pull_back(curvature_residual(logits, change, question.temperature))[0])

    def _moved(self, batch: Batch, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits [B, K] and their derivative along v, both as constants."""
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention has no forward mode
            logits, change = jvp(self._logits(batch), (self._weights,), (self._shaped(vector),))  # type: ignore[misc]
        return logits.detach(), change.detach()

    def _logits(self, batch: Batch) -> Callable[[dict[str, Tensor]], Tensor]:
        network, buffers = self._question.deployable, self._buffers
        return lambda weights: functional_call(network, (weights, buffers), (batch.inputs,))

    def _shaped(self, vector: Tensor) -> dict[str, Tensor]:
        sizes = [weight.numel() for weight in self._weights.values()]
        parts = zip(self._weights.items(), torch.split(vector, sizes), strict=True)
        return {name: part.view_as(weight) for (name, weight), part in parts}

    def _generator(self, *what: object) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self._question.seed, "influence", *what))


def _pulling_back(
    function: Callable[[dict[str, Tensor]], Tensor], weights: dict[str, Tensor]
) -> tuple[Tensor, Callable[[Tensor], tuple[dict[str, Tensor]]]]:
    """Return the function's value, as a constant, and its transposed derivative."""
    value, pull_back = vjp(function, weights)  # type: ignore[misc]
    return value.detach(), pull_back


def _flat(weights: dict[str, Tensor]) -> Tensor:
    return torch.cat([weight.detach().reshape(-1) for weight in weights.values()])
