"""BD-KD's balanced divergence, and the teacher that learns beside its student."""

import pytest
import torch
import torch.nn.functional as F

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.conformance.prepared import prepared
from edgestill.distill.methods.targets.bd_kd import BDKD, BDKDConfig, entropy
from edgestill.distill.methods.teachers.online import OnlineTeacher, reverse_kl
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import caches_teacher, distill
from edgestill.pipeline.conformance.samples import image_task, splits
from edgestill.pipeline.networks.network import View

N, K, T = 8, 5, 2.0
CPU = torch.device("cpu")


def drawn(seed, scale=2.0):
    return scale * torch.randn(N, K, generator=torch.Generator().manual_seed(seed))


def loss(t, s, **settings):
    view = View(torch.zeros(0), torch.zeros(0), s)
    return BDKD(BDKDConfig(temperature=T, **settings)).divergence((t / T).softmax(1), view)


def both(t, s):
    p, q = (t / T).softmax(1), (s / T).softmax(1)
    return (p * (p / q).log()).sum(1), (q * (q / p).log()).sum(1), -(p * p.log()).sum(1) + (q * q.log()).sum(1)


def test_both_divergences_are_weighed_by_who_is_surer():
    t, s = drawn(1), drawn(2)
    forward, backward, gap = both(t, s)
    for balance, of in ((0.5, gap.sign()), (-0.5, gap.sign())):
        expected = T**2 * ((1 + balance * of) * forward + (1 - balance * of) * backward)
        torch.testing.assert_close(loss(t, s, balance=balance), expected, atol=1e-5, rtol=1e-4)
    soft = T**2 * ((1 + 0.5 * gap.tanh()) * forward + (1 - 0.5 * gap.tanh()) * backward)
    torch.testing.assert_close(loss(t, s, gap="tanh"), soft, atol=1e-5, rtol=1e-4)


def test_a_surer_student_gets_more_forward_kl_and_a_vaguer_one_more_reverse_kl():
    t = drawn(1)
    for factor, heavier in ((3.0, 0), (0.3, 1)):
        forward, backward, _ = both(t, factor * t)
        expected = T**2 * 2 * (forward, backward)[heavier]
        torch.testing.assert_close(loss(t, factor * t, balance=1.0), expected, atol=1e-5, rtol=1e-4)


def test_without_a_tilt_it_is_symmetric_and_jeffreys_divergence():
    t, s = drawn(1), drawn(2)
    torch.testing.assert_close(loss(t, s, balance=0.0), loss(s, t, balance=0.0), atol=1e-5, rtol=1e-4)
    forward, backward, _ = both(t, s)
    torch.testing.assert_close(loss(t, s, balance=0.0), T**2 * (forward + backward), atol=1e-5, rtol=1e-4)


def test_a_tilt_breaks_the_symmetry():
    t, s = drawn(1), 3 * drawn(2)
    assert not torch.allclose(loss(t, s, balance=0.5), loss(s, t, balance=-0.5), rtol=1e-3)


def test_it_is_zero_without_gradient_at_the_teacher():
    t = drawn(1)
    s = t.clone().requires_grad_()
    found = loss(t, s)
    found.sum().backward()
    assert found.detach().abs().max() < 1e-5
    assert s.grad.abs().max() < 1e-5


def test_the_tilt_carries_no_gradient():
    t, s = drawn(1), drawn(2).requires_grad_()
    loss(t, s, gap="tanh").sum().backward()
    forward, backward, gap = both(t, s)
    fixed = gap.detach().tanh() * 0.5
    [expected] = torch.autograd.grad((T**2 * ((1 + fixed) * forward + (1 - fixed) * backward)).sum(), s)
    torch.testing.assert_close(s.grad, expected, atol=1e-4, rtol=1e-3)


def test_the_entropy_of_a_certain_answer_is_zero():
    assert entropy(torch.tensor([[0.0, -torch.inf]])).item() == 0


@pytest.fixture(scope="module")
def online():
    recipe, given, student, batch = prepared(OnlineTeacher)
    before = {name: value.clone() for name, value in given.state_dict().items()}
    return recipe, given, before, student.train(), batch


def gradients(network):
    return [p.grad for p in network.parameters() if p.grad is not None and float(p.grad.norm()) > 0]


def test_each_network_is_a_constant_in_the_others_loss(online):
    recipe, given, _, student, batch = online
    copy = recipe.methods[0].extras()["teacher"]
    for part, learner, other in (
        (("cross_entropy", "distillation"), student, copy),
        (("teacher_cross_entropy", "teacher_divergence"), copy, student),
    ):
        for network in (student, copy):
            network.zero_grad(set_to_none=True)
        terms = recipe.loss(student, batch)
        sum(terms[name] for name in part).backward()
        assert gradients(learner)
        assert not gradients(other)
        assert not gradients(given)


def test_the_teachers_loss_is_its_labels_and_its_divergence_from_the_student(online):
    recipe, _, _, student, batch = online
    terms = recipe.loss(student, batch)
    t = recipe.methods[0].extras()["teacher"](batch.inputs).detach()
    s = student(batch.inputs).detach()
    assert terms["teacher_cross_entropy"].item() == pytest.approx(float(F.cross_entropy(t, batch.targets)), rel=1e-4)
    expected = 16 * F.kl_div((s / 4).log_softmax(1), (t / 4).softmax(1), reduction="batchmean")
    assert terms["teacher_divergence"].item() == pytest.approx(float(expected), rel=1e-3, abs=1e-5)


def test_the_teachers_divergence_has_a_gradient_to_the_teacher_alone():
    t, s = drawn(1).double().requires_grad_(), drawn(2).double().requires_grad_()
    torch.autograd.gradcheck(lambda logits: reverse_kl(logits, s.detach().float(), T), t, eps=1e-6, atol=1e-4)


def test_a_training_teaches_the_copy_and_leaves_the_given_teacher_as_it_was(make_network):
    data = splits(image_task(classes=3))
    given = make_network(1, task=data.task)
    before = {name: value.clone() for name, value in given.state_dict().items()}
    config = DistillConfig.model_validate({
        "methods": ["online_teacher", "bd_kd"],
        "training": StudentTrainingConfig(epochs=6, batch_size=16, patience=0),
    })  # fmt: skip
    done = distill(make_network(2, task=data.task), given, data, config, seed=0, device=CPU)
    assert all(torch.equal(value, given.state_dict()[name]) for name, value in before.items())
    learnt = done.state["online_teacher"]
    assert not torch.equal(learnt["linear.weight"], before["linear.weight"])
    assert done.measures["online_teacher.reference_accuracy"] > 0.5  # untrained at the start: 1 / 3
    curve = [record.terms["teacher_cross_entropy"] for record in done.fitted.curve]
    assert curve[-1] < curve[0]


def test_its_answers_are_never_cached():
    recipe = make_recipe(DistillConfig.model_validate({"methods": ["online_teacher"]}).methods)
    assert recipe.varies_teacher
    assert not caches_teacher(recipe, splits(image_task()), views=0)
