"""Initialisation of every kind of parameter, and building networks without PyTorch's own."""

import math

import pytest
import torch
from torch import nn

from edgestill.pipeline.networks.network import initialise, uninitialised


class Bare(nn.Module):
    """A parameter that belongs to no layer, drawn by the network itself."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, 50, 40))
        self.attention = nn.MultiheadAttention(64, 4)
        self.embedding = nn.Embedding(300, 64, padding_idx=0)
        self.norm = nn.LayerNorm(64)


@pytest.mark.parametrize("how", ["gaussian", "kaiming"])
def test_two_networks_initialised_alike_are_equal_whatever_they_held(how):
    networks = [Bare(), Bare()]
    for network in networks:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_()
        initialise(network, how, 3)
    pairs = zip(networks[0].state_dict().values(), networks[1].state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(("how", "positions", "attention"), [("gaussian", 1, 1), ("kaiming", 0.02, math.sqrt(2 / 64))])
def test_every_kind_of_parameter_is_drawn_as_documented(how, positions, attention):
    network = Bare()
    initialise(network, how, 0)
    assert network.positions.std().item() == pytest.approx(positions, rel=0.05)
    assert network.attention.in_proj_weight.std().item() == pytest.approx(attention, rel=0.05)
    assert network.attention.out_proj.weight.std().item() == pytest.approx(attention, rel=0.05)
    assert network.embedding.weight[1:].std().item() == pytest.approx(1, rel=0.05)
    assert not network.embedding.weight[0].any()
    assert not network.attention.in_proj_bias.any()
    assert (network.norm.weight == 1).all()
    assert not network.norm.bias.any()


def test_a_depthwise_convolution_keeps_the_size_of_gradients_as_a_dense_one_does():
    """Kaiming's fan-out rule: behind a ReLU, which halves it, a gradient's variance is the same on both sides."""
    sizes = {}
    for groups in (1, 4, 64):
        layer = nn.Conv2d(64, 64, 3, padding=1, groups=groups, bias=False)
        initialise(layer, "kaiming", 0)
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (64 // groups * 9)), rel=0.1)
        inputs = torch.randn(4, 64, 32, 32, requires_grad=True)
        output = layer(inputs)
        (slopes,) = torch.autograd.grad(output, inputs, torch.randn_like(output))
        sizes[groups] = slopes[:, :, 1:-1, 1:-1].var().item()
    assert sizes == pytest.approx(dict.fromkeys(sizes, 2), rel=0.15)


def test_dense_layers_are_drawn_as_torch_draws_kaiming_fan_out():
    network = nn.Sequential(nn.Conv2d(5, 8, 3), nn.BatchNorm2d(8), nn.Linear(7, 9))
    initialise(network, "kaiming", 11)
    generator = torch.Generator().manual_seed(11)
    for layer in (network[0], network[2]):
        expected = nn.init.kaiming_normal_(torch.empty_like(layer.weight), mode="fan_out", generator=generator)
        assert torch.equal(layer.weight, expected)


def test_building_uninitialised_leaves_the_global_generator_and_torch_as_they_were():
    kinds = (nn.Conv2d, nn.Linear, nn.Embedding)
    before, methods = torch.get_rng_state(), [kind.reset_parameters for kind in kinds]
    with uninitialised():
        Bare()
        nn.Conv2d(3, 4, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert [kind.reset_parameters for kind in kinds] == methods
    assert nn.Embedding(10, 4, padding_idx=0).weight[1:].any()
