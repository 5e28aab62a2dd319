"""Training-free scores of single networks, each against a derivation of its own."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import initialise, look
from edgestill.search.scorers.az_trainability import FLOOR, block_trainability, gradient_correlation, random_signs
from edgestill.search.scorers.diswot import stage_ends
from edgestill.search.scorers.meco import smallest_eigenvalue
from edgestill.search.scorers.synflow import synaptic_flow
from edgestill.search.scoring.conditions import Conditions
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.scoring.observe import observe
from edgestill.search.spaces import Nb201Config, Nb201Space, ResNetConfig, ResNetSpace

# B batch, C channels, H W height and width, K classes


@pytest.fixture
def task(make_task):
    return make_task(channels=2, side=8, classes=3)


@pytest.fixture
def space():
    return ResNetSpace(ResNetConfig(blocks=((1, 2), (1, 2), (1,)), widths=((4,), (6,), (8,))))


@pytest.fixture
def architecture(space):
    return space.parse("2-1-1/4-6-8")


def scored(name, space, architecture, task, batch, **options):
    return Evaluator(space, task, [name], Conditions(batch, None, 0, **options))(architecture).values[name]


def as_scored(space, architecture, task):
    """The network with the weights that the evaluator draws, in training mode."""
    network = space.build(architecture, task).train()
    initialise(network, "kaiming", derive_seed(0, architecture.key, "kaiming", 0))
    return network


# Observation


def test_what_is_observed_with_a_graph_is_what_is_observed_without(space, architecture, task, make_batch):
    network, inputs = as_scored(space, architecture, task), make_batch(task).inputs
    plain, deep = observe(network, inputs), observe(network, inputs, codes=True, blocks=True, graph=True)
    for one, other in zip(plain.view, deep.view, strict=True):
        assert torch.equal(one, other)
        assert not other.requires_grad
    assert not plain.codes
    assert not plain.blocks
    assert plain.graph is None


def test_blocks_are_the_stems_output_and_each_blocks_own(space, architecture, task, make_batch):
    network, inputs = as_scored(space, architecture, task), make_batch(task).inputs
    with torch.no_grad():
        expected = [F.relu(network.bn1(network.conv1(network.normalize(inputs))))]
        for block in (*network.layer1, *network.layer2, *network.layer3):
            expected.append(block(expected[-1]))
    found = observe(network, inputs, blocks=True).blocks
    assert len(found) == 5
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_observing_leaves_no_hook_no_gradient_and_trainable_weights(space, architecture, task, make_batch):
    network = as_scored(space, architecture, task)
    seen = observe(network, make_batch(task).inputs, codes=True, blocks=True, graph=True)
    torch.autograd.grad(seen.graph.logits.sum(), seen.graph.inputs)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


# jacov


def numerical_input_gradient(network, inputs, step=1e-6):
    """d sum(logits) / d inputs by central differences, a pixel at a time."""
    slopes = torch.zeros_like(inputs)
    with torch.no_grad():
        for index in itertools.product(*map(range, inputs.shape)):
            sums = []
            for sign in (1, -1):
                moved = inputs.clone()
                moved[index] += sign * step
                sums.append(network(moved).sum())
            slopes[index] = (sums[0] - sums[1]) / (2 * step)
    return slopes


def test_jacov_equals_numpy_on_numerical_gradients(space, architecture, make_task, make_batch):
    task = make_task(channels=2, side=6, classes=3)
    batch = make_batch(task, 5)
    network = as_scored(space, architecture, task).double()
    rows = numerical_input_gradient(network, batch.inputs.double()).flatten(1).numpy()
    eigenvalues = np.linalg.eig(np.corrcoef(rows))[0].real
    expected = -np.sum(np.log(eigenvalues + 1e-5) + 1 / (eigenvalues + 1e-5))
    assert scored("jacov", space, architecture, task, batch) == pytest.approx(expected, rel=1e-3)


def test_jacov_of_inputs_with_the_same_gradient_is_far_below_that_of_others(space, architecture, task, make_batch):
    """Two equal inputs make an eigenvalue 0, whose term is log(k) + 1 / k = 99,988."""
    batch = make_batch(task)
    batch.inputs[3] = batch.inputs[5]
    assert scored("jacov", space, architecture, task, batch) < -9e4


# SWAP


def test_swap_counts_the_distinct_columns_of_the_states_of_24_samples(space, architecture, task, make_batch):
    batch = make_batch(task, 30)
    network = as_scored(space, architecture, task)
    with torch.no_grad():
        states = observe(network, batch.inputs, codes=True).codes
    columns = {tuple(column) for code in states for column in code[:24].T.tolist()}
    assert scored("swap", space, architecture, task, batch) == len(columns)


def test_swap_equals_a_count_over_states_written_out(task, make_batch):
    """Two layers by hand: patterns are counted over both together."""

    class Two(nn.Module):
        num_classes = embedding_dim = 3

        def __init__(self):
            super().__init__()
            self.conv, self.linear = nn.Conv2d(2, 5, 3), nn.Linear(5, 3)

        def forward_features(self, inputs):
            return torch.relu(0.1 - torch.relu(self.conv(inputs)))

        def forward_head(self, features, pre_logits=False):
            return features.mean((2, 3)) if pre_logits else self.linear(features.mean((2, 3)))

        def get_classifier(self):
            return self.linear

    class Space(ResNetSpace):
        def build(self, architecture, task):
            return Two()

    batch, candidate = make_batch(task, 10), ResNetSpace().parse("1-1-1")
    network = as_scored(Space(), candidate, task)
    with torch.no_grad():
        first = network.conv(batch.inputs) > 0
        second = 0.1 - network.conv(batch.inputs).clamp(min=0) > 0
    units = torch.cat([first.flatten(1), second.flatten(1)], dim=1).numpy()
    assert scored("swap", Space(), candidate, task, batch) == len(np.unique(units, axis=1).T)


# AZ-NAS trainability


def literal_block_trainability(block, before, g_out):
    """The definition, an input, an output and a position at a time."""
    _, g_in = torch.autograd.functional.vjp(block, before, g_out)
    count, channels, height, width = g_out.shape
    stride = g_in.shape[2] // height
    matrix = np.zeros((g_in.shape[1] * stride**2, channels))
    for b, i, j in itertools.product(range(count), range(height), range(width)):
        patch = g_in[b, :, i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
        matrix += np.outer(patch.flatten().double(), g_out[b, :, i, j].double()) / (count * height * width)
    s = np.linalg.svd(matrix, compute_uv=False)[0]
    return 2 - s - 1 / (s + 1e-6)


def test_trainability_equals_the_definition_written_out(space, architecture, task, make_batch):
    batch = make_batch(task, 5)
    network = as_scored(space, architecture, task)
    rng = np.random.default_rng(
        derive_seed(derive_seed(0, architecture.key, "kaiming", 0), "az_trainability"),
    )
    with torch.no_grad():
        before = F.relu(network.bn1(network.conv1(network.normalize(batch.inputs))))
    expected = []
    for block in (*network.layer1, *network.layer2, *network.layer3):
        with torch.no_grad():
            after = block(before)
        expected.append(literal_block_trainability(block, before, random_signs(after, rng)))
        before = after
    found = scored("az_trainability", space, architecture, task, batch)
    assert found == pytest.approx(np.mean(expected), rel=1e-4)


def test_trainability_of_a_multiple_of_the_identity_has_a_closed_form():
    """One channel: g_in = a g_out, so s = a, and the score is 2 - a - 1 / a."""
    before = torch.rand(3, 1, 4, 4, requires_grad=True)
    signs = random_signs(before, np.random.default_rng(0))
    for a in (0.25, 0.999, 3.0):
        assert block_trainability(before, a * before, signs) == pytest.approx(2 - a - 1 / a, abs=1e-4)


def test_blocks_that_pass_gradients_on_unchanged_or_not_at_all_get_the_floor():
    before = torch.rand(3, 2, 4, 4, requires_grad=True)
    signs = random_signs(before, np.random.default_rng(0))
    assert block_trainability(before, before + 1, signs) == FLOOR
    assert block_trainability(before, torch.zeros_like(before), signs) == FLOOR
    assert block_trainability(before, 0 * before, signs) == FLOOR


@pytest.mark.parametrize(("side", "halved"), [(7, 4), (5, 3), (8, 4)])
def test_gradients_of_sides_that_a_stride_does_not_divide_are_padded(side, halved):
    g_in, g_out = torch.randn(2, 3, side, side), torch.randn(2, 5, halved, halved)
    found = gradient_correlation(g_in, g_out)
    padded = F.pad(g_in, (0, 2 * halved - side) * 2)
    assert found.shape == (12, 5)
    by_hand = sum(
        torch.outer(padded[b, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten(), g_out[b, :, i, j])
        for b, i, j in itertools.product(range(2), range(halved), range(halved))
    )
    assert torch.allclose(found, by_hand / (2 * halved**2), atol=1e-5)


def test_random_signs_are_fair_and_only_signs():
    signs = random_signs(torch.empty(1, 10, 40, 25), np.random.default_rng(0))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(signs.mean().item()) < 0.04  # four standard deviations of 10,000


# SynFlow


def flow_without(network, silent, shape):
    """R with |weights|, without normalisation, one layer silenced; written out for a CIFAR ResNet."""

    def conv(layer, inputs):
        weight = torch.zeros_like(layer.weight) if layer is silent else layer.weight.abs()
        return F.conv2d(inputs, weight.double(), stride=layer.stride, padding=layer.padding)

    with torch.no_grad():
        hidden = conv(network.conv1, torch.ones(1, *shape, dtype=torch.float64)).relu()
        for block in (*network.layer1, *network.layer2, *network.layer3):
            inner = conv(block.conv2, conv(block.conv1, hidden).relu())
            identity = isinstance(block.shortcut, nn.Identity)
            hidden = (inner + (hidden if identity else conv(block.shortcut[0], hidden))).relu()
        weight = network.linear.weight * (network.linear is not silent)
        return float((hidden.mean((2, 3)) @ weight.abs().double().T).sum())


def test_synflow_is_the_sum_of_what_the_output_loses_without_each_layer(space, architecture, task, make_batch):
    """R is linear in each layer's weights, so sum_theta theta dR / dtheta over a layer is R - R without it."""
    network = as_scored(space, architecture, task)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    whole = flow_without(network, None, task.input_shape)
    expected = sum(whole - flow_without(network, layer, task.input_shape) for layer in layers)
    assert synaptic_flow(network, torch.Size(task.input_shape)) == pytest.approx(expected, rel=1e-9)
    found = scored("synflow", space, architecture, task, make_batch(task))
    assert found == pytest.approx(math.log(expected), rel=1e-9)


def test_synflow_leaves_the_network_as_it_is(space, architecture, task):
    network = as_scored(space, architecture, task)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    synaptic_flow(network, torch.Size(task.input_shape))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_synflow_sees_neither_the_images_nor_their_normalisation(space, architecture, make_task, make_batch):
    one, task = make_task(channels=2, side=8, classes=3), make_task(channels=2, side=8, classes=3)
    other = type(task)(labels=task.labels, input_shape=task.input_shape, mean=(0.9,) * 2, std=(0.1,) * 2)
    noise = make_batch(one, seed=4)
    inverted = Batch(1 - noise.inputs, noise.targets, noise.index)
    found = scored("synflow", space, architecture, one, noise)
    assert found == scored("synflow", space, architecture, other, inverted)


# MeCo


def test_meco_equals_numpy_on_every_modules_output_for_the_first_image(space, architecture, task, make_batch):
    batch = make_batch(task)
    network = as_scored(space, architecture, task)
    caught = []
    for name, module in network.named_modules():
        if name and name != "normalize":
            module.register_forward_hook(lambda module, given, output: caught.append(output.detach()[0]))
    network(batch.inputs[:1])
    expected = 0.0
    for features in caught:
        if features.dim() == 3:
            with np.errstate(invalid="ignore"):
                correlation = np.nan_to_num(np.corrcoef(features.flatten(1).double().numpy()))
            expected += np.linalg.eig(correlation)[0].real.min()
    assert len(caught) > 20
    assert scored("meco", space, architecture, task, batch) == pytest.approx(expected, abs=1e-6)


def test_meco_of_blocks_equals_numpy_on_the_positions_of_eight_images(space, architecture, task, make_batch):
    batch = make_batch(task, 10)
    network = as_scored(space, architecture, task)
    with torch.no_grad():
        outputs = [F.relu(network.bn1(network.conv1(network.normalize(batch.inputs))))]
        for block in network.blocks():
            outputs.append(block(outputs[-1]))
    rows = [output[:8].double().numpy().transpose(1, 0, 2, 3).reshape(output.shape[1], -1) for output in outputs[1:]]
    smallest = [np.linalg.eigvalsh(np.nan_to_num(np.corrcoef(row)))[0] for row in rows]
    expected = math.log(1e-4 + np.mean(smallest))
    assert scored("meco_blocks", space, architecture, task, batch) == pytest.approx(expected, rel=1e-6)


def test_the_smallest_eigenvalue_of_two_channels_is_one_less_their_correlation():
    one, noise = torch.randn(2, 6, 6, dtype=torch.float64)
    other = one + 0.5 * noise
    r = np.corrcoef(one.flatten(), other.flatten())[0, 1]
    assert smallest_eigenvalue(torch.stack([one, other])) == pytest.approx(1 - r, abs=1e-9)
    assert smallest_eigenvalue(torch.stack([one, 2 * one])) == pytest.approx(0, abs=1e-9)
    assert smallest_eigenvalue(torch.ones(3, 4, 4)) == 0
    assert smallest_eigenvalue(torch.rand(1, 4, 4)) == 1


# ZiCo


def test_zico_equals_the_definition_on_gradients_by_back_propagation(space, architecture, task, make_batch):
    """Of two values, the mean of the absolute ones over the standard deviation is (|a| + |b|) / |a - b|."""
    batch = make_batch(task)
    network = as_scored(space, architecture, task)
    gradients = []
    for half in (slice(0, 6), slice(6, 12)):
        network.zero_grad()
        F.cross_entropy(network(batch.inputs[half]), batch.targets[half]).backward()
        layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        gradients.append([layer.weight.grad.flatten().double().numpy().copy() for layer in layers])
    expected = 0.0
    for a, b in zip(*gradients, strict=True):
        moved = a != b
        expected += np.log(np.sum((abs(a) + abs(b))[moved] / abs(a - b)[moved]))
    assert scored("zico", space, architecture, task, batch) == pytest.approx(expected, rel=1e-4)


# DisWOT by stage


def test_stages_end_before_each_change_of_resolution(task, make_batch):
    for space in (ResNetSpace(), Nb201Space(Nb201Config(channels=4, cells=2))):
        network = space.build(next(space.all_architectures()), task).train()
        seen = observe(network, make_batch(task).inputs, blocks=True)
        ends = stage_ends(seen.blocks, seen.view.features)
        assert [end.shape[2] for end in ends] == [8, 4, 2]
        assert ends[2] is seen.view.features


def test_the_relation_by_stage_is_the_sum_over_stages_of_the_published_metric(space, architecture, task, make_batch):
    batch = make_batch(task)
    teacher = space.build(space.parse("2-2-1/4-6-8"), task)
    evaluator = Evaluator(space, task, ["diswot_stages", "diswot_relation"], Conditions(batch, teacher, 0))
    found = evaluator(architecture).values
    student = space.build(architecture, task).train()
    initialise(student, "gaussian", derive_seed(0, architecture.key, "gaussian", 0))
    total = 0.0
    for layer in ("layer1", "layer2", "layer3"):
        relations = []
        for network in (teacher, student):
            caught = []
            handle = getattr(network, layer).register_forward_hook(lambda m, i, o, caught=caught: caught.append(o))
            with torch.no_grad():
                look(network, batch.inputs)
            handle.remove()
            flat = caught[0].flatten(1)
            relations.append(F.normalize(flat @ flat.T, dim=1).double())
        last = -float((relations[0] - relations[1]).square().sum()) / len(batch.targets) ** 2
        total += last
    assert found["diswot_stages"] == pytest.approx(total, rel=1e-5)
    assert found["diswot_relation"] == pytest.approx(last, rel=1e-5)
