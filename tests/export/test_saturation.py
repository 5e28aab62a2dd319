"""The bound on INT8 weights against brute force, and the imitation of saturating kernels against arithmetic by hand."""

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgestill.export.calibration import CalibrationConfig
from edgestill.export.config import ExportConfig
from edgestill.export.device.answers import INT8_TOLERANCE
from edgestill.export.formats import FORMATS
from edgestill.export.onnx.quantize import FOR_CPU, FOR_TENSORRT, quantize
from edgestill.export.onnx.saturating import saturating_model, saturating_runner
from edgestill.export.onnx.saturation import LARGEST_PAIR, saturable, saturates_here
from edgestill.export.onnx.sessions import open_session, runner
from edgestill.pipeline.errors import ExportError

KINDS = {"int8": FOR_CPU, "int8_tensorrt": FOR_TENSORRT}


def quantised_product(kind, weights, signed=False, given=(2, 4, 5, 5), out=True, zero=0, axis=0, **attributes):
    """An ONNX file: floats of a step of 0.01 to bytes, a product with these bytes of a step of 0.01, and back."""
    byte = np.int8 if signed else np.uint8
    held = {
        "step": np.float32(0.01), "zero": byte(zero),
        "weights": weights, "none": np.zeros(weights.shape[axis], np.int8),
        "steps": np.full(weights.shape[axis], 0.01, np.float32),
        "wide": np.float32(0.5), "middle": byte(0 if signed else 128),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "step", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "step", "zero"], ["given"]),
        helper.make_node("DequantizeLinear", ["weights", "steps", "none"], ["true"], axis=axis),
        helper.make_node(kind, ["given", "true"], ["sum" if out else "logits"], **attributes),
    ]
    if out:
        nodes += [
            helper.make_node("QuantizeLinear", ["sum", "wide", "middle"], ["rounded"]),
            helper.make_node("DequantizeLinear", ["rounded", "wide", "middle"], ["logits"]),
        ]
    graph = helper.make_graph(
        nodes, "product", [helper.make_tensor_value_info("images", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def kernel(*values, channels=4):
    """[16, channels, 3, 3] zeros but for these, at the beginning of the first output channel."""
    weights = np.zeros((16, channels, 3, 3), np.int8)
    weights.reshape(-1)[: len(values)] = values
    return weights


@pytest.mark.parametrize(
    "pair",
    [(64, 64), (100, 28), (127, 1), (-64, -64), (127, -127), (127, -128), (65, 64), (100, 29), (-65, -64), (127, 127)],
)
def test_a_pair_of_weights_is_within_the_bound_exactly_if_no_activations_leave_16_bits(pair):
    sums = [a * pair[0] + b * pair[1] for a, b in itertools.product((0, 255), repeat=2)]  # linear: the corners suffice
    fits = min(sums) >= -(2**15) and max(sums) < 2**15
    assert (saturable(quantised_product("Conv", kernel(*pair))) == ()) == fits


def test_the_largest_pair_is_the_last_that_fits():
    assert 255 * LARGEST_PAIR < 2**15 <= 255 * (LARGEST_PAIR + 1)


def test_any_two_weights_of_one_output_channel_are_taken_for_neighbours_and_none_of_two_channels():
    far, apart = kernel(127), kernel(127)
    far[0, 3, 2, 2] = apart[1, 0, 0, 0] = 2
    assert saturable(quantised_product("Conv", far))
    assert saturable(quantised_product("Conv", apart)) == ()


@pytest.mark.parametrize("name", ["Gemm", "Gemm transposed", "MatMul"])
def test_the_output_channels_of_matrices_are_found(name):
    kind, transposed = name.split()[0], name.endswith("transposed")
    along, across = np.zeros((6, 6), np.int8), np.zeros((6, 6), np.int8)
    along[0, :2] = across[:2, 0] = 100
    options = {"transB": 1} if transposed else {}
    for weights, adds_up in ((along, transposed), (across, not transposed)):
        data = quantised_product(kind, weights, given=(2, 6), axis=0 if transposed else 1, **options)
        assert bool(saturable(data)) == adds_up


def test_weights_that_the_file_does_not_hold_are_not_within_the_bound():
    model = onnx.load_model_from_string(
        quantised_product("MatMul", np.zeros((6, 6), np.int8), signed=True, given=(2, 6))
    )
    product = next(node for node in model.graph.node if node.op_type == "MatMul")
    product.input[1] = "given"  # bytes times themselves, as inside attention
    assert saturable(model.SerializeToString()) == ("sum",)


def test_operators_on_integers_are_held_to_the_bound_too():
    for largest, expected in ((64, ()), (65, ("logits",))):
        weights = numpy_helper.from_array(np.full((4, 4), largest, np.int8), "weights")
        graph = helper.make_graph(
            [helper.make_node("MatMulInteger", ["bytes", "weights"], ["logits"])], "integers",
            [helper.make_tensor_value_info("bytes", TensorProto.UINT8, [1, 4])],
            [helper.make_tensor_value_info("logits", TensorProto.INT32, [1, 4])], [weights],
        )  # fmt: skip
        assert saturable(helper.make_model(graph).SerializeToString()) == expected


def test_floats_do_not_saturate(image_student):
    assert saturable(image_student.path.read_bytes()) == ()


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_7_bits_cannot_saturate_and_one_of_8_can(name, image_student):
    source = image_student.source
    for bits in (7, 8):
        data = quantize(source.onnx, source.calibration, "minmax", 99.99, KINDS[name], bits)
        products = [node for node in onnx.load_model_from_string(data).graph.node if node.op_type in ("Conv", "Gemm")]
        assert len(saturable(data)) == (0 if bits == 7 else len(products))


# The imitation


def saturated(images, weights):
    """One image's convolution without padding as AVX2's kernels compute it: by hand, in plain integers."""
    given = np.clip(np.round(images / np.float32(0.01)), 0, 255).astype(int)
    outputs, channels, height, width = weights.shape
    found = np.zeros((outputs, given.shape[1] - height + 1, given.shape[2] - width + 1), int)
    for place in np.ndindex(*found.shape):
        o, y, x = place
        order = itertools.product(range(height), range(width), range(channels))
        terms = [given[c, y + i, x + j] * int(weights[o, c, i, j]) for i, j, c in order] + [0]
        pairs = zip(terms[::2], terms[1::2], strict=False)
        found[place] = sum(min(max(a + b, -32768), 32767) for a, b in pairs)
    return found


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_imitation_clips_each_pair_of_neighbours_to_16_bits(channels):
    rng = np.random.default_rng(channels)
    weights = rng.integers(-127, 128, (5, channels, 3, 3)).astype(np.int8)
    images = (rng.random((1, channels, 5, 5)) * 2.55).astype(np.float32)
    data = quantised_product("Conv", weights, given=[1, channels, 5, 5], out=False, kernel_shape=[3, 3])
    (found,) = open_session(saturating_model(data)).run(None, {"images": images})
    expected, exact = saturated(images[0], weights), runner(data, exact=True)(images)
    assert np.round(found[0] / 1e-4).astype(int).tolist() == expected.tolist()
    assert np.abs(found - exact).max() > 0.5


WEIGHTS = np.random.default_rng(0).integers(-127, 128, (16, 16, 3, 3)).astype(np.int8)
PRODUCTS = {
    "16 to 16 channels": ("Conv", WEIGHTS, {"kernel_shape": [3, 3], "pads": [1] * 4}),
    "5 to 7 channels, stride 2": (
        "Conv",
        WEIGHTS[:7, :5],
        {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [2, 2]},
    ),
    "1 x 1": ("Conv", WEIGHTS[:, :, :1, :1], {"kernel_shape": [1, 1]}),
    "groups": ("Conv", WEIGHTS[:, :4], {"kernel_shape": [3, 3], "pads": [1, 0, 1, 1], "group": 4}),
    "depthwise": ("Conv", WEIGHTS[:, :1], {"kernel_shape": [3, 3], "pads": [1] * 4, "group": 16}),
    "a dense layer": ("Gemm", WEIGHTS.reshape(16, -1)[:, :32], {"transB": 1}),
    "a dense layer of sequences": ("MatMul", WEIGHTS.reshape(16, -1)[:, :20], {"axis": 1}),
}


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", PRODUCTS)
def test_the_imitation_is_what_a_saturating_processor_computes_to_a_step_of_rounding(name, signed):
    """On a processor with VNNI the exact sums alone can be compared: with weights of 7 bits both are one."""
    kind, weights, options = PRODUCTS[name]
    weights = np.ascontiguousarray(weights if saturates_here() else weights // 2)
    if kind == "Conv":
        given = (2, weights.shape[1] * options.get("group", 1), 6, 7)
    else:
        given = (3, 32) if kind == "Gemm" else (2, 3, 16)
    data = quantised_product(kind, weights, signed, given, zero=0 if signed else 30, **options)
    inputs = (np.random.default_rng(1).random(given) * 2.6 - 0.3).astype(np.float32)
    here, imitated = runner(data)(inputs), runner(saturating_model(data))(inputs)
    assert np.abs(imitated - here).max() <= 0.5  # the step
    assert (imitated != here).mean() < 0.01


def test_an_activation_that_is_multiplied_by_another_is_not_imitated():
    model = onnx.load_model_from_string(quantised_product("MatMul", np.zeros((6, 6), np.int8), given=(6, 6)))
    next(node for node in model.graph.node if node.op_type == "MatMul").input[1] = "given"
    with pytest.raises(ExportError, match="how MatMul sum saturates is not imitated here"):
        saturating_model(model.SerializeToString())


@pytest.mark.parametrize("name", KINDS)
def test_a_student_of_7_bits_answers_alike_exact_saturating_and_here(name, image_student):
    """And one of 8 bits does not: this is what the bound is for."""
    images, source = image_student.splits.validation.images[:40].numpy(), image_student.source
    moved = {}
    for bits in (7, 8):
        data = quantize(source.onnx, source.calibration, "minmax", 99.99, KINDS[name], bits)
        exact = runner(data, exact=True)(images)
        others = {"here": runner(data)(images), "saturating": saturating_runner(data)(images)}
        moved[bits] = {kind: float(np.abs(found - exact).max() / np.abs(exact).max()) for kind, found in others.items()}
    assert max(moved[7].values()) < INT8_TOLERANCE
    assert moved[8]["saturating"] > 0.1
    assert (moved[8]["here"] > 0.1) == saturates_here()


def test_formats_make_7_bits_unless_told_otherwise(image_student, tmp_path):
    for config, saturates in ((ExportConfig(), False), (ExportConfig(weight_bits=8), True)):
        quick = config.model_copy(update={"calibration": CalibrationConfig(method="minmax")})
        path = tmp_path / "model.onnx"
        path.write_bytes(FORMATS["int8"].build(image_student.source, quick)[".onnx"])
        assert bool(FORMATS["int8"].saturable(path)) == saturates
