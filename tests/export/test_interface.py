"""8-bit images in, probabilities out, inside the file; equal to the file without."""

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest
import torch

from edgestill.export.onnx.interface import check_image_interface, describe_input, with_image_interface, with_interface
from edgestill.export.onnx.sessions import runner
from edgestill.pipeline.errors import ExportError


@pytest.fixture(scope="module")
def files(bundles):
    """The same network's file without the interface and with it, and the network."""
    made = bundles(3, "image")
    return (made.folder.parent / "raw.onnx").read_bytes(), (made.folder / "model.onnx").read_bytes(), made.network


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 10, 8, 3), dtype=np.uint8)


def test_a_decoded_image_goes_in_as_it_is_and_probabilities_come_out(files, pixels):
    _, wrapped, network = files
    session = onnxruntime.InferenceSession(wrapped)
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape) == ("image", "tensor(uint8)", ["batch", 10, 8, 3])
    probabilities, logits = session.run(["probabilities", "logits"], {"image": pixels})
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
    assert logits == pytest.approx(expected.numpy(), abs=1e-4)
    assert probabilities == pytest.approx(expected.softmax(1).numpy(), abs=1e-5)
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-6)


def test_a_second_implementation_of_onnx_computes_the_same(files, pixels):
    _, wrapped, _ = files
    (other,) = onnx.reference.ReferenceEvaluator(onnx.load_from_string(wrapped)).run(
        ["probabilities"], {"image": pixels}
    )
    (own,) = onnxruntime.InferenceSession(wrapped).run(["probabilities"], {"image": pixels})
    assert other == pytest.approx(own, abs=1e-5)


def test_the_same_floats_through_a_runner_give_the_same_logits_with_either_interface(files, pixels, tmp_path):
    raw, wrapped, _ = files
    images = np.ascontiguousarray((pixels / np.float32(255)).transpose(0, 3, 1, 2))
    for name, data in (("raw.onnx", raw), ("wrapped.onnx", wrapped)):
        (tmp_path / name).write_bytes(data)
    found = runner(tmp_path / "wrapped.onnx")(images)
    assert found == pytest.approx(runner(tmp_path / "raw.onnx")(images), abs=1e-5)


def test_an_int8_file_keeps_its_answers_behind_the_interface(files, pixels, tmp_path):
    """The surgery is around what was quantized, so nothing is rounded twice."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = iter(np.random.default_rng(1).random((8, 1, 3, 10, 8), dtype=np.float32))

        def get_next(self):
            batch = next(self.left, None)
            return None if batch is None else {"images": batch}

    (tmp_path / "raw.onnx").write_bytes(files[0])
    quantize_static(
        tmp_path / "raw.onnx", tmp_path / "int8.onnx", Reader(), quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    quantized = (tmp_path / "int8.onnx").read_bytes()
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load_from_string(quantized).graph.node)
    images = pixels.transpose(0, 3, 1, 2) / np.float32(255)
    assert check_image_interface(quantized, with_image_interface(quantized), images) < 1e-4


def test_raw_is_the_file_itself(files):
    assert with_interface(files[0], "raw", np.zeros((1, 3, 10, 8), np.float32)) == files[0]


def planted(raw, change):
    """The file with the interface, spoilt as a mistake in the surgery would spoil it."""
    model = onnx.load_from_string(with_image_interface(raw))
    change({node.op_type: node for node in model.graph.node}, {w.name: w for w in model.graph.initializer})
    return model.SerializeToString()


@pytest.mark.parametrize(
    "change",
    [
        lambda nodes, weights: weights["image_white"].CopyFrom(
            onnx.numpy_helper.from_array(np.array(256, np.float32), "image_white")
        ),
        lambda nodes, weights: nodes["Softmax"].attribute[0].CopyFrom(onnx.helper.make_attribute("axis", 0)),
    ],
)
def test_a_wrong_scale_or_a_softmax_over_the_batch_is_caught(files, pixels, change):
    images = (pixels / np.float32(255)).transpose(0, 3, 1, 2)
    with pytest.raises(ExportError, match="differs from the one without it"):
        check_image_interface(files[0], planted(files[0], change), images)


def test_swapped_channels_are_caught(files, pixels):
    model = onnx.load_from_string(with_image_interface(files[0]))
    order = onnx.numpy_helper.from_array(np.array([2, 1, 0]), "order")
    model.graph.initializer.append(order)
    for place, node in enumerate(model.graph.node):
        if node.op_type == "Transpose":
            node.output[0] = "unswapped"
            swap = onnx.helper.make_node("Gather", ["unswapped", "order"], ["images"], axis=1)
            model.graph.node.insert(place + 1, swap)
            break
    images = (pixels / np.float32(255)).transpose(0, 3, 1, 2)
    with pytest.raises(ExportError, match="logits differ by up to"):
        check_image_interface(files[0], model.SerializeToString(), images)


def test_a_file_that_takes_no_images_is_refused(files, text_bundle):
    with pytest.raises(ExportError, match="needs a file from `images` to `logits`; this one has input_ids"):
        with_image_interface((text_bundle.folder / "model.onnx").read_bytes())


def test_what_bundle_json_says_goes_in_is_what_the_session_takes(bundles):
    for interface in ("raw", "image"):
        folder, _, bundle = bundles(3, interface)
        (taken,) = onnxruntime.InferenceSession(folder / "model.onnx").get_inputs()
        described = describe_input(bundle.task, interface)
        assert (described["name"], described["shape"]) == (taken.name, taken.shape)
        assert {"float32": "tensor(float)", "uint8": "tensor(uint8)"}[described["dtype"]] == taken.type
