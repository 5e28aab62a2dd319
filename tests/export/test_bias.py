"""Bias correction of an 8-bit file, beside what rounding does to known weights."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgestill.export.onnx.bias import corrected
from edgestill.export.onnx.quantize import FOR_CPU, FOR_TENSORRT, Calibration, quantizer
from edgestill.export.onnx.sessions import runner

SIDE, CHANNELS = 4, 3
STEP = 1 / 64  # of weights whose largest is 1, in 7 bits
WEIGHTS = np.array([[1, 0.4 * STEP, 0.4 * STEP], [1, 0, 0.5], [-1, 0.4 * STEP, -0.4 * STEP]], np.float32)


@pytest.fixture(scope="module")
def images():
    """Images with another mean in each channel: 0.25, 0.5, 0.75."""
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, (64, CHANNELS, SIDE, SIDE)).astype(np.float32)
    return noise + np.array([0.25, 0.5, 0.75], np.float32)[:, None, None]


def network(*layers: np.ndarray) -> bytes:
    """1 x 1 convolutions without an activation between them, and the mean of each channel as logits."""
    nodes, tensors, given = [], [], "images"
    for place, weight in enumerate(layers):
        made, name = f"sum{place}", f"layer{place}"
        tensors += [
            numpy_helper.from_array(weight[:, :, None, None], f"weight{place}"),
            numpy_helper.from_array(np.zeros(len(weight), np.float32), f"bias{place}"),
        ]
        nodes.append(helper.make_node("Conv", [given, f"weight{place}", f"bias{place}"], [made], name))
        given = made
    nodes.append(helper.make_node("GlobalAveragePool", [given], ["pooled"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["logits"], "flatten"))
    sides = helper.make_tensor_value_info("images", 1, ["batch", CHANNELS, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", 1, ["batch", CHANNELS])
    graph = helper.make_graph(nodes, "linear", [sides], [logits], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())


@pytest.fixture
def made(tmp_path, images):
    """(layers, scheme) to the fp32 file, the 8-bit one, and the 8-bit one with its biases corrected."""

    def make(*layers, scheme=FOR_CPU):
        path = tmp_path / "fp32.onnx"
        path.write_bytes(network(*layers))
        calibration, files = Calibration(images, "minmax", 99.99), []
        for correct_s in (0, 60):
            with quantizer(path, calibration, scheme, 7, correct_s) as found:
                files.append(found.whole())
        return path.read_bytes(), *files

    return make


def biases(data: bytes, layer: int) -> np.ndarray:
    """A layer's biases as the file's own arithmetic has them."""
    graph = onnx.load_from_string(data).graph
    tensors = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    node = next(node for node in graph.node if node.name == f"layer{layer}")
    if node.input[2] in tensors:
        return tensors[node.input[2]]
    unpack = next(one for one in graph.node if node.input[2] in one.output)
    values, steps = (tensors[name].astype(np.float64) for name in unpack.input[:2])
    return values * steps


@pytest.mark.parametrize("scheme", [FOR_CPU, FOR_TENSORRT], ids=["cpu", "tensorrt"])
def test_the_bias_that_rounding_weights_brings_in_is_taken_back_in_each_channel(made, images, scheme):
    """Weights of 0.4 steps round to zero, and with them goes 0.4 steps of each mean they read; exact ones lose none."""
    _, _, found = made(WEIGHTS, scheme=scheme)
    means = images.mean(axis=(0, 2, 3), dtype=np.float64)
    rounded = np.round(WEIGHTS / STEP) * STEP
    lost = (WEIGHTS - rounded) @ means
    assert lost == pytest.approx([0.4 * STEP * 1.25, 0, -0.4 * STEP * 0.25], abs=1e-4)
    step = 0.95 / 255 * STEP if scheme is FOR_CPU else 0.0  # of an integer bias
    image_rounding = 3e-4  # mean error of 3072 rounded pixels, of 1/255 steps
    assert biases(found, 0) == pytest.approx(lost, abs=step + image_rounding)


def test_each_channels_mean_is_fp32s_after_every_layer(made, images):
    fp32, plain, found = (runner(data)(images).mean(0) for data in made(WEIGHTS, WEIGHTS, WEIGHTS))
    assert np.abs(plain - fp32).max() > 0.005
    assert np.abs(found - fp32).max() < 0.25 * np.abs(plain - fp32).max()


def test_layers_are_corrected_one_after_the_other(made, images):
    """In time for the first one alone, the second's bias stays, and its own correction starts from the first's."""
    rng = np.random.default_rng(1)
    layers = [rng.uniform(-1, 1, (CHANNELS, CHANNELS)).astype(np.float32) for _ in range(2)]
    fp32, plain, whole = made(*layers)
    ticks = iter([0, 0, 2])
    first, count = corrected(plain, fp32, images, 1, lambda: next(ticks))
    assert count == 1
    assert (biases(first, 0) == biases(whole, 0)).all()
    assert (biases(first, 1) == biases(plain, 1)).all()
    once_more, count = corrected(first, fp32, images, 60)
    assert (biases(once_more, 1) == biases(whole, 1)).all()
    assert count == 1


def test_a_file_without_a_bias_to_move_stays_as_it_is(images):
    fp32 = network(WEIGHTS)
    assert corrected(fp32, fp32, images, 60) == (fp32, 0)
    model = onnx.load_from_string(fp32)
    del model.graph.node[0].input[2:]
    bare = model.SerializeToString()
    assert corrected(bare, fp32, images, 60) == (bare, 0)
