"""The switch: whose weights its gradient reaches, and what its loss is invariant to."""

import sys
from pathlib import Path

import pytest
import torch

from edgestill.distill.switch import dbild, switch_terms

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import switch as benchmark
from lib.captioner import toy

SIZES = {"channels": 3, "depth": 1, "heads": 2, "head_width": 4}


@pytest.fixture(scope="module")
def made():
    images, texts = benchmark.data(0)
    teacher, student = (benchmark._network(seed, **SIZES) for seed in (1, 2))
    return teacher.eval().requires_grad_(False), student, images[:6], texts[:6]


def test_the_switchs_gradient_reaches_the_students_eyes_alone(made):
    teacher, student, images, texts = made
    terms = switch_terms(teacher, student, images, texts)
    assert set(terms) == {"cross_entropy", "distillation", "switch"}
    for name, term in terms.items():
        found = torch.autograd.grad(term, list(student.parameters()), retain_graph=True, allow_unused=True)
        reached = {
            key.partition(".")[0]
            for (key, _), gradient in zip(student.named_parameters(), found, strict=True)
            if gradient is not None and bool(gradient.any())
        }
        assert reached == (
            {"eyes"} if name == "switch" else {key.partition(".")[0] for key, _ in student.named_parameters()}
        )
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_eyes_that_see_what_the_teachers_see_have_nothing_to_switch(made):
    teacher, student, images, texts = made
    same = benchmark._network(3, **SIZES)
    same.eyes.load_state_dict(teacher.eyes.state_dict())
    assert float(switch_terms(teacher, same, images, texts)["switch"].detach()) == pytest.approx(0, abs=1e-6)
    assert float(switch_terms(teacher, student, images, texts)["switch"].detach()) > 1e-6


def test_the_loss_knows_differences_of_logits_and_not_their_level():
    generator = torch.Generator().manual_seed(0)
    t, s = (3 * torch.randn(5, 9, generator=generator) for _ in range(2))
    assert float(dbild(t, s + 2.5)) == pytest.approx(float(dbild(t, s)), rel=1e-4)
    assert float(dbild(t, 2 * s)) != pytest.approx(float(dbild(t, s)), rel=1e-2)
    assert float(dbild(t, t)) == pytest.approx(0, abs=1e-6)


def test_texts_see_the_image_and_what_stands_before_alone(made):
    _, student, images, texts = made
    with torch.no_grad():
        seen = student.see(images)
        whole, part = student.say(seen, texts), student.say(seen, texts[:, :4])
        torch.testing.assert_close(whole[:, :4], part)
        assert not torch.allclose(student.say(seen.flip(0), texts), whole, atol=1e-3)


def test_a_teacher_that_could_learn_and_eyes_of_another_shape_are_refused(made):
    teacher, student, images, texts = made
    with pytest.raises(ValueError, match="must be frozen"):
        switch_terms(student, student, images, texts)
    other = toy(4, len(benchmark.CHARACTERS), benchmark.LENGTH, **SIZES)
    other.eyes.append(torch.nn.AvgPool1d(2))
    with pytest.raises(ValueError, match="make them equal"):
        switch_terms(teacher, other, images, texts)
