"""Promises of every kind of input, and values that each refuses."""

import ast
import json

import numpy as np
import pytest
import torch

from edgestill.export.bundle import card, predict
from edgestill.export.bundle.scripts.join import run_script
from edgestill.export.onnx.write import signature
from edgestill.pipeline.input_kind import INPUT_KINDS, Images, Prompts, Texts

EXAMPLES = {"image": Images((3, 8, 6), (0.5,) * 3, (0.2,) * 3), "text": Texts((12,), 30), "lm": Prompts((12,), 30)}


@pytest.fixture(params=INPUT_KINDS)
def kind(request):
    return EXAMPLES[request.param]


def test_a_kind_stands_in_the_table_by_its_name(kind):
    assert INPUT_KINDS[kind.name] is type(kind)


def test_probes_are_inputs_and_the_same_for_the_same_seed(kind):
    probes = kind.probes(5)
    assert (probes.dtype, probes.shape) == (kind.dtype, (5, *kind.shape))
    assert kind.is_within(probes)
    assert np.array_equal(probes, kind.probes(5))
    assert not np.array_equal(probes, kind.probes(5, seed=1))


def test_extremes_are_inputs_of_the_kinds_type_and_of_its_shape_at_most(kind):
    for name, batch in kind.extremes():
        assert batch.dtype == getattr(torch, kind.dtype), name
        assert kind.is_within(batch.numpy()), name
        assert all(side <= most for side, most in zip(batch.shape[1:], kind.shape, strict=True)), name
        assert kind.length or batch.shape[1:] == kind.shape, name


def test_damage_leaves_inputs_that_a_network_can_read(kind):
    inputs = kind.probes(4)
    for name, damage in kind.damages.items():
        damaged = damage(inputs, np.random.default_rng(0))
        assert (damaged.dtype, damaged.shape) == (inputs.dtype, inputs.shape), name
        assert kind.is_within(damaged), name


def test_there_is_what_higher_floors_have_by_kind(kind):
    ast.parse(run_script(kind.script))
    assert json.loads(json.dumps(kind.description()))["dtype"] == kind.dtype
    _, examples, sides = signature(torch.nn.Identity().eval(), kind)
    assert len(examples) == len(sides) == len(kind.ports)
    assert kind.name in card._USES
    assert kind.name in predict._READERS


@pytest.mark.parametrize("outside", [-0.01, 1.01, np.nan])
def test_pixels_are_from_0_to_1(outside):
    images = EXAMPLES["image"].probes(2)
    images[1, 0, 0, 0] = outside
    assert not EXAMPLES["image"].is_within(images)


@pytest.mark.parametrize("outside", [-1, 30])
def test_token_ids_are_those_of_the_vocabulary(outside):
    ids = EXAMPLES["text"].probes(2)
    ids[1, 3] = outside
    assert not EXAMPLES["text"].is_within(ids)


def test_an_example_is_shown_as_pixels_or_as_its_text():
    shown = EXAMPLES["image"].shown(torch.tensor([[[0.0, 1.0], [0.5, 2.0]]]))
    assert shown == ("", (0, 255, 128, 255), (1, 2, 2))
    ids = torch.tensor([3, 1, 0, 0])
    assert EXAMPLES["text"].shown(ids) == ("3 1", (), ())
    assert EXAMPLES["text"].shown(ids, lambda known: f"{len(known)} words").text == "2 words"
