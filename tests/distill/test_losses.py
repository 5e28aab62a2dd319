"""Losses against SciPy and closed forms."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from edgestill.distill.losses import softened, softened_kl


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_the_softened_divergence_is_scipys_times_temperature_squared(temperature):
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(0, 4, (2, 6, 5))
    p, q = (scipy.special.softmax(logits / temperature, axis=1) for logits in (teacher, student))
    target = softened(torch.tensor(teacher), temperature)
    assert target.numpy() == pytest.approx(p, rel=1e-5)
    found = softened_kl(torch.tensor(student), target, temperature)
    assert found.shape == (6,)
    assert found.numpy() == pytest.approx(temperature**2 * scipy.stats.entropy(p, q, axis=1), rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 3.0, 16.0])
def test_its_gradient_is_temperature_times_the_difference_of_the_distributions(temperature):
    teacher, student = torch.randn(2, 4, 7, dtype=torch.float64)
    student.requires_grad_()
    softened_kl(student, softened(teacher, temperature), temperature).sum().backward()
    with torch.no_grad():
        difference = (student / temperature).softmax(1) - (teacher / temperature).softmax(1)
    assert torch.allclose(student.grad, temperature * difference, atol=1e-5)


def test_the_size_of_its_gradient_does_not_depend_on_a_high_temperature():
    """Hinton et al. 2015, section 2.1: T large gives (s - t) / K for zero-mean logits, whatever T is."""
    teacher, student = (torch.randn(4, 5) for _ in range(2))
    teacher, student = teacher - teacher.mean(1, keepdim=True), student - student.mean(1, keepdim=True)
    for temperature in (30.0, 60.0, 100.0):
        leaf = student.clone().requires_grad_()
        softened_kl(leaf, softened(teacher, temperature), temperature).sum().backward()
        assert (leaf.grad - (student - teacher) / 5).norm() < 0.05 * leaf.grad.norm()


def test_a_student_equal_to_its_teacher_has_no_divergence():
    logits = torch.randn(3, 4) * 10
    assert softened_kl(logits, softened(logits, 3.0), 3.0) == pytest.approx([0.0] * 3, abs=1e-5)


def test_certain_teachers_and_huge_logits_stay_finite():
    logits = torch.tensor([[1000.0, -1000.0, 0.0]])
    found = softened_kl(-logits, softened(logits, 1.0), 1.0)
    assert found.item() == pytest.approx(2000)
    half = softened_kl(torch.randn(2, 3).half(), softened(torch.randn(2, 3).half(), 4.0), 4.0)
    assert half.dtype == torch.float32
    assert half.isfinite().all()


def test_no_gradient_reaches_the_target():
    teacher = torch.randn(2, 3, requires_grad=True)
    student = torch.randn(2, 3, requires_grad=True)
    softened_kl(student, softened(teacher, 2.0), 2.0).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
