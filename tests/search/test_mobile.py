"""The mobile space: what its networks are made of, and how they follow the image's size."""

import math

import pytest
import torch
import torch.nn.functional as F

from edgestill.pipeline.networks.cost import measure_cost
from edgestill.pipeline.networks.network import look
from edgestill.search.spaces.mobile import MobileSpace, strides

SPACE = MobileSpace()
TEXT = "1x8k3e1/2x12k5e3se/3x16k7e2/1x24k3e4se/64"


def params_by_formula(channels, classes):
    """Of TEXT: weights layer by layer, batch norm 2 a channel, squeeze-excite with biases."""

    def block(before, width, kernel, expansion, squeeze):
        inner = before * expansion
        widen = before * inner + 2 * inner if expansion > 1 else 0
        gate = inner // 4
        gates = inner * gate + gate + gate * inner + inner if squeeze else 0
        return widen + kernel**2 * inner + 2 * inner + gates + inner * width + 2 * width

    stem = 9 * channels * 8 + 2 * 8
    blocks = [
        block(8, 8, 3, 1, False),
        block(8, 12, 5, 3, True),
        block(12, 12, 5, 3, True),
        block(12, 16, 7, 2, False),
        2 * block(16, 16, 7, 2, False),
        block(16, 24, 3, 4, True),
    ]
    return stem + sum(blocks) + 24 * 64 + 2 * 64 + 64 * classes + classes


@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 100)])
def test_parameters_are_those_of_the_formula(channels, classes, make_task):
    task = make_task(channels, 32, classes)
    cost = measure_cost(lambda: SPACE.build(SPACE.parse(TEXT), task), task.input_shape)
    assert cost.params == params_by_formula(channels, classes)


@pytest.mark.parametrize(
    ("side", "expected", "last"),
    [
        (4, [1, 1, 1, 1, 1], 4),
        (8, [1, 1, 1, 2, 1], 4),
        (16, [1, 1, 1, 2, 1], 8),
        (28, [1, 1, 2, 2, 1], 7),
        (32, [1, 1, 2, 2, 1], 8),
        (64, [1, 1, 2, 2, 2], 8),
        (96, [2, 1, 2, 2, 2], 6),
        (224, [2, 2, 2, 2, 2], 7),
    ],
)
def test_strides_follow_the_side_so_that_the_last_map_has_four_to_eight_pixels(side, expected, last, make_task):
    assert strides(side, side) == expected
    student = SPACE.build(SPACE.parse(TEXT), make_task(3, side)).eval()
    with torch.no_grad():
        assert student.forward_features(torch.rand(1, 3, side, side)).shape == (1, 64, last, last)


def test_every_side_from_8_to_256_ends_at_4_to_8_pixels():
    for side in range(8, 257):
        halved = side
        for stride in strides(side, side):
            halved = math.ceil(halved / stride)
        assert 4 <= halved <= 8, side


def test_the_shorter_side_decides():
    assert strides(8, 224) == strides(224, 8) == strides(8, 8)


def test_a_block_is_the_published_one_written_out(make_task):
    task = make_task(3, 16)
    student = SPACE.build(SPACE.parse("1x6k3e1/2x6k5e3se/1x8k3e1/1x8k3e1/8"), task).eval()
    block = student.blocks()[2]  # stage 2's second: no stride, as wide as its input
    for module in block.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    given = torch.rand(2, 6, 16, 16)

    def norm(layer, inputs):
        return F.batch_norm(inputs, layer.running_mean, layer.running_var, layer.weight, layer.bias)

    with torch.no_grad():
        hidden = F.relu(norm(block.expand[1], F.conv2d(given, block.expand[0].weight)))
        hidden = F.relu(norm(block.depthwise[1], F.conv2d(hidden, block.depthwise[0].weight, padding=2, groups=18)))
        gate = block.squeeze_excite
        squeezed = F.relu(hidden.mean((2, 3)) @ gate.reduce.weight[:, :, 0, 0].T + gate.reduce.bias)
        weights = ((squeezed @ gate.expand.weight[:, :, 0, 0].T + gate.expand.bias + 3) / 6).clamp(0, 1)
        hidden = hidden * weights[:, :, None, None]
        expected = given + norm(block.project[1], F.conv2d(hidden, block.project[0].weight))
        assert torch.allclose(block(given), expected, atol=1e-5)


@pytest.mark.parametrize("side", [8, 28, 224])
def test_students_do_not_collapse_inputs_at_any_size(side, make_task):
    task = make_task(1, side)
    for text in (TEXT, "1x8k7e6se/1x12k7e6se/1x24k7e6se/1x32k7e6se/64"):
        student = SPACE.build(SPACE.parse(text), task).train()
        with torch.no_grad():
            embedding = look(student, torch.rand(4, 1, side, side)).embedding
        assert torch.pdist(embedding).min() > 1e-3
