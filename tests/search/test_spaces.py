"""Every space of the table keeps the contract of `search.space.SearchSpace`: it passes `search.conformance.spaces`."""

import json
import math
import random
import re

import pytest
import torch

from edgestill.pipeline.errors import ArchitectureError
from edgestill.pipeline.networks.cost import measure_cost
from edgestill.search.conformance import spaces
from edgestill.search.conformance.spaces import samples
from edgestill.search.spaces import SPACES, Nb201Config, Nb201Space, ResNetConfig, ResNetSpace, make_space
from edgestill.search.spaces.nb201 import OPERATIONS

every_space = pytest.mark.parametrize("name", SPACES)


@every_space
@pytest.mark.parametrize("check", spaces.CHECKS, ids=lambda check: check.__name__)
def test_every_space_passes_at_a_small_size(check, name, small_space):
    check(small_space(name))


@every_space
@pytest.mark.parametrize("check", spaces.OF_GENES, ids=lambda check: check.__name__)
def test_every_space_passes_at_its_default(check, name):
    check(make_space(SPACES[name][0]()))


@every_space
def test_a_space_says_truly_whether_its_blocks_have_channels_to_prune(name, small_space, make_task_for):
    space = small_space(name)
    task = make_task_for(space)
    for architecture in samples(space, 3):
        modules = [module for block in space.build(architecture, task).blocks() for module in block.modules()]
        assert any(isinstance(module, torch.nn.Conv2d) for module in modules) == space.has_channels


@every_space
@pytest.mark.parametrize("text", ["", "nonsense", "1-2", "|none~0|", "1-1-1/8-16", "-1-1-1", "1-1-1/8-16-64/3"])
def test_a_string_that_names_no_architecture_is_refused_with_the_form_it_should_have(name, text):
    spaces.require_refused(make_space(SPACES[name][0]()), text)


def test_a_resnet_string_out_of_bounds_is_refused_with_the_bounds():
    for text in ("0-1-1", "1-1-201", "1-1-1/16-32-4097", "1-1-1/0-32-64"):
        with pytest.raises(ArchitectureError, match=r"blocks go from 1 to 200 and widths from 1 to 4096"):
            ResNetSpace().parse(text)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("mobile", "1x8k3e1/1x8k3e1/51x8k3e1/1x8k3e1/64", "depth3 is 51; it goes from 1 to 50"),
        ("mobile", "1x8k3e1/1x8k3e17/1x8k3e1/1x8k3e1/64", "expansion2 is 17; it goes from 1 to 16"),
        ("mobile", "1x8k3e1/1x8k3e1/1x8k3e1/1x0k3e1/64", "width4 is 0; it goes from 1 to 4096"),
        ("mobile", "1x8k3e1/1x8k3e1/1x8k3e1/1x8k3e1/0", "last_width is 0; it goes from 1 to 4096"),
        ("mobile", "1x8k4e1/1x8k3e1/1x8k3e1/1x8k3e1/64", "expected 4 stages"),
        ("mobile", "1x8k3e1/1x8k3e1/1x8k3e1/64", "expected 4 stages"),
        ("vit", "d2h0x16f2g8", "heads is 0; it goes from 1 to 64"),
        ("vit", "d2h2x16f2g65", "grid is 65; it goes from 1 to 64"),
        ("vit", "d2h2x16f2", "expected dDEPTH"),
        ("text_transformer", "d2h2x1f2", "head_width is 1; it goes from 2 to 256"),
        ("text_transformer", "d101h2x8f2", "depth is 101; it goes from 1 to 100"),
    ],
)
def test_a_string_out_of_bounds_is_refused_with_the_bounds(name, text, sentence):
    with pytest.raises(ArchitectureError, match=re.escape(sentence)):
        make_space(SPACES[name][0]()).parse(text)


def test_an_unknown_nb201_operation_is_refused_with_the_known_ones():
    text = "|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    with pytest.raises(ArchitectureError, match="'nor_conv_5x5' is not one of none, skip_connect, nor_conv_1x1"):
        Nb201Space().parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "|none~0|+|none~0|none~0|+|none~0|none~1|none~2|",
        "|none~0|+|none~1|none~0|+|none~0|none~1|none~2|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|+|none~0|none~1|none~2|none~3|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2",
    ],
)
def test_an_nb201_string_with_a_wrong_edge_is_refused(text):
    with pytest.raises(ArchitectureError, match="expected the benchmark's form"):
        Nb201Space().parse(text)


def test_the_published_diswot_cell_is_read():
    text = "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|nor_conv_1x1~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    choices = Nb201Space().parse(text).choices
    named = {edge: OPERATIONS[choice] for edge, choice in choices.items()}
    assert named == {
        "edge01": "nor_conv_3x3",
        "edge02": "avg_pool_3x3",
        "edge12": "nor_conv_1x1",
        "edge03": "nor_conv_1x1",
        "edge13": "nor_conv_3x3",
        "edge23": "nor_conv_3x3",
    }


@pytest.mark.parametrize("name", [name for name in SPACES if name != "backbones"])  # their last layers are timm's
def test_feature_maps_are_behind_a_relu(name, small_space, make_task_for, make_batch):
    space = small_space(name)
    task = make_task_for(space, 3, 9)
    for architecture in samples(space, 3):
        features = space.build(architecture, task).eval().forward_features(make_batch(task, 2).inputs)
        assert features.dim() == 3 or (features >= 0).all()


@pytest.mark.parametrize("name", [name for name, (_, space) in SPACES.items() if space.inputs == "image"])
def test_the_first_layer_normalises_raw_pixels(name, small_space, make_task):
    task = make_task(channels=3)
    student = small_space(name).build(samples(small_space(name))[0], task).eval()
    pixels = torch.rand(2, 3, 8, 8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (task.mean, task.std))
    if name == "backbones":  # those of the published weights
        mean, std = student.normalize.mean, student.normalize.std
    assert torch.allclose(student.trunk((pixels - mean) / std), student.forward_features(pixels))


@every_space
def test_embedding_dims_are_those_of_the_built_students(name, small_space, make_task_for):
    space = small_space(name)
    built = {space.build(a, make_task_for(space)).get_classifier().in_features for a in samples(space, 60)}
    assert built == space.embedding_dims()


def test_embedding_dims_list_every_width_of_the_last_stage():
    space = ResNetSpace(ResNetConfig(widths=((8,), (16,), (24, 32, 64))))
    assert space.embedding_dims() == {24, 32, 64}


def test_the_default_sizes_are_the_products_of_the_documented_choices():
    assert make_space(SPACES["resnet"][0]()).size == 5**3 * 4 * 4
    stages = (2 * 3, 3 * 3, 3 * 3, 2 * 3)  # depths x widths
    assert make_space(SPACES["mobile"][0]()).size == math.prod(stages) * (3 * 5 * 2) ** 4 == 2_361_960_000
    assert make_space(SPACES["vit"][0]()).size == 5 * 4 * 4 * 2 == 160
    assert make_space(SPACES["text_transformer"][0]()).size == 4 * 4 * 3 * 4 == 192


def test_the_default_sizes_are_those_of_their_papers():
    assert Nb201Space(Nb201Config()).size == 15_625  # 5 operations on 6 edges
    s0 = ResNetSpace(ResNetConfig(blocks=((1, 3, 5, 7),) * 3, widths=((16,), (32,), (64,))))
    assert s0.size == 64


def test_a_choice_listed_twice_counts_once():
    space = ResNetSpace(ResNetConfig(blocks=((1, 1, 2), (1,), (1,)), widths=((8,), (8,), (8, 8))))
    assert space.size == 2


def test_a_space_of_one_member_mutates_into_itself():
    space = ResNetSpace(ResNetConfig(blocks=((1,),) * 3, widths=((8,),) * 3))
    parent = space.sample(random.Random(0))
    assert space.mutate(parent, random.Random(0)) == parent


@every_space
def test_crossover_uses_both_parents(name):
    space, rng = make_space(SPACES[name][0]()), random.Random(0)
    mother = space.sample(rng)
    father = space.mutate(mother, rng, rate=1.0)
    children = {space.crossover(mother, father, rng).key for _ in range(50)}
    assert len(children) > min(10, 2 ** len(space.genes) - 2)


@pytest.mark.parametrize(("blocks", "params"), [("3-3-3", 278_324), ("7-1-3", 259_892)])
def test_s0_students_have_the_published_number_of_parameters(blocks, params, make_task):
    task = make_task(channels=3, side=32, classes=100)
    space = ResNetSpace()
    assert measure_cost(lambda: space.build(space.parse(blocks), task), task.input_shape).params == params


@pytest.mark.data
def test_nb201_parameters_equal_the_benchmarks(development_data, make_task):
    """The table's keys: operations on edges (1,2)(1,3)(1,4)(2,3)(2,4)(3,4), numbered in its own order (DATA.md)."""
    table = json.loads((development_data / "nb201" / "proxies_725.json").read_text())["cifar10"]
    operations = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
    edges = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
    space, task = Nb201Space(), make_task(channels=3, side=32, classes=10)
    for key in list(table)[::6]:
        taken = [operations[int(n)] for n in re.findall(r"\d+", key)]
        choices = {f"edge{s}{t}": OPERATIONS.index(op) for (s, t), op in zip(edges, taken, strict=True)}
        cost = measure_cost(lambda c=choices: space.build(space.make(c), task), task.input_shape)
        assert cost.params == pytest.approx(table[key]["params"]["score"] * 1e6, abs=0.5)


@every_space
def test_an_architectures_key_depends_on_its_choices_alone(name, small_space):
    space = small_space(name)
    one = samples(space)[0]
    backwards = space.make(dict(reversed(one.choices.items())))
    assert backwards.key == one.key
    assert space.mutate(one, random.Random(0)).key != one.key


@pytest.mark.parametrize("name", SPACES)
def test_different_samples_are_different_and_all_of_a_smaller_space(name, small_space):
    space = small_space(name)
    some = space.sample_different(5, random.Random(0))
    assert len({a.key for a in some}) == 5
    assert some == space.sample_different(5, random.Random(0))
    if space.size <= 300:
        assert len(space.sample_different(space.size, random.Random(0))) == space.size


def test_sampling_ends_where_a_space_has_fewer_members_than_its_size_says(small_space):
    class Coarse(ResNetSpace):
        def sample(self, rng):
            return next(self.all_architectures())

    assert len(Coarse().sample_different(3, random.Random(0))) == 1
