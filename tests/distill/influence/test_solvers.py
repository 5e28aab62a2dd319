"""Conjugate gradient and LiSSA against a direct solution, in double precision."""

import pytest
import torch

from edgestill.distill.methods.kd_aif.influence.solvers import conjugate_gradient, largest_eigenvalue, lissa

SIZE = 6


@pytest.fixture
def system():
    root = torch.randn(40, SIZE, dtype=torch.float64)
    return root.T @ root / 40, torch.randn(SIZE, dtype=torch.float64)


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def test_conjugate_gradient_solves_in_as_many_steps_as_there_are_unknowns(system):
    matrix, vector = system
    found = conjugate_gradient(lambda v: matrix @ v, vector, iterations=SIZE, tolerance=0.0)
    assert relative(found, torch.linalg.solve(matrix, vector)) < 1e-6


def test_conjugate_gradient_stops_when_it_is_told_to(system):
    matrix, vector = system
    found = conjugate_gradient(lambda v: matrix @ v, vector, iterations=100, tolerance=0.5)
    assert (matrix @ found - vector).norm() <= 0.5 * vector.norm()


@pytest.mark.parametrize("damping", [0.0, 0.05, 0.5])
def test_lissa_converges_to_the_damped_inverse_whatever_its_scale(system, damping):
    """The recursion's fixed point is scale (H + damping 1)^-1 v, and it is divided by scale."""
    matrix, vector = system
    expected = torch.linalg.solve(matrix + damping * torch.eye(SIZE, dtype=matrix.dtype), vector)
    for scale in (5.0, 20.0):
        found = lissa(lambda v, _: matrix @ v, vector, damping=damping, scale=scale, depth=5000, repeats=1)
        assert relative(found, expected) < 1e-6


def test_lissa_resolves_a_direction_as_far_as_its_curvature_and_the_depth_let_it():
    """A geometric series: without curvature, 300 steps at a scale of 1,000 dampings leave three quarters undone."""
    eigenvalues, damping, scale = torch.tensor([400.0, 10.0, 0.0], dtype=torch.float64), 1.0, 1000.0
    found = lissa(
        lambda v, _: eigenvalues * v,
        torch.ones(3, dtype=torch.float64),
        damping=damping,
        scale=scale,
        depth=300,
        repeats=1,
    )
    share = found * (eigenvalues + damping)
    assert share[0] == pytest.approx(1, abs=1e-9)
    assert share.tolist() == pytest.approx([1 - (1 - (e + damping) / scale) ** 301 for e in eigenvalues.tolist()])
    assert share[2] < 0.27


def test_lissa_of_mini_batches_comes_within_two_per_cent():
    root = torch.randn(400, SIZE, dtype=torch.float64)
    vector = torch.randn(SIZE, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)

    def product(v, step):
        rows = root[torch.randint(0, 400, (32,), generator=generator)]
        return rows.T @ (rows @ v) / 32

    found = lissa(product, vector, damping=0.0, scale=30.0, depth=1000, repeats=10)
    assert relative(found, torch.linalg.solve(root.T @ root / 400, vector)) < 0.02


def test_one_step_of_lissa_knows_nothing_of_the_curvature(system):
    """What the method's published code does: the direction is almost the gradient's."""
    matrix, vector = system
    found = lissa(lambda v, _: matrix @ v, vector, damping=0.01, scale=100.0, depth=1, repeats=1)
    assert torch.cosine_similarity(found, vector, dim=0) > 0.999
    assert torch.cosine_similarity(found, torch.linalg.solve(matrix, vector), dim=0) < 0.99


def test_the_largest_eigenvalue(system):
    matrix, vector = system
    found = largest_eigenvalue(lambda v: matrix @ v, vector, iterations=200)
    assert found == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-6)
