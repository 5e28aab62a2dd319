"""ONNX Runtime's own format: the same function as the ONNX file it is made from, and nothing of this machine in it."""

import numpy as np
import pytest

from edgestill.export.config import ExportConfig
from edgestill.export.conformance import QUICK
from edgestill.export.formats import FORMATS
from edgestill.export.onnx.sessions import open_session, runner, to_pixels
from edgestill.pipeline.errors import ExportError

NAMES = ("ort_fp32", "ort_int8")


@pytest.fixture(scope="module")
def files(image_student):
    return {name: FORMATS[name].build(image_student.source, QUICK) for name in NAMES}


@pytest.fixture
def opened(files, tmp_path):
    def run(name, data=None):
        path = tmp_path / "model.ort"
        path.write_bytes(files[name][".ort"] if data is None else data)
        return FORMATS[name].open(path, 1)

    return run


def test_it_gives_the_logits_of_the_file_it_is_made_from(image_student, opened, tmp_path):
    images = image_student.splits.validation.images[:40].numpy()
    (tmp_path / "int8.onnx").write_bytes(FORMATS["int8"].build(image_student.source, QUICK)[".onnx"])
    for name, onnx in (("ort_fp32", image_student.path), ("ort_int8", tmp_path / "int8.onnx")):
        expected = runner(onnx)(images)
        step = 1e-5 if name == "ort_fp32" else 0.05  # rounding midway between two steps may go either way
        assert opened(name)(images) == pytest.approx(expected, abs=step * float(np.abs(expected).max()))


def test_the_operators_lie_beside_it_and_no_path_of_this_machine(files):
    for name, kind in (("ort_fp32", "Conv"), ("ort_int8", "QLinearConv")):
        lines = files[name][".config"].decode().splitlines()
        assert all(len(line.split(";")) == 3 for line in lines)
        assert any(kind in line.split(";")[2].split(",") for line in lines)


@pytest.mark.parametrize("spoilt", [b"", b"nothing of the kind", b"ONNX"])
def test_what_is_no_such_file_is_refused_in_one_sentence(opened, image_student, spoilt):
    data = image_student.path.read_bytes() if spoilt == b"ONNX" else spoilt
    with pytest.raises(ExportError, match=r"refuses model\.ort: .+") as caught:
        opened("ort_fp32", data)
    assert "\n" not in str(caught.value)


def test_a_session_for_onnx_files_does_not_open_it(files):
    """A hostile file must not choose its reader by its first bytes."""
    with pytest.raises(Exception, match=r"(?i)protobuf|parse|load"):
        open_session(files["ort_fp32"][".ort"])


def test_its_8_bit_weights_are_counted_as_in_the_file_it_is_made_from(files, image_student, tmp_path):
    path, wide = tmp_path / "model.ort", ExportConfig(calibration=QUICK.calibration, weight_bits=8)
    path.write_bytes(files["ort_int8"][".ort"])
    assert FORMATS["ort_int8"].saturable(path) == 0
    path.write_bytes(FORMATS["ort_int8"].build(image_student.source, wide)[".ort"])
    assert FORMATS["ort_int8"].saturable(path) > 0
    assert FORMATS["ort_fp32"].saturable(path) is None


@pytest.mark.parametrize("name", NAMES)
def test_with_the_image_interface_it_takes_bytes(name, image_student, tmp_path):
    form, config = FORMATS[name], QUICK.model_copy(update={"interface": "image"})
    path = tmp_path / "model.ort"
    path.write_bytes(form.build(image_student.source, config)[".ort"])
    session = open_session(path, written_as="ORT")
    assert session.get_inputs()[0].type == "tensor(uint8)"
    images = image_student.splits.validation.images[:7].numpy()
    shares, logits = session.run(["probabilities", "logits"], {"image": to_pixels(images)})
    assert shares.sum(1) == pytest.approx(np.ones(7), abs=1e-5)
    assert form.open(path, 1)(images) == pytest.approx(logits)
