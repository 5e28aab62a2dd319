"""Influence against exact leave-one-out, autograd, and each backend against the others."""

import builtins
import copy
import dataclasses
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import nn

from edgestill.distill.methods.kd_aif.influence import BACKENDS, to_weights
from edgestill.distill.methods.kd_aif.influence.base import (
    Question,
    curvature_residual,
    reference_residual,
    training_residual,
)
from edgestill.distill.methods.kd_aif.influence.ekfac import ekfac
from edgestill.distill.methods.kd_aif.influence.last_layer import head_hessian, last_layer, solve_head
from edgestill.distill.methods.kd_aif.influence.network import Neighbourhood, cg, identity, lissa_backend
from edgestill.pipeline.data.datasets import DigitsConfig
from edgestill.pipeline.data.loading import load_splits, load_test
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.errors import DataError, MissingDependencyError
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.networks.network import initialise

from .conftest import CLASSES, fit_exactly


def corr(one, other):
    return float(np.corrcoef(np.asarray(one), np.asarray(other))[0, 1])


# Leave-one-out, the definition


def without(made, index, loss, share=1.0):
    """Exact change of the reference loss when `share` of the weight of one example is taken away."""

    def reference_loss():
        with torch.no_grad():
            logits = made.network(made.reference.images)
        if loss == "ce":
            return F.cross_entropy(logits, made.reference.targets).item()
        right = F.one_hot(made.reference.targets, CLASSES).bool()
        return (logits.masked_fill(right, -torch.inf).logsumexp(1) - logits[right]).mean().item()

    whole = torch.ones(len(made.train), dtype=torch.float64)
    before = fit_exactly(made.network, made.train, whole) and reference_loss()
    weight = whole.clone()
    weight[index] -= share
    fit_exactly(made.network, made.train, weight)
    return reference_loss() - before


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_it_predicts_what_leaving_an_example_out_does_to_the_reference_loss(logistic, seed, loss):
    """400 examples for the 21 weights of three classes: at 200 what one of them moves is no longer small."""
    made = logistic(seed, train=400)
    influence = last_layer(made.ask(reference_loss=loss))
    changes = [without(made, n, loss) for n in range(0, 400, 2)]
    assert corr(-influence[::2], changes) > 0.99


def test_it_is_the_rate_at_which_an_examples_weight_moves_the_reference_loss(logistic):
    made = logistic()
    influence = last_layer(made.ask(reference_loss="margin"))
    for n in range(0, 200, 20):
        change = without(made, n, "margin", share=1e-3)
        assert change == pytest.approx(-float(influence[n]) * 1e-3 / 200, rel=5e-3)


# The last layer's closed forms


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gradients_and_hessian_of_the_last_layer_are_autograds(logistic, temperature):
    made = logistic(train=30)
    inputs = F.pad(made.train.images.flatten(1), (0, 1), value=1.0)
    answers = F.softmax(torch.randn(30, CLASSES, dtype=torch.float64), dim=1)
    theta = torch.cat([made.network.linear.weight, made.network.linear.bias[:, None]], 1).detach()

    def loss(theta, chosen=slice(None)):
        log_p = F.log_softmax(inputs[chosen] @ theta.T / temperature, dim=1)
        return temperature**2 * F.kl_div(log_p, answers[chosen], reduction="none").sum(1).mean()

    logits = inputs @ theta.T
    residual = training_residual(logits, answers, temperature)
    for n in (0, 7):
        expected = torch.func.grad(lambda t, n=n: loss(t, slice(n, n + 1)))(theta)
        assert torch.allclose(residual[n][:, None] * inputs[n][None], expected, atol=1e-12)
    expected = torch.func.hessian(loss)(theta).reshape(theta.numel(), -1)
    assert torch.allclose(head_hessian(inputs, F.softmax(logits / temperature, dim=1)), expected, atol=1e-12)


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_the_reference_losses_gradient_is_autograds(loss):
    logits, targets = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    right = F.one_hot(targets, 4).bool()

    def mean_loss(z):
        if loss == "ce":
            return F.cross_entropy(z, targets, reduction="sum")
        return (z.masked_fill(right, -torch.inf).logsumexp(1) - z[right]).sum()

    assert torch.allclose(reference_residual(logits, targets, loss), torch.func.grad(mean_loss)(logits))


def test_the_margin_keeps_its_gradient_where_the_example_is_right_and_cross_entropy_does_not():
    logits, targets = torch.tensor([[20.0, 0.0, 1.0]]), torch.tensor([0])
    assert reference_residual(logits, targets, "margin").abs().max() == 1
    assert reference_residual(logits, targets, "ce").abs().max() < 1e-6


def test_a_wide_head_solved_by_conjugate_gradient_is_the_one_solved_directly(logistic, monkeypatch):
    made = logistic()
    inputs = F.pad(made.train.images.flatten(1), (0, 1), value=1.0)
    logits, gradient = made.network(made.train.images).detach(), torch.randn(CLASSES, inputs.shape[1]).double()
    direct = solve_head(inputs, logits, gradient, 0.1, 1.0)
    monkeypatch.setitem(solve_head.__globals__, "_DIRECT", 0)
    iterative = solve_head(inputs, logits, gradient, 0.1, 1.0)
    assert torch.allclose(direct, iterative, rtol=1e-2, atol=1e-3 * float(direct.abs().max()))


class Folded(nn.Module):
    """A head of two subclasses a class, folded to class logits as it would ship."""

    def __init__(self, network, subclasses):
        super().__init__()
        self.network, self.subclasses = network, subclasses

    def forward(self, inputs):
        embedding = self.network.forward_head(self.network.forward_features(inputs), pre_logits=True)
        return self.subclasses(embedding).unflatten(1, (CLASSES, 2)).logsumexp(2)


def test_a_folded_head_is_asked_about_the_directions_that_move_a_classes_subclasses_alike(logistic):
    """Against brute force in all K S weights, restricted to those directions."""
    made = logistic(train=40, reference=20)
    subclasses = nn.Linear(6, 2 * CLASSES).double()
    question = made.ask(deployable=Folded(made.network, subclasses), reference_loss="margin", damping=0.2)
    found = last_layer(question)
    inputs = F.pad(made.train.images.flatten(1), (0, 1), value=1.0)
    seen = F.pad(made.reference.images.flatten(1), (0, 1), value=1.0)
    theta = torch.cat([subclasses.weight, subclasses.bias[:, None]], 1).detach()

    def logits(move, features):
        return (features @ (theta + move.repeat_interleave(2, 0)).T).unflatten(1, (CLASSES, 2)).logsumexp(2)

    def margin(move):
        z, right = logits(move, seen), F.one_hot(made.reference.targets, CLASSES).bool()
        return (z.masked_fill(right, -torch.inf).logsumexp(1) - z[right]).mean()

    still = torch.zeros(CLASSES, 7, dtype=torch.float64)
    losses = torch.func.jacrev(lambda m: F.cross_entropy(logits(m, inputs), made.train.targets, reduction="none"))
    jacobian = torch.func.jacrev(lambda m: logits(m, inputs))(still).flatten(2)  # [N, K, P]
    p = F.softmax(logits(still, inputs), dim=1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    newton = torch.einsum("nkp,nkl,nlq->pq", jacobian, middle, jacobian) / len(inputs)
    newton += 0.2 * newton.diagonal().mean() * torch.eye(len(newton), dtype=newton.dtype)
    expected = -losses(still).flatten(1) @ torch.linalg.solve(newton, torch.func.grad(margin)(still).flatten())
    assert torch.allclose(found, expected, rtol=1e-6)


# Sign, and what weights do


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_flipped_labels_come_out_harmful(logistic, loss):
    areas, weights = [], []
    for seed in range(5):
        made = logistic(seed, flipped=0.15, spread=1.0)
        influence = last_layer(made.ask(reference_loss=loss))
        assert influence[made.wrong].mean() > influence[~made.wrong].mean()
        areas.append(roc_auc_score(made.wrong.numpy(), influence.numpy()))
        for how in ("sigmoid", "exp", "drop"):
            weight = to_weights(influence, how, sharpness=10, clip=0.01, bounds=(0, 10))
            weights.append(float(weight[~made.wrong].mean() - weight[made.wrong].mean()))
    assert np.mean(areas) > 0.6
    assert min(weights) > 0


def test_a_refit_with_the_weights_lowers_the_loss_on_data_that_they_were_not_fitted_to(logistic):
    gains = []
    for seed in range(5):
        made = logistic(seed, flipped=0.15, spread=1.0)
        losses = []
        for weight in (None, to_weights(last_layer(made.ask()), "sigmoid", sharpness=10, clip=0.01, bounds=(0, 10))):
            fit_exactly(made.network, made.train, weight)
            with torch.no_grad():
                losses.append(F.cross_entropy(made.network(made.held_out.images), made.held_out.targets).item())
        gains.append(losses[0] - losses[1])
    assert np.mean(gains) > 0.02


# Backends on a network of which they see the same weights


def solved_directly(made, question):
    """The influence by a dense solution, with the damping that the backends over all weights estimate."""
    inputs, seen = (F.pad(s.images.flatten(1), (0, 1), value=1.0) for s in (made.train, made.reference))
    logits, answered = (made.network(s.images).detach() for s in (made.train, made.reference))
    gradient = reference_residual(answered, made.reference.targets, question.reference_loss).T @ seen / len(seen)
    system = head_hessian(inputs, F.softmax(logits, dim=1))
    system += question.damping * Neighbourhood(question).mean_diagonal() * torch.eye(len(system), dtype=system.dtype)
    direction = torch.linalg.solve(system, gradient.flatten()).view_as(gradient)
    return -((training_residual(logits, question.answers, 1.0) @ direction) * inputs).sum(1)


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_conjugate_gradient_over_all_weights_is_the_exact_answer(logistic, loss):
    made = logistic()
    question = made.ask(damping=0.1, reference_loss=loss)
    exact = solved_directly(made, question)
    assert float((cg(question, tolerance=1e-9) - exact).norm() / exact.norm()) < 1e-6
    assert float((cg(question) - exact).norm() / exact.norm()) < 1e-2
    assert corr(exact, last_layer(question)) > 0.999  # whose damping is of the true mean diagonal


def test_lissa_as_it_comes_is_near_the_exact_answer(logistic):
    made = logistic()
    question = made.ask(damping=1.0)
    exact, found = solved_directly(made, question), lissa_backend(question)
    assert corr(found, exact) > 0.98
    assert float((found - exact).norm() / exact.norm()) < 0.15


def test_lissa_warns_of_an_answer_that_it_did_not_reach(logistic):
    question = logistic().ask(damping=0.01)
    with pytest.warns(RuntimeWarning, match=r"lissa left \d+% .* unsolved after 1 steps: .* raise kd_aif.damping"):
        lissa_backend(question, depth=1)


def test_identity_is_the_product_of_gradients(logistic):
    made = logistic()
    parameters = dict(made.network.named_parameters())

    def loss(weights, inputs, target):
        return F.cross_entropy(torch.func.functional_call(made.network, weights, (inputs,)), target)

    gradient = torch.func.grad(loss)(parameters, made.reference.images, made.reference.targets)
    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(
        parameters, made.train.images[:, None], made.train.targets[:, None]
    )
    expected = -sum(each[name].flatten(1) @ gradient[name].flatten() for name in parameters)
    assert torch.allclose(identity(made.ask()), expected, rtol=1e-9)


@pytest.fixture
def convolutional(make_task, make_split):
    """A question about a small ResNet with a trunk and batch norm."""
    task = make_task()
    network = CifarResNet((1, 1, 1), (4, 6, 8), num_classes=3, mean=task.mean, std=task.std).eval()
    initialise(network, "kaiming", 0)
    train, reference = make_split(task, 40, 1), dataclasses.replace(make_split(task, 12, 2), role="reference")
    answers = F.one_hot(train.targets, 3).float()
    return Question(network, network, train, answers, reference, "margin", 0.5, 1.0, 0, torch.device("cpu"))


def test_products_with_the_curvature_are_those_of_the_whole_matrix(convolutional):
    around, network = Neighbourhood(convolutional), convolutional.network
    parameters = {name: weight.detach() for name, weight in network.named_parameters()}
    inputs = convolutional.train.images

    jacobian = torch.func.jacrev(lambda w: torch.func.functional_call(network, w, (inputs,)))(parameters)
    jacobian = torch.cat([part.flatten(2) for part in jacobian.values()], 2)  # [N, K, P]
    vector = torch.randn(jacobian.shape[2])
    change = curvature_residual(network(inputs).detach(), jacobian @ vector, 1.0)
    expected = torch.einsum("nkp,nk->p", jacobian, change) / len(inputs)
    assert torch.allclose(around.product(vector), expected, atol=1e-4 * float(expected.abs().max()))
    middle = network(inputs).detach().softmax(1)
    middle = torch.diag_embed(middle) - middle[:, :, None] * middle[:, None]
    diagonal = torch.einsum("nkp,nkl,nlp->p", jacobian, middle, jacobian) / len(inputs)
    assert around.mean_diagonal() == pytest.approx(float(diagonal.mean()), rel=0.7)  # four random vectors


@pytest.mark.filterwarnings("ignore:lissa left")
@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "ekfac"])
def test_every_backend_follows_a_permutation_of_the_training_examples_and_adds_over_the_reference(name, convolutional):
    if name == "lissa":  # draws mini-batches by position
        found = lissa_backend(convolutional, depth=30, repeats=1)
        assert found.shape == (40,)
        assert found.isfinite().all()
        return
    whole = convolutional.reference.select(torch.arange(4))
    convolutional = dataclasses.replace(convolutional, reference=whole)
    found = BACKENDS[name](convolutional)
    assert found.shape == (40,)
    order = torch.randperm(40)
    train = ImageSplit(convolutional.train.images[order], convolutional.train.targets[order])
    permuted = dataclasses.replace(convolutional, train=train, answers=convolutional.answers[order])
    scale = float(found.abs().max())
    assert torch.allclose(BACKENDS[name](permuted), found[order], atol=0.02 * scale)
    parts = []
    for n in range(len(whole)):
        one = ImageSplit(whole.images[n : n + 1], whole.targets[n : n + 1], whole.role)
        parts.append(BACKENDS[name](dataclasses.replace(convolutional, reference=one)))
    assert torch.allclose(torch.stack(parts).mean(0), found, atol=0.02 * scale)


def test_kronfluences_scores_have_the_opposite_sign_and_its_identity_is_ours(convolutional):
    pytest.importorskip("kronfluence")
    found = ekfac(convolutional, strategy="identity")
    names = {n for n, m in convolutional.network.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}

    class Only(Neighbourhood):  # batch norm's scales are no Linear's or Conv2d's
        def __init__(self, question):
            super().__init__(question)
            kept = {k: v for k, v in self._weights.items() if k.rpartition(".")[0] in names}
            self._buffers |= {k: v for k, v in self._weights.items() if k not in kept}
            self._weights = kept

    around = Only(convolutional)
    expected = around.along(around.reference_gradient())
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_ekfac_agrees_with_conjugate_gradient_in_sign_and_order(logistic):
    pytest.importorskip("kronfluence")
    made = logistic(flipped=0.15)
    single = [dataclasses.replace(split, images=split.images.float()) for split in (made.train, made.reference)]
    network = made.network.float()
    question = made.ask(network=network, deployable=network, train=single[0], reference=single[1], damping=0.1)
    assert corr(ekfac(question), cg(question)) > 0.9


def test_without_kronfluence_the_error_says_how_to_get_it(convolutional, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("kronfluence")]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("kronfluence"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgestill\[influence\]'.*last_layer"):
        ekfac(convolutional)


# On reference and on no other split


def test_it_cannot_be_computed_on_another_split_than_reference(convolutional):
    splits = load_splits(DigitsConfig(), 0)
    unknown = dataclasses.replace(splits.reference, role="")
    for other in (load_test(DigitsConfig(), 0), splits.validation, splits.train, unknown):
        for given in (other, other.to(torch.device("cpu"))):
            with pytest.raises(DataError, match=f"on the reference split, and this is the {other.role} split"):
                dataclasses.replace(convolutional, reference=given)
    assert dataclasses.replace(convolutional, reference=splits.reference).reference.role == "reference"


# Rounding


def in_float32(made, scale):
    """The question's network with logits `scale` times as large, its splits, and the same in double precision."""
    exact = copy.deepcopy(made.network)
    with torch.no_grad():
        exact.linear.weight.mul_(scale)
        exact.linear.bias.mul_(scale)
    splits = {
        name: dataclasses.replace(split, images=split.images.float())
        for name, split in (("train", made.train), ("reference", made.reference))
    }
    return copy.deepcopy(exact).float(), exact, splits


@pytest.mark.parametrize("backend", ["last_layer", "cg", "identity"])
@pytest.mark.parametrize(("scale", "temperature"), [(1, 1.0), (1, 4.0), (10, 1.0), (30, 4.0)])
def test_what_a_network_answers_already_has_no_influence(logistic, backend, scale, temperature):
    """Left in, rounding comes out at up to 1e-2 of a nat where a sure network has little curvature to divide it by."""
    made = logistic()
    network, _, splits = in_float32(made, scale)
    answers = F.softmax(
        torch.cat([network(part) for part in splits["train"].images.split(7)]) / temperature, 1
    ).detach()
    asked = {"network": network, "deployable": network, "answers": answers, "temperature": temperature, **splits}
    influence = BACKENDS[backend](made.ask(damping=1.0, **asked))
    assert torch.equal(influence, torch.zeros(200))


@pytest.mark.parametrize("backend", ["last_layer", "identity"])
def test_labels_that_are_almost_met_keep_their_influence(logistic, backend):
    made = logistic()
    network, exact, splits = in_float32(made, 30)
    answers = F.one_hot(exact(made.train.images).argmax(1), CLASSES)
    found = BACKENDS[backend](
        made.ask(damping=1.0, network=network, deployable=network, answers=answers.float(), **splits)
    )
    expected = BACKENDS[backend](made.ask(damping=1.0, network=exact, deployable=exact, answers=answers.double()))
    assert float(expected.abs().median()) < 1e-4 * float(expected.abs().max())
    assert torch.allclose(found.double(), expected.detach(), rtol=1e-3, atol=1e-30)


def test_the_curvature_of_a_sure_network_has_no_negative_direction(logistic):
    made = logistic()
    for scale in (100, 1000):
        p = F.softmax(made.network(made.train.images).detach() * scale, 1)
        hessian = head_hessian(F.pad(made.train.images.flatten(1), (0, 1), value=1.0), p)
        smallest = float(torch.linalg.eigvalsh(hessian).min())
        assert smallest > -1e-12 * float(hessian.diagonal().mean())
