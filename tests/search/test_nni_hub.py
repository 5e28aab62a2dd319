"""Spaces of NNI's hub behind our own interface, against NNI's own networks."""

import pickle
import random
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from edgestill.export.onnx.write import to_onnx
from edgestill.export.parity import check_parity
from edgestill.flows.config import load_config
from edgestill.pipeline import nni_compat
from edgestill.pipeline.errors import ArchitectureError, ConfigError
from edgestill.pipeline.networks.cost import measure_cost
from edgestill.pipeline.networks.network import initialise, uninitialised
from edgestill.search.spaces import Nb201Space, NniHubConfig, NniHubSpace, named_space
from edgestill.search.spaces.nb201 import OPERATIONS
from edgestill.search.spaces.nni_families import FAMILIES

# Each space of the hub, as small as its options let it be.
SMALL = {
    "NasBench201": {"stem_out_channels": 4, "num_modules_per_stack": 1},
    "NasBench101": {"stem_out_channels": 8, "num_modules_per_stack": 1},
    "MobileNetV3Space": {"base_widths": [8, 8, 8, 16, 16, 16, 24, 32, 40], "depth_range": [1, 2]},
    "ProxylessNAS": {"base_widths": [8, 8, 8, 16, 16, 16, 24, 32, 40]},
    "ShuffleNetSpace": {"channel_search": True},
    "DARTS": {"width": [4, 8], "num_cells": [3, 4]},
    "PNAS": {"width": 4, "num_cells": 3},
    "ENAS": {"width": 4, "num_cells": [3, 4]},
    "NASNet": {"width": 4, "num_cells": 3},
    "AmoebaNet": {"width": 4, "num_cells": 3, "dataset": "imagenet"},
}
FOR_224 = ("MobileNetV3Space", "ProxylessNAS", "ShuffleNetSpace")

every_hub_space = pytest.mark.parametrize("name", SMALL)


def space_of(name):
    return NniHubSpace(NniHubConfig(space=name, options=SMALL[name]))


def samples(space, count):
    rng = random.Random(3)
    return [space.sample(rng) for _ in range(count)]


def tuples(value):
    return tuple(tuples(v) for v in value) if isinstance(value, list) else value


def nnis_own(name, sample):
    """NNI's own network, built as NNI builds the models that it has searched."""
    kind = getattr(nni_compat.load("nni.nas.hub.pytorch"), name)
    return kind.frozen_factory(sample)(**{key: tuples(value) for key, value in SMALL[name].items()})


def weighted(network):
    return [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]


def test_all_convolutional_spaces_of_the_hub_are_known():
    hub, base = nni_compat.load("nni.nas.hub.pytorch"), nni_compat.load("nni.nas.nn.pytorch").ModelSpace
    found = {n for n, kind in vars(hub).items() if isinstance(kind, type) and issubclass(kind, base)}
    assert found - {"NDS", "AutoFormer", "AutoformerSpace"} == set(FAMILIES) == set(SMALL)


@every_hub_space
def test_a_student_computes_what_nnis_network_with_the_same_weights_computes(name, make_task):
    space, task = space_of(name), make_task(channels=3, side=100, classes=10)  # large enough for all strides
    for architecture in samples(space, 1):
        ours = space.build(architecture, task).eval()
        theirs = nnis_own(name, space._sample(architecture.choices)).eval()
        initialise(theirs, "kaiming", 1)
        assert len(weighted(ours)) == len(weighted(theirs))
        for one, other in zip(weighted(ours), weighted(theirs), strict=True):
            one.load_state_dict(other.state_dict())
            assert (one.stride, one.dilation) == (other.stride, other.dilation) if isinstance(one, nn.Conv2d) else True
        classes = min(task.num_classes, next(m for m in theirs.modules() if isinstance(m, nn.Linear)).out_features)
        *_, last = (m for m in theirs.modules() if isinstance(m, nn.Linear))
        with torch.no_grad():
            ours.linear.weight[:classes] = last.weight[:classes]
            ours.linear.bias.zero_()
            if last.bias is not None:
                last.bias.zero_()
            pixels = torch.rand(2, 3, 100, 100)
            expected = theirs(ours.normalize(pixels))
        assert torch.allclose(ours(pixels), expected[:, :10], rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
        count = sum(p.numel() for m in weighted(theirs) for p in m.parameters())
        assert measure_cost(lambda a=architecture: space.build(a, task), task.input_shape).params == (
            count + last.in_features * 10 + 10
        )


@every_hub_space
def test_small_grey_images_are_taken_and_blocks_pass_on_what_they_read(name, make_task):
    space, task = space_of(name), make_task(channels=1, side=28, classes=4)
    student = space.build(samples(space, 1)[0], task).eval()
    read, written = [], []
    for block in student.blocks():
        block.register_forward_pre_hook(lambda module, given: read.append(given[0]))
        block.register_forward_hook(lambda module, given, output: written.append(output))
    features = student.forward_features(torch.rand(2, 1, 28, 28))
    assert len(written) == len(student.blocks()) > 0
    assert all(one is other for one, other in zip(read[1:], written, strict=False))
    assert features.shape[2:] >= (4, 4) if name in FOR_224 else features.shape[2] >= 1
    embedding = student.forward_head(features, pre_logits=True)
    assert embedding.shape == (2, student.embedding_dim)
    assert student.embedding_dim in space.embedding_dims()
    assert torch.equal(student.get_classifier()(embedding), student.forward_head(features))


@every_hub_space
def test_every_member_has_one_name_that_is_read_back(name):
    space, rng = space_of(name), random.Random(0)
    for architecture in samples(space, 15):
        text = space.format(architecture)
        assert space.parse(text) == architecture
        assert space.parse(";".join(reversed(text.split(";")))) == architecture
        child = space.mutate(architecture, rng)
        assert child != architecture
        assert space.format(child) != text


@pytest.mark.parametrize(("side", "expected"), [(8, 4), (28, 4), (32, 4), (33, 5), (64, 4), (96, 6), (224, 7)])
def test_networks_for_224_pixels_keep_a_map_of_at_least_four(side, expected, make_task):
    space = space_of("ProxylessNAS")
    student = space.build(samples(space, 1)[0], make_task(channels=3, side=side)).eval()
    assert student.forward_features(torch.rand(1, 3, side, side)).shape[2:] == (expected, expected)


class Recorder(dict):
    """A sample that remembers which of its choices were asked for."""

    asked = frozenset()

    def __getitem__(self, key):
        self.asked = self.asked | {key}
        return super().__getitem__(key)


@pytest.mark.parametrize("name", ["MobileNetV3Space", "ProxylessNAS"])
def test_the_name_holds_exactly_the_choices_that_nni_asks_for(name):
    space = space_of(name)
    for architecture in samples(space, 10):
        asked = Recorder(space._sample(architecture.choices))
        assert space._hub.space.check_contains(asked) is None
        assert {pair.partition("=")[0] for pair in space.format(architecture).split(";")} == asked.asked


def test_choices_beyond_the_depth_make_no_other_member():
    space = space_of("ProxylessNAS")
    shallow = space.make({gene.name: 0 for gene in space.genes})
    assert space.make(shallow.choices | {"s2_i3": 4}) == shallow
    assert space.make(shallow.choices | {"s2_i0": 4}) != shallow


def test_every_cell_of_nas_bench_101_is_valid_and_pruned():
    space, rng = space_of("NasBench101"), random.Random(0)
    for _ in range(100):
        architecture = space.sample(rng)
        sample = space._sample(architecture.choices)
        assert space._hub.space.check_contains(sample) is None
        vertices = sample["cell/num_nodes"]
        inputs = [sample[f"cell/input{i}"] for i in range(1, vertices)]
        assert sum(map(len, inputs)) <= 9
        assert all(inputs), "a vertex without an input would have been pruned"
        assert {v for found in inputs for v in found} == set(range(vertices - 1))


def test_an_invalid_cell_of_nas_bench_101_is_refused():
    text = "cell/num_nodes=3;cell/op1=maxpool3x3;cell/input1=0;cell/input2=-"
    with pytest.raises(ArchitectureError, match="expected a valid cell"):
        space_of("NasBench101").parse(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cell/0_1=conv_5x5", "expected for cell/0_1 one of none, skip_connect, conv_1x1"),
        ("cell/0_1=none;cell/0_1=none", "and once"),
        ("cell/9_9=none", "with names such as cell/0_1"),
        ("cell/0_1=none", "expected also cell/0_2"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(text, sentence):
    with pytest.raises(ArchitectureError, match=re.escape(sentence)):
        space_of("NasBench201").parse(text)


def test_nas_bench_201_costs_what_our_own_costs(make_task):
    hub, own, task = named_space("nni:NasBench201"), Nb201Space(), make_task(channels=3, side=32, classes=10)
    names = {"conv_1x1": "nor_conv_1x1", "conv_3x3": "nor_conv_3x3"}
    for architecture in samples(hub, 10):
        sample = hub._sample(architecture.choices)
        cell = {
            f"edge{label[-3]}{label[-1]}": OPERATIONS.index(names.get(operation, operation))
            for label, operation in sample.items()
        }
        costs = [
            measure_cost(lambda s=s, a=a: s.build(a, task), task.input_shape)
            for s, a in ((hub, architecture), (own, own.make(cell)))
        ]
        assert costs[0] == costs[1]


def test_a_space_travels_to_another_process_as_its_configuration(make_task):
    space = space_of("ENAS")
    again = pickle.loads(pickle.dumps(space))
    architecture = samples(space, 1)[0]
    one, other = (s.build(architecture, make_task(channels=3, side=16)) for s in (space, again))
    assert [(k, v.shape) for k, v in one.state_dict().items()] == [(k, v.shape) for k, v in other.state_dict().items()]


def test_threads_build_what_they_asked_for_and_draw_nothing(make_task):
    space, task = space_of("MobileNetV3Space"), make_task(channels=3, side=16)
    wanted = samples(space, 6)
    before = torch.get_rng_state()
    with uninitialised():
        alone = [space.build(a, task) for a in wanted]
        assert torch.equal(torch.get_rng_state(), before)
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda a: space.build(a, task), wanted))
    for one, other in zip(alone, together, strict=True):
        assert [v.shape for v in one.state_dict().values()] == [v.shape for v in other.state_dict().values()]


@pytest.mark.parametrize("name", ["MobileNetV3Space", "DARTS"])
def test_a_student_exports_with_parity(name, make_task, make_split, tmp_path):
    space, task = space_of(name), make_task(channels=3, side=32)
    student = space.build(space.make({gene.name: 0 for gene in space.genes}), task)
    initialise(student, "kaiming", 0)
    (tmp_path / "model.onnx").write_bytes(to_onnx(student, task.inputs, 20))
    parity = check_parity(student, tmp_path / "model.onnx", {"validation": make_split(task, 20)}, task.inputs)
    assert parity.top1_agreement == 1


# Configuration


@pytest.mark.parametrize("given", ["nni:DARTS", {"name": "nni:DARTS"}, {"name": "nni", "space": "DARTS"}])
def test_the_short_form_stands_for_the_long_one(given):
    from edgestill.search.config import SearchConfig

    assert SearchConfig(space=given).space == NniHubConfig(space="DARTS")


def test_an_unknown_space_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"search\.space\.space: unknown 'MobileNetV3'; did you mean 'Mobile"):
        load_config(settings=["search.space=nni:MobileNetV3"])
    with pytest.raises(ConfigError, match="unknown space 'MobileNetV3' of NNI's hub; did you mean 'MobileNetV3Space'"):
        named_space("nni:MobileNetV3")
    with pytest.raises(ConfigError, match="unknown space 'nbb201'; did you mean 'nb201'"):
        named_space("nbb201")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_labels": 5}, "leave out num_labels, the task says it"),
        ({"widht": 5}, 'NNI\'s DARTS refuses {"widht":5}'),
        ({"dataset": "mnist"}, "Unsupported dataset: mnist"),
    ],
)
def test_options_that_cannot_be_are_refused(options, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        NniHubSpace(NniHubConfig(space="DARTS", options=options))
