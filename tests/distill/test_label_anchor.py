"""The label anchor: its target, its limits, and the authors' squared loss."""

import pytest
import torch
import torch.nn.functional as F

from edgestill.distill.methods.kd import KD, KDConfig
from edgestill.distill.methods.weights.label_anchor import LabelAnchor, LabelAnchorConfig
from edgestill.distill.recipe import make_recipe
from edgestill.pipeline.data.splits import UNLABELLED, Batch, Mixed
from edgestill.pipeline.networks.network import View


def drawn(seed, n=6, k=4):
    return View(
        torch.zeros(n, 2, 1, 1),
        torch.zeros(n, 2),
        2 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed)),
    )


BATCH = Batch(torch.zeros(6, 1, 2, 2), torch.tensor([0, 1, 2, 3, 0, UNLABELLED]), torch.arange(6))


def test_the_target_mixes_label_and_teacher_and_an_unlabelled_examples_is_the_teachers():
    teacher, student = drawn(1), drawn(2)
    target = LabelAnchor(LabelAnchorConfig(label_share=0.3, temperature=2.0)).target(teacher, student, BATCH)
    told = (teacher.logits / 2).softmax(1)
    torch.testing.assert_close(target[:5], 0.3 * F.one_hot(BATCH.targets[:5], 4) + 0.7 * told[:5])
    torch.testing.assert_close(target[5], told[5])


def test_a_mixed_examples_label_is_mixed():
    whose = Mixed(
        torch.tensor([[0, 1], [2, UNLABELLED]]), torch.zeros(2, 2, dtype=torch.int64), torch.tensor([0.25, 0.5])
    )
    batch = Batch(torch.zeros(2, 1, 2, 2), torch.full((2,), UNLABELLED), torch.arange(2), mixed=whose)
    teacher = drawn(1, n=2)
    target = LabelAnchor(LabelAnchorConfig(label_share=0.4)).target(teacher, teacher, batch)
    told = teacher.logits.softmax(1)
    label = torch.tensor([0.25, 0, 0.75, 0])
    torch.testing.assert_close(target[0], 0.4 * label + 0.6 * told[0])
    torch.testing.assert_close(target[1], 0.5 * (0.4 * torch.eye(4)[1] + 0.6 * told[1]) + 0.5 * told[1])


def test_without_the_label_it_is_kds_divergence_and_with_it_alone_cross_entropy():
    teacher, student = drawn(1), drawn(2)
    bare = LabelAnchor(LabelAnchorConfig(label_share=0.0, temperature=3.0))
    kd = KD(KDConfig(temperature=3.0))
    found, plain = (m.divergence(m.target(teacher, student, BATCH), student) for m in (bare, kd))
    torch.testing.assert_close(found, plain)
    whole = LabelAnchor(LabelAnchorConfig(label_share=1.0))
    found = whole.divergence(whole.target(teacher, student, BATCH), student)[:5]
    torch.testing.assert_close(found, F.cross_entropy(student.logits[:5], BATCH.targets[:5], reduction="none"))


def test_the_squared_loss_has_the_gradient_of_the_authors_two_terms():
    teacher, student = drawn(1), drawn(2)
    batch = BATCH._replace(targets=torch.arange(6) % 4)
    method = LabelAnchor(LabelAnchorConfig(label_share=0.6, loss="squared"))
    logits = student.logits.double().requires_grad_()
    p, told, y = logits.softmax(1), teacher.logits.double().softmax(1), F.one_hot(batch.targets, 4)
    two = 0.6 * (p - y).square().sum(1) + 0.4 * (p - told).square().sum(1)
    expected = torch.autograd.grad(two.sum(), logits)[0]
    again = student.logits.requires_grad_()
    found = method.divergence(method.target(teacher, student, batch), student._replace(logits=again))
    torch.testing.assert_close(torch.autograd.grad(found.sum(), again)[0].double(), expected, atol=1e-6, rtol=1e-4)
    gap = (two.float() - found).detach()
    torch.testing.assert_close(gap, (0.24 * (y - told).square().sum(1)).float(), atol=1e-5, rtol=1e-4)


def test_it_weighs_its_divergence_alone():
    teacher, student = drawn(1), drawn(2)
    terms = make_recipe([LabelAnchorConfig()]).terms(teacher, student, student.logits, BATCH)
    assert float(terms["cross_entropy"]) == 0
    assert float(terms["distillation"]) == pytest.approx(
        float(LabelAnchor().divergence(LabelAnchor().target(teacher, student, BATCH), student).mean())
    )
