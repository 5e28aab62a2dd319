"""Solvers that need only products with A: A^-1 v by conjugate gradient or LiSSA, and the largest eigenvalue."""

from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


def conjugate_gradient(product: Product, vector: Tensor, *, iterations: int, tolerance: float) -> Tensor:
    """Solve A x = v for a positive definite A; stop when the residual is `tolerance` of v's length."""
    solution = torch.zeros_like(vector)
    residual = vector.clone()
    direction = residual.clone()
    square = residual @ residual
    goal = tolerance**2 * square
    for _ in range(iterations):
        if square <= goal:
            break
        image = product(direction)
        step = square / (direction @ image)
        solution = solution + step * direction
        residual = residual - step * image
        square, before = residual @ residual, square
        direction = residual + square / before * direction
    return solution


def lissa(
    product: Callable[[Tensor, int], Tensor], vector: Tensor, *, damping: float, scale: float, depth: int, repeats: int
) -> Tensor:
    """Estimate (H + damping 1)^-1 v as the mean of `repeats` truncated Neumann series.

    Agarwal et al. 2017, arXiv:1602.03943. The step h <- v + (1 - damping / scale) h - H_step h / scale has the fixed
    point scale (H + damping 1)^-1 v. The published code of KD-AIF stops after one step and leaves out the division by
    scale: its result is a product of gradients.

    Args:
        product: from a vector h and the number of the step to H_step h, over a mini-batch drawn for that step.
        scale: above the largest eigenvalue of H + damping 1, or the series diverges.
    """
    total = torch.zeros_like(vector)
    for repeat in range(repeats):
        h = vector.clone()
        for step in range(depth):
            h = vector + (1 - damping / scale) * h - product(h, repeat * depth + step) / scale
        total += h / scale
    return total / repeats


def largest_eigenvalue(product: Product, start: Tensor, *, iterations: int) -> float:
    """Estimate A's largest eigenvalue by power iteration from `start`; a little below the true one."""
    vector, value = start / start.norm(), 0.0
    for _ in range(iterations):
        image = product(vector)
        value = float(image.norm())
        if value == 0:
            break
        vector = image / value
    return value
