"""TGeo: its geometry by hand, its controller's gradient against finite differences, and its limits."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from edgestill.distill.config import DistillConfig
from edgestill.distill.methods.weights.tgeo import TGeoConfig, full_geometry, scalar_geometry
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.data.splits import UNLABELLED
from edgestill.pipeline.networks.network import look
from edgestill.pipeline.networks.text_transformer import TextTransformer
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.objective import Moment

CPU = torch.device("cpu")


@pytest.fixture
def prepared(make_task, make_splits, make_network, make_context):
    def make(**settings):
        splits = make_splits(make_task())
        teacher, student = frozen(make_network(1)), make_network(2)
        recipe = make_recipe([TGeoConfig(width=4, **settings)])
        recipe.prepare(make_context(recipe, splits, teacher, student))
        batch = splits.train.batch(torch.arange(9))
        return recipe, recipe.methods[0], look(teacher, batch.inputs).logits, student, batch, splits

    return make


def points(seed, n=3, k=4):
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed)).softmax(1)


def test_the_geometry_is_four_vertices_and_five_signed_edges_or_six_distances_and_four_probabilities():
    s, t, mean, g = points(0), points(1), points(2), F.one_hot(torch.tensor([0, 3, 1]), 4).float()
    full, scalar = full_geometry(s, t, g, mean), scalar_geometry(s, t, g, mean)
    assert full.shape == (3, 36)
    assert scalar.shape == (3, 10)
    for n, y in enumerate((0, 3, 1)):
        expected = [s, t, mean, g, g - s, g - t, t - s, g - mean, mean - s]
        assert full[n].tolist() == pytest.approx(torch.cat([part[n] for part in expected]).tolist())
        far = [float((a[n] - b[n]).norm()) for a, b in itertools.combinations([s, t, mean, g], 2)]
        assert scalar[n].tolist() == pytest.approx(far + [float(part[n, y]) for part in (s, t, mean, g)], abs=1e-6)


def test_the_mean_of_a_class_is_that_of_the_teachers_probabilities(prepared, make_network):
    _, method, _, _, _, splits = prepared()
    everything = splits.train.batch(torch.arange(90))
    with torch.no_grad():
        p = look(frozen(make_network(1)), everything.inputs).logits.softmax(1)
    for c in range(3):
        torch.testing.assert_close(method._means[c], p[everything.targets == c].mean(0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("geometry", ["full", "scalar"])
@pytest.mark.parametrize("training", [True, False])
def test_the_controllers_gradient_is_a_finite_difference_of_the_loss_after_the_step(prepared, geometry, training):
    _, method, told, student, batch, splits = prepared(geometry=geometry, unroll_lr=0.5)
    student.double().train(training)
    method._controller.double()
    batch = batch._replace(inputs=batch.inputs.double())
    reference = splits.reference.batch(torch.arange(12))
    reference = reference._replace(inputs=reference.inputs.double())

    def outer():
        return method.outer_loss(student, batch, told.double(), reference)

    parameters = list(method._controller.parameters())
    gradients = torch.autograd.grad(outer(), parameters)
    assert sum(float(gradient.abs().sum()) for gradient in gradients) > 1e-6
    for parameter, gradient in zip(parameters, gradients, strict=True):
        place = int(gradient.abs().argmax())
        values = []
        for step in (1e-4, -1e-4):
            with torch.no_grad():
                parameter.view(-1)[place] += step
            values.append(float(outer().detach()))
            with torch.no_grad():
                parameter.view(-1)[place] -= step
        expected = (values[0] - values[1]) / 2e-4
        assert float(gradient.view(-1)[place]) == pytest.approx(expected, rel=1e-4, abs=1e-10)


def test_a_step_moves_the_controller_and_nothing_of_the_student(prepared):
    recipe, method, _, student, batch, _ = prepared()
    student.train()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    own = [parameter.clone() for parameter in method._controller.parameters()]
    for step in range(10):
        method._told = recipe.look_at_teacher(batch).logits
        method.tick(Moment(step + 1, 0.1, 0, {}, batch, student))
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert all(not torch.equal(a, b) for a, b in zip(own, method._controller.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in student.parameters())


def test_a_constant_controller_is_kd_with_that_alpha(prepared):
    recipe, method, _, student, batch, _ = prepared()
    student.eval()
    last = method._controller[2]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(torch.logit(torch.tensor(0.7)))
    found = recipe.loss(student, batch)
    plain = make_recipe(DistillConfig.model_validate({"methods": [{"name": "kd", "distill_weight": 0.7}]}).methods)
    plain._teacher = recipe._teacher
    for name, term in plain.loss(student, batch).items():
        assert float(found[name]) == pytest.approx(float(term), rel=1e-5)


def test_an_unlabelled_example_takes_the_teachers_class(prepared):
    _, method, told, student, batch, _ = prepared()
    logits = student.eval()(batch.inputs)
    nobody = batch._replace(targets=torch.full_like(batch.targets, UNLABELLED))
    said = batch._replace(targets=told.argmax(1))
    assert torch.equal(method.alpha(logits, told, nobody), method.alpha(logits, told, said))


def test_it_unrolls_a_transformer_too(make_token_task, make_splits, make_context):
    task = make_token_task()
    splits = make_splits(task)
    networks = [TextTransformer(task, depth=1, heads=1, head_width=4, feed_forward=1) for _ in range(2)]
    recipe = make_recipe([TGeoConfig(width=4)])
    recipe.prepare(make_context(recipe, splits, frozen(networks[0]), networks[1]))
    batch = splits.train.batch(torch.arange(9))
    recipe.loss(networks[1].train(), batch)
    own = recipe.methods[0]._controller[0].weight.clone()
    recipe.tick(Moment(1, 0.1, 0, {}, batch, networks[1]))
    assert not torch.equal(own, recipe.methods[0]._controller[0].weight)


def test_a_whole_training_tells_its_mean_alpha(make_task, make_splits, make_network):
    config = DistillConfig.model_validate({"methods": ["tgeo"], "training": {"epochs": 2, "batch_size": 45}})
    done = distill(make_network(2), make_network(1), make_splits(make_task()), config, seed=0, device=CPU)
    assert 0 < done.measures["tgeo.mean_alpha"] < 1
