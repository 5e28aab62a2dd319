"""The vit space: patches at every size, and a network that sees where its tokens are."""

import random

import pytest
import torch
import torch.nn.functional as F

from edgestill.pipeline.networks.cost import measure_cost
from edgestill.pipeline.networks.network import initialise
from edgestill.search.spaces.vit import VitConfig, VitSpace

SPACE = VitSpace()


def built(text, task):
    student = SPACE.build(SPACE.parse(text), task).eval()
    initialise(student, "kaiming", 0)
    return student


@pytest.mark.parametrize(
    ("side", "grid", "patch", "tokens"),
    [(8, 8, 1, 64), (8, 4, 2, 16), (28, 8, 4, 49), (32, 8, 4, 64), (96, 8, 12, 64), (224, 14, 16, 196), (11, 4, 3, 16)],
)
def test_the_grid_cuts_every_size_into_patches(side, grid, patch, tokens, make_task):
    student = built(f"d1h2x8f2g{grid}", make_task(3, side))
    assert student.patches.kernel_size == (patch, patch)
    assert student.forward_features(torch.rand(2, 3, side, side)).shape == (2, tokens, 16)


@pytest.mark.parametrize(("channels", "side", "classes"), [(1, 8, 10), (3, 32, 100)])
def test_costs_are_those_of_the_formula(channels, side, classes, make_task):
    depth, heads, head_width, ratio, grid = 3, 4, 16, 2, 4
    width, patch, tokens = heads * head_width, side // grid, grid**2
    block = 4 * (width**2 + width) + 2 * ratio * width**2 + ratio * width + width + 4 * width
    params = channels * patch**2 * width + width + tokens * width + depth * block + 2 * width
    params += width * classes + classes
    attention = 2 * tokens**2 * width  # q k^T and its product with v, all heads together
    flops = tokens * channels * patch**2 * width + width * classes
    flops += depth * (tokens * (4 + 2 * ratio) * width**2 + attention)
    task = make_task(channels, side, classes)
    cost = measure_cost(lambda: SPACE.build(SPACE.parse("d3h4x16f2g4"), task), task.input_shape)
    assert (cost.params, cost.flops) == (params, flops)


def test_a_block_is_the_published_one_written_out(make_task):
    block = built("d1h3x4f2g4", make_task()).blocks()[0]
    tokens = torch.randn(2, 5, 12)

    def linear(layer, inputs):
        return inputs @ layer.weight.T + layer.bias

    with torch.no_grad():
        normed = F.layer_norm(tokens, (12,), block.norm1.weight, block.norm1.bias)
        layers = (block.attention.query, block.attention.key, block.attention.value)
        query, key, value = (linear(layer, normed) for layer in layers)
        heads = []
        for h in range(3):
            part = slice(4 * h, 4 * h + 4)
            weights = (query[..., part] @ key[..., part].transpose(1, 2) / 2).softmax(-1)
            heads.append(weights @ value[..., part])
        hidden = tokens + linear(block.attention.out, torch.cat(heads, dim=2))
        normed = F.layer_norm(hidden, (12,), block.norm2.weight, block.norm2.bias)
        expected = hidden + linear(block.feed_forward[2], F.gelu(linear(block.feed_forward[0], normed)))
        assert torch.allclose(block(tokens), expected, atol=1e-5)


def test_without_positions_the_order_of_patches_does_not_matter_and_with_them_it_does(make_task):
    student = built("d2h2x8f2g4", make_task(1, 8))
    images = torch.rand(3, 1, 8, 8)
    swapped = torch.cat([images[..., 4:], images[..., :4]], dim=3)  # columns of patches, two by two
    with torch.no_grad():
        assert (student(images) - student(swapped)).abs().max() > 1e-4
        student.positions.zero_()
        assert torch.allclose(student(images), student(swapped), atol=1e-5)


def test_no_operator_leaves_the_legal_members():
    """A width that its heads do not divide cannot be written: it is their product."""
    space, rng = VitSpace(VitConfig(heads=(3, 5, 7), head_width=(10, 11))), random.Random(0)
    task_widths = {heads * width for heads in (3, 5, 7) for width in (10, 11)}
    member = space.sample(rng)
    for _ in range(200):
        member = space.crossover(space.mutate(member, rng), space.sample(rng), rng)
        assert member.choices["heads"] * member.choices["head_width"] in task_widths
        assert space.parse(space.format(member)) == member
