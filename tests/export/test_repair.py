"""Students that INT8 breaks as a whole: the layers at fault stay in float, and the verdict names them."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from torch import nn

from edgestill.export.build import Folder, Reference, source_of, try_format
from edgestill.export.calibration import CalibrationConfig, Int8Config
from edgestill.export.config import ExportConfig, GateConfig
from edgestill.export.conformance import TINTS, tinted
from edgestill.export.evaluate import answers_of
from edgestill.export.formats import FORMATS
from edgestill.export.gate import loses_too_much
from edgestill.export.onnx.equalize import equalized
from edgestill.export.onnx.quantize import FOR_CPU, Calibration, quantizer
from edgestill.export.onnx.quicken import quickened
from edgestill.export.onnx.repair import damage_of, repaired
from edgestill.export.onnx.sessions import runner
from edgestill.pipeline.conformance.samples import image_task
from edgestill.pipeline.errors import ExportError

CONFIG = ExportConfig(calibration=CalibrationConfig(method="minmax"))
EQUAL = CONFIG.model_copy(update={"int8": Int8Config(repair="off", equalize=True)})
CORRECTED = CONFIG.model_copy(update={"int8": Int8Config(repair="off", correct_bias=True)})
OFF = CONFIG.model_copy(update={"int8": Int8Config(repair="off")})
WIDTH, BLOCKS = 8, 2
LAYERS = 2 * BLOCKS + 3  # with the first, the pool and the last
Weights = dict[str, np.ndarray]


def weights(seed: int, spread: float = 1.0, at: tuple[int, ...] = (1,)) -> Weights:
    """Weights of a convolution, of blocks of a depthwise and a pointwise one, and of the last layer.

    The channels after the depthwise convolutions of the blocks `at` are spread; the function stays the same.
    """
    rng = np.random.default_rng(seed)
    made: Weights = {"first": rng.normal(0, 0.3, (WIDTH, 3, 3, 3)), "first_bias": rng.normal(0, 0.1, WIDTH)}
    scales = rng.permutation(np.logspace(0, np.log10(spread), WIDTH))
    for place in range(BLOCKS):
        scale = scales if place in at else np.ones(WIDTH)
        made[f"depthwise{place}"] = rng.normal(0, 0.5, (WIDTH, 1, 3, 3)) * scale[:, None, None, None]
        made[f"depthwise{place}_bias"] = rng.normal(0, 0.1, WIDTH) * scale
        made[f"pointwise{place}"] = rng.normal(0, 0.5, (WIDTH, WIDTH, 1, 1)) / scale[:, None, None]
        made[f"pointwise{place}_bias"] = rng.normal(0, 0.1, WIDTH)
    return made | {"last": np.zeros((WIDTH, len(TINTS))), "last_bias": np.zeros(len(TINTS))}


def graph_of(made: Weights) -> bytes:
    """Return the ONNX file of the weights: `images` to `logits`, through `features`."""
    nodes, given = [], "images"
    for name in made:
        if name.endswith("_bias") or name == "last":
            continue
        sides = {"group": WIDTH} if name.startswith("depthwise") else {}
        pads = [0] * 4 if name.startswith("pointwise") else [1] * 4
        nodes.append(helper.make_node("Conv", [given, name, f"{name}_bias"], [f"{name}_sum"], name, pads=pads, **sides))
        nodes.append(helper.make_node("Relu", [f"{name}_sum"], [f"{name}_out"], f"{name}_relu"))
        given = f"{name}_out"
    nodes.append(helper.make_node("GlobalAveragePool", [given], ["pooled"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"], "flatten"))
    nodes.append(helper.make_node("Gemm", ["features", "last", "last_bias"], ["logits"], "last"))
    images = helper.make_tensor_value_info("images", 1, ["batch", 3, 12, 12])
    logits = helper.make_tensor_value_info("logits", 1, ["batch", len(TINTS)])
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in made.items()]
    graph = helper.make_graph(nodes, "mobile", [images], [logits], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())


def fitted(made: Weights) -> Weights:
    """Solve for the last layer by least squares, on images whose class shows as a colour."""
    train = tinted(400, 1, "train")
    identity = made | {"last": np.eye(WIDTH), "last_bias": np.zeros(WIDTH)}
    features = runner(graph_of(identity))(train.images[:].numpy()).astype(float)
    wide = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    wanted = 6 * np.eye(len(TINTS))[train.targets.numpy()] - 2
    solved = np.linalg.lstsq(wide, wanted, rcond=None)[0]
    return made | {"last": solved[:-1], "last_bias": solved[-1]}


@pytest.fixture
def built(tmp_path):
    """(network, format, config) to the fp32 metrics and the format's record, or why there is none."""
    images = tinted(400, 1, "train").images[:]
    statistics = {"mean": tuple(images.mean((0, 2, 3)).tolist()), "std": tuple(images.std((0, 2, 3)).tolist())}
    task = image_task(channels=3, side=12, classes=len(TINTS)).model_copy(update=statistics)
    splits = SimpleNamespace(validation=tinted(200, 2, "validation"), reference=tinted(64, 3, "reference"), task=task)

    def build(network, name="int8", config=CONFIG):
        path = tmp_path / "student.onnx"
        path.write_bytes(graph_of(network))
        fp32 = Reference(path, answers_of(runner(path), splits.validation))
        source = source_of(nn.Identity(), path, splits, config)

        def write(file, data):
            (tmp_path / file).write_bytes(data)
            return tmp_path / file

        made = try_format(FORMATS[name], source, fp32, splits, config, Folder(tmp_path, write))
        return SimpleNamespace(fp32=fp32.answers.metrics, made=made, source=source, root=tmp_path)

    return build


@pytest.mark.parametrize(("seed", "at"), [(0, (1,)), (3, (0,)), (8, (1,)), (11, (0, 1)), (1, (0,))])
def test_a_depthwise_student_that_int8_breaks_ships_with_the_layers_at_fault_in_float(built, seed, at):
    network = fitted(weights(seed, spread=3000.0, at=at))
    broken = built(network, config=OFF)
    assert loses_too_much(broken.made.validation, broken.fp32, 0.005)
    assert broken.made.in_float == {}
    found = built(network)
    assert not loses_too_much(found.made.validation, found.fp32, 0.005)
    assert 0 < len(found.made.in_float) < LAYERS
    assert list(found.made.in_float.values()) == sorted(found.made.in_float.values(), reverse=True)
    data = (found.root / found.made.path).read_bytes()
    assert b"DequantizeLinear" in data


def test_a_student_that_int8_serves_well_has_the_same_bytes_with_and_without_repair(built):
    network, wide = fitted(weights(0)), {"gate": GateConfig(max_accuracy_drop=0.2)}
    with_it, without = built(network, config=CONFIG.model_copy(update=wide)), built(network, config=OFF)
    assert with_it.made.sha256 == without.made.sha256
    assert with_it.made.in_float == {}


@pytest.mark.parametrize(("seed", "at"), [(0, (1,)), (11, (0, 1))])
def test_a_depthwise_student_that_int8_breaks_is_whole_again_with_its_ranges_equalised(built, seed, at):
    network = fitted(weights(seed, spread=3000.0, at=at))
    broken, found = built(network, config=OFF), built(network, config=EQUAL)
    assert broken.made.validation.accuracy < broken.fp32.accuracy - 0.5
    assert found.made.validation.accuracy > found.fp32.accuracy - 0.06
    assert found.made.in_float == {}
    assert found.made.equalized == found.made.model_dump()["equalized"] > 0
    assert "equalized" not in broken.made.model_dump()


def test_an_equalised_file_that_is_no_better_is_not_taken(built):
    network = fitted(weights(3, spread=3000.0, at=(0,)))
    plain, found = built(network, config=OFF), built(network, config=EQUAL)
    assert loses_too_much(plain.made.validation, plain.fp32, 0.005)
    assert (found.made.sha256, found.made.equalized) == (plain.made.sha256, 0)


def test_biases_are_corrected_where_that_is_better_and_the_record_tells(built):
    """Channels are spread so far that a whole file in INT8 loses some of its accuracy and not all of it."""
    network = fitted(weights(11, spread=30.0, at=(0, 1)))
    broken, found = built(network, config=OFF), built(network, config=CORRECTED)
    assert loses_too_much(broken.made.validation, broken.fp32, 0.005)
    assert found.made.bias_corrected is found.made.model_dump()["bias_corrected"] is True
    assert found.made.validation.accuracy >= broken.made.validation.accuracy
    assert "bias_corrected" not in broken.made.model_dump()


def largest(data, layer):
    """The largest weight of each of a layer's output and of its input channels."""
    (weight,) = (numpy_helper.to_array(t) for t in onnx.load_from_string(data).graph.initializer if t.name == layer)
    inputs = weight if layer.startswith("depthwise") else np.swapaxes(weight, 0, 1)
    return [np.abs(part).reshape(len(part), -1).max(axis=1) for part in (weight, inputs)]


@pytest.mark.parametrize("seed", [0, 5])
def test_equalisation_leaves_the_function_and_levels_the_ranges_of_every_pair(tmp_path, seed):
    data = graph_of(fitted(weights(seed, spread=3000.0, at=(0, 1))))
    found, pairs = equalized(data)
    images = tinted(32, 4, "validation").images[:].numpy()
    (tmp_path / "before.onnx").write_bytes(data)
    (tmp_path / "after.onnx").write_bytes(found)
    before, after = (runner(tmp_path / f"{name}.onnx")(images) for name in ("before", "after"))
    assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max()
    order = ["first", "depthwise0", "pointwise0", "depthwise1", "pointwise1"]
    assert 0 < pairs <= len(order) - 1
    for one, other in itertools.pairwise(order):
        ratio = largest(found, one)[0] / largest(found, other)[1]
        assert ratio.max() <= 2.1  # powers of two: within a factor of two of each other
        assert ratio.min() >= 1 / 2.1
    assert equalized(found) == (found, 0)


def test_layers_that_share_a_tensor_or_have_another_activation_are_left_alone():
    data = graph_of(fitted(weights(0, spread=3000.0, at=(0, 1))))
    model = onnx.load_from_string(data)
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Sigmoid"
    bent = model.SerializeToString()
    assert equalized(bent) == (bent, 0)
    model = onnx.load_from_string(data)
    for place, node in enumerate([node for node in model.graph.node if node.op_type == "Relu"]):
        model.graph.node.append(helper.make_node("Neg", [node.output[0]], [f"read_again{place}"]))
    shared = model.SerializeToString()
    assert equalized(shared) == (shared, 0)


@pytest.mark.parametrize("name", ["ort_int8", pytest.param("openvino_int8", marks=pytest.mark.engines)])
def test_the_other_files_in_8_bits_are_repaired_too(built, name):
    if FORMATS[name].missing():
        pytest.skip(FORMATS[name].missing())
    found = built(fitted(weights(0, spread=3000.0)), name)
    assert not loses_too_much(found.made.validation, found.fp32, 0.005)
    assert found.made.in_float


def test_the_time_to_look_for_layers_is_bounded(built):
    source = built(fitted(weights(0, spread=3000.0)), config=OFF).source
    ticks = iter(range(10_000))
    expected = runner(source.onnx)(source.calibration)
    with quantizer(source.onnx, Calibration(source.calibration, "minmax", 99.99), FOR_CPU) as made:
        answers = lambda data: runner(data)(source.calibration)  # noqa: E731
        damage = damage_of(made, expected, answers, 3, lambda: next(ticks))
        assert tuple(damage) == made.layers
        assert {layer for layer, moved in damage.items() if moved} <= set(made.layers[:3])
        asked: list[bytes] = []
        assert repaired(made, damage, lambda data: bool(asked.append(data)), 2, lambda: next(ticks)) is None
    assert len(asked) == 2


@pytest.mark.parametrize("needed", [1, 2, 3, 5])
def test_the_fewest_of_the_worst_layers_that_hold_are_found(needed):
    """Beside a stand-in whose file is the list of the layers left in float."""
    damage = {f"layer{place}": 10 - place for place in range(8)}

    class Whole:
        layers = tuple(sorted(damage, key=lambda layer: damage[layer]))

        def part(self, only=(), without=()):
            return ",".join(without or only)

    found = repaired(Whole(), damage, lambda data: len(data.split(",")) >= needed, 600)
    assert list(found.in_float) == [f"layer{place}" for place in range(needed)]
    assert found.made == ",".join(found.in_float)


# Layers that cost time


class Timed:
    """Stands in for a quantiser: a file is its layers in float, and 8 bits save or cost each layer some time."""

    layers = tuple(f"layer{place}" for place in range(24))

    def __init__(self, costs):
        self.costs, self.made, self.seconds = costs, 0, 0.0

    def part(self, only=(), without=()):
        self.made += 1
        return ",".join(without)

    def medians_ms(self, files, seconds):
        self.seconds += seconds * len(files)
        return {name: self.ms(data) for name, data in files.items()}

    def ms(self, data):
        if data == "fp32":
            return 24.0
        return sum(1 + self.costs.get(layer, -0.5) * (layer not in data.split(",")) for layer in self.layers)


def test_layers_whose_8_bits_cost_time_stay_in_float():
    stand_in = Timed({f"layer{place}": 6.0 for place in (3, 4, 5, 18, 19, 20)})
    asked = []
    found = quickened(stand_in, "fp32", stand_in.medians_ms, lambda data: asked.append(data) or True, 1.05, 60)
    assert set(found.in_float) == {f"layer{place}" for place in (3, 4, 5, 18, 19, 20)}
    assert stand_in.ms(found.made) == min(map(stand_in.ms, asked)) < 24 < stand_in.ms("")
    assert stand_in.seconds <= 60


def test_a_file_that_is_fast_or_cannot_be_made_faster_stays_as_it_is():
    fast, slow = Timed({}), Timed(dict.fromkeys(Timed.layers, 0.01))
    for stand_in in (fast, slow):
        assert quickened(stand_in, "fp32", stand_in.medians_ms, lambda data: True, 1.05, 60) is None
    assert fast.made == 1


def test_a_faster_file_that_loses_accuracy_is_not_taken_and_time_is_bounded():
    costs = {f"layer{place}": 6.0 for place in range(3)}
    stand_in = Timed(costs)
    assert quickened(stand_in, "fp32", stand_in.medians_ms, lambda data: False, 1.05, 60) is None
    late, ticks = Timed(costs), iter(range(0, 10_000, 25))
    quickened(late, "fp32", late.medians_ms, lambda data: True, 1.05, 60, lambda: next(ticks))
    assert late.made <= 1 + 1 + 1  # the whole, one group within the first third, and what is joined


def test_a_whole_file_is_timed_and_kept_where_leaving_layers_in_float_does_not_help(built):
    config = CONFIG.model_copy(update={"int8": Int8Config(quicken=True, seconds=1), "gate": GateConfig(min_speedup=1)})
    found = built(fitted(weights(0)), config=config)
    assert isinstance(found.made.for_speed, tuple)
    assert ("for_speed" in found.made.model_dump()) is bool(found.made.for_speed)


# Networks with nothing to measure a range on


def dead_layer(made: Weights) -> Weights:
    """No activation after a block's depthwise convolution is above zero."""
    nothing = {"depthwise0": np.zeros((WIDTH, 1, 3, 3)), "depthwise0_bias": np.full(WIDTH, -1e3)}
    return made | nothing


def unused_class(made: Weights) -> Weights:
    """A class that nothing is ever taken for."""
    last, bias = made["last"].copy(), made["last_bias"].copy()
    last[:, 1], bias[1] = 0, -1e4
    return made | {"last": last, "last_bias": bias}


def zero_channel(made: Weights) -> Weights:
    """Output channels without a weight, as pruning by masks leaves them."""
    first, pointwise = made["first"].copy(), made["pointwise1"].copy()
    first[3], pointwise[5] = 0, 0
    return made | {"first": first, "pointwise1": pointwise}


MOST = CONFIG.model_copy(update={"int8": Int8Config(equalize=True, correct_bias=True)})
IN_8_BITS = ("int8", "int8_tensorrt", "int8_dynamic", "ort_int8", "openvino_int8", "openvino_w8")


@pytest.mark.parametrize("spoil", [dead_layer, unused_class, zero_channel])
@pytest.mark.parametrize("name", IN_8_BITS)
def test_a_degenerate_network_has_a_file_that_answers_or_a_clear_refusal(built, spoil, name):
    if FORMATS[name].missing():
        pytest.skip(FORMATS[name].missing())
    found = built(fitted(spoil(weights(0))) if spoil is not unused_class else spoil(fitted(weights(0))), name, MOST)
    if isinstance(found.made, str):
        assert "\n" not in found.made
        return
    logits = FORMATS[name].open(found.root / found.made.path, 1)(found.source.calibration)
    assert np.isfinite(logits).all()
    assert abs(found.made.validation.accuracy - found.fp32.accuracy) <= 0.02


@pytest.mark.parametrize("name", ["int8", "int8_tensorrt", "ort_int8", "openvino_int8"])
def test_a_calibration_of_one_image_is_refused(built, name):
    if FORMATS[name].missing():
        pytest.skip(FORMATS[name].missing())
    source = built(fitted(weights(0)), config=OFF).source
    for count, sentence in ((64, "examples are all alike"), (1, "calibration has 1 examples and needs 32")):
        few = np.repeat(source.calibration[:1], count, axis=0)
        with pytest.raises(ExportError, match=sentence):
            FORMATS[name].build(dataclasses.replace(source, calibration=few), CONFIG)


# What is told and kept


def test_files_and_digests_from_before_the_repair_stay_the_same(built):
    found = built(fitted(weights(0)), config=OFF)
    assert "in_float" not in found.made.model_dump(mode="json")
    assert "int8" not in CONFIG.model_dump(mode="json")
    assert OFF.model_dump(mode="json")["int8"] == {"repair": "off", "seconds": 60}
    assert EQUAL.model_dump(mode="json")["int8"]["equalize"] is True
