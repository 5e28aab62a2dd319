"""MST: whom the gate hears, by whom it is taught, and what each teacher sees."""

import math

import pytest
import torch

from edgestill.distill.config import DistillConfig
from edgestill.distill.conformance.prepared import network, recipe_on
from edgestill.distill.methods.teachers.mst import MST, MSTConfig
from edgestill.distill.train import distill
from edgestill.pipeline.conformance.samples import image_task, splits, text_task
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.network import evaluating, look
from edgestill.pipeline.teachers.ensemble import EnsembleNetwork
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

TASK, CPU = image_task(classes=3), torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    return splits(TASK)


@pytest.fixture(scope="module")
def teacher():
    return frozen(network(TASK, 1, (8, 12, 16)))


@pytest.fixture
def made(data, teacher):
    def make(**settings):
        student = network(TASK, 2)
        recipe, batch = recipe_on([MSTConfig(**settings)], teacher, student, data)
        return recipe, recipe.methods[0], student, batch

    return make


def kl(log_p, log_q):
    return (log_p.exp() * (log_p - log_q)).sum(1)


def test_the_loss_is_labels_and_the_routed_divergences_of_teachers_that_see_a_strip_each(made, teacher):
    recipe, method, student, batch = made(mask_epochs=0, temperature=2.0, balance_weight=0.5)
    with torch.no_grad(), evaluating(student, teacher):
        found = recipe.loss(student, batch)
        s = student(batch.inputs)
        divergences = []
        for first, last in ((0, 4), (4, 8)):
            seen = torch.full_like(batch.inputs, TASK.mean[0])
            seen[..., first:last] = batch.inputs[..., first:last]
            divergences.append(4 * kl((teacher(seen) / 2).log_softmax(1), (s / 2).log_softmax(1)))
        weights = method._gate(s).softmax(1)
    labels = torch.nn.functional.cross_entropy(s, batch.targets)
    expected = labels + (weights * torch.stack(divergences, 1)).sum(1).mean()
    assert float(found["mst"]) == pytest.approx(float(expected), rel=1e-5)
    mean = weights.mean(0)
    uneven = sum(0.5 * (math.log(0.5) - math.log(float(m))) for m in mean) / 2
    assert float(found["mst_balance"]) == pytest.approx(0.5 * uneven, rel=1e-3, abs=1e-7)


def test_the_soft_gate_learns_from_the_teachers_and_the_hard_one_from_the_balance_alone(made):
    for routing in ("soft", "top"):
        recipe, method, student, batch = made(routing=routing, mask_epochs=0)
        terms = recipe.loss(student.eval(), batch)
        for name in ("mst", "mst_balance"):
            gradients = torch.autograd.grad(
                terms[name],
                list(method._gate.parameters()),
                retain_graph=True,
                materialize_grads=True,
                allow_unused=True,
            )
            is_taught = any(bool(g.abs().max() > 1e-9) for g in gradients)
            assert is_taught == (routing == "soft" or name == "mst_balance")


def test_an_even_gate_has_no_balance_to_mend(made):
    _, method, student, batch = made(mask_epochs=0)
    for parameter in method._gate[1].parameters():
        parameter.data.zero_()
    view = look(student.eval(), batch.inputs)
    assert float(method.feature(view, view, batch)["mst_balance"].detach()) == pytest.approx(0, abs=1e-7)
    method._gate[1].bias.data[0] = 50.0
    with torch.no_grad():
        alone = method.objective(view, view, batch)
        each = method._divergences(method._told(batch), view.logits)[:, 0]
        labels = torch.nn.functional.cross_entropy(view.logits, batch.targets, reduction="none")
    torch.testing.assert_close(alone, labels + each)


def test_masks_start_open_learn_towards_the_student_and_then_rest(made, teacher):
    _, method, _, batch = made(mask_epochs=2, mask_learning_rate=0.01)
    fresh = MST(MSTConfig())
    fresh.prepare(method._context)
    with torch.no_grad():
        told = method._bare(batch.inputs)
        assert bool(((fresh._masked(told) / told) > 0.97).all())
        assert not torch.allclose(method._masked(told), fresh._masked(told), atol=1e-3)
    assert not any(parameter.requires_grad for parameter in method._masks.parameters())


def test_images_as_they_are_are_answered_from_what_is_kept_and_others_afresh(made, teacher):
    _, method, _, batch = made(mask_epochs=0)
    with torch.no_grad():
        kept, anew = method._told(batch), method._told(batch._replace(view=None))
        torch.testing.assert_close(kept, anew)
        other = method._told(batch._replace(view=None, inputs=batch.inputs.flip(3)))
    assert not torch.allclose(kept, other, atol=1e-3)


def test_the_gate_comes_to_hear_the_teacher_that_knows(data):
    knows, guesses = network(TASK, 1, (8, 12, 16)), network(TASK, 5, (8, 12, 16))
    training = {"epochs": 15, "batch_size": 16, "optimizer": "adamw", "learning_rate": 0.01, "warmup_epochs": 0}
    fit(knows, Supervised(), data.train, data.validation, TrainingConfig(**training), seed=0, device=CPU)
    guesses.linear.weight.data *= 20  # sure, and wrong
    both = EnsembleNetwork([frozen(guesses), frozen(knows)], (1.0, 1.0), "probabilities")
    method = {"name": "mst", "parts": 1, "mask_epochs": 0, "balance_weight": 0.0}
    config = DistillConfig.model_validate({"methods": [method], "training": training | {"epochs": 8}})
    done = distill(network(TASK, 2), both, data, config, seed=0, device=CPU)
    assert done.measures["mst.share_2"] > 0.7
    assert done.measures["mst.share_1"] + done.measures["mst.share_2"] == pytest.approx(1)


def test_strips_of_texts_and_more_strips_than_columns_are_refused(data):
    with pytest.raises(ConfigError, match=r"set mst\.parts to 1"):
        MST().check(text_task(), data.train)
    with pytest.raises(ConfigError, match="columns"):
        MST(MSTConfig(parts=9)).check(TASK, data.train)
    assert MST(MSTConfig(parts=1)).needs == frozenset()
