"""TAID's target between student and teacher, and its clock."""

import math

import pytest
import torch

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.methods.targets.taid import TAID, TAIDConfig
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.conformance.samples import image_task, splits
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.training.objective import Moment

N, K = 6, 5


def view(seed, scale=2.0):
    logits = scale * torch.randn(N, K, generator=torch.Generator().manual_seed(seed))
    return View(torch.zeros(N, 2, 1, 1), torch.zeros(N, 2), logits)


def batch():
    return Batch(torch.zeros(N, 1, 4, 4), torch.arange(N) % K, torch.arange(N))


def make(*methods):
    return make_recipe(DistillConfig.model_validate({"methods": list(methods)}).methods)


def gradient(recipe, logits):
    student = view(0)._replace(logits=logits.clone().requires_grad_())
    terms = recipe.terms(view(2), student, student.logits, batch())
    terms["distillation"].backward()
    return student.logits.grad


def moment(step, steps):
    return Moment(step, step / steps, 0, {}, batch(), torch.nn.Identity())


def test_without_the_teacher_in_the_target_there_is_no_gradient():
    assert gradient(make({"name": "taid", "start": 0.0}), view(1).logits).abs().max() < 1e-8


def test_with_the_teacher_alone_it_is_plain_kd():
    taid = gradient(make({"name": "taid", "start": 1.0, "temperature": 2.0}), view(1).logits)
    kd = gradient(make({"name": "kd", "temperature": 2.0, "distill_weight": 1.0}), view(1).logits)
    torch.testing.assert_close(taid, kd, atol=1e-7, rtol=1e-5)


def test_the_target_is_the_geometric_mean_of_both_answers_by_their_shares():
    t, s = view(2), view(1)
    found = TAID(TAIDConfig(start=0.3)).target(t, s, batch())
    product = t.logits.softmax(1) ** 0.3 * s.logits.softmax(1) ** 0.7
    torch.testing.assert_close(found, product / product.sum(1, keepdim=True))


def test_the_gradient_is_the_students_answer_less_the_target():
    logits = view(1).logits
    target = (0.6 * logits + 0.4 * view(2).logits).softmax(1)
    found = gradient(make("taid"), logits)
    torch.testing.assert_close(found, (logits.softmax(1) - target) / N, atol=1e-7, rtol=1e-5)


def by_the_code(losses, start=0.4, rate=5e-4, beta=0.99):
    """The clock as the authors' code has it, step by step."""
    u, m, shares = start, 0.0, []
    for step, loss in enumerate(losses, 1):
        if step > 1:
            m = beta * m + (1 - beta) * (losses[step - 2] - loss) / (losses[step - 2] + 1e-15)
            u = min(1.0, max(start + (1 - start) * step / len(losses), u + rate / (1 + math.exp(-m)) * (1 - u)))
        shares.append(u)
    return shares


@pytest.mark.parametrize("rate", [5e-4, 0.1])
def test_the_adaptive_clock_is_the_codes_and_never_behind_the_linear_one_nor_backward(rate):
    losses = [2.0 / (1 + step) + 0.3 * (step % 3) for step in range(20)]
    method, shares = TAID(TAIDConfig(rate=rate)), []
    for step, loss in enumerate(losses, 1):
        method._loss = torch.tensor(loss, dtype=torch.float64)
        method.tick(moment(step, len(losses)))
        shares.append(method._share)
    assert shares == pytest.approx(by_the_code(losses, rate=rate), abs=1e-12)
    assert shares == sorted(shares)
    assert all(u >= 0.4 + 0.6 * step / 20 - 1e-12 for step, u in enumerate(shares, 1) if step > 1)
    assert shares[-1] == 1.0


def test_a_faster_rate_runs_ahead_of_the_linear_clock():
    method = TAID(TAIDConfig(rate=0.5))
    for step in (1, 2, 3):
        method._loss = torch.tensor(1.0)
        method.tick(moment(step, 100))
    assert method._share > 0.6


def test_the_linear_clock_reads_no_loss_and_never_goes_back():
    method = TAID(TAIDConfig(clock="linear", start=0.2))
    method.tick(moment(5, 10))
    assert method._share == pytest.approx(0.6)
    method.tick(moment(1, 10))  # a later stage begins its own schedule
    assert method._share == pytest.approx(0.6)


def test_the_loss_of_the_clock_is_the_cross_entropy_from_target_to_student():
    method, s = TAID(), view(1)
    target = method.target(view(2), s, batch())
    assert float(method._loss) == pytest.approx(float(-(target * s.logits.log_softmax(1)).sum(1).mean()), rel=1e-6)


def test_a_training_ends_with_the_teacher_alone_and_reports_the_share_of_its_best_epoch(make_network):
    data = splits(image_task(classes=3))
    config = DistillConfig.model_validate(
        {"methods": ["taid"], "training": StudentTrainingConfig(epochs=2, batch_size=32, patience=0)}
    )
    done = distill(
        make_network(2, task=data.task), make_network(1, task=data.task), data, config,
        seed=0, device=torch.device("cpu"),
    )  # fmt: skip
    assert done.measures["taid.teacher_share"] == pytest.approx(0.7 if done.fitted.best_epoch == 1 else 1.0, abs=1e-2)


def test_another_divergence_compares_at_the_targets_temperature():
    both = make({"name": "taid", "start": 1.0}, {"name": "divergence", "kind": "total_variation"})
    s = view(1)
    found = both.terms(view(2), s, s.logits, batch())["distillation"]
    expected = 0.9 * (view(2).logits.softmax(1) - s.logits.softmax(1)).abs().sum(1).mean() / 2
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
