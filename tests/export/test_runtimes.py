"""Files of other runtimes, opened on a device as the shipped script does."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from edgestill.export.config import ExportConfig
from edgestill.export.device.runtimes import Given, import_runtime, open_other, runtime_of, version_of
from edgestill.export.formats import FORMATS
from edgestill.export.onnx.sessions import runner


class Double:
    """LiteRT's interpreter of a text model that takes one input of three tokens; counts those the mask leaves."""

    def __init__(self, model_path, num_threads):
        self.threads, self.held, self.is_ready = num_threads, {}, False

    def allocate_tensors(self):
        self.is_ready = True

    def get_input_details(self):
        side = {"shape": np.array([1, 3]), "dtype": np.int32}
        return [{"name": "args_1", "index": 7, **side}, {"name": "args_0", "index": 4, **side}]

    def get_output_details(self):
        return [{"name": "logits", "index": 9}]

    def set_tensor(self, index, value):
        assert self.is_ready
        assert (value.shape, value.dtype) == ((1, 3), np.int32)
        self.held[index] = value

    def invoke(self):
        ids, mask = self.held[4], self.held[7]
        self.held[9] = np.array([[(ids * mask).sum(), mask.sum()]], np.float32)

    def get_tensor(self, index):
        return self.held[index]


@pytest.fixture(params=["ai_edge_litert", "tflite_runtime"])
def litert(request, monkeypatch):
    """The module's name; the other of the two is not installed."""
    for name in ("ai_edge_litert", "tflite_runtime"):
        made = ModuleType(f"{name}.interpreter")
        made.Interpreter = Double
        is_there = name == request.param
        monkeypatch.setitem(sys.modules, name, ModuleType(name) if is_there else None)
        monkeypatch.setitem(sys.modules, f"{name}.interpreter", made if is_there else None)
    return request.param


def test_a_files_suffix_tells_its_runtime():
    found = [runtime_of(name) for name in ("model.onnx", "model.int8.tflite", "a/model.openvino.xml", "model", "x.pte")]
    assert found == ["onnxruntime", "ai_edge_litert", "openvino", "onnxruntime", "onnxruntime"]


def test_a_file_of_litert_takes_inputs_in_order_one_after_the_other(litert):
    session = open_other("model.tflite", 2)
    assert session.get_inputs() == [Given(f"args_{place}", "tensor(int32)", [1, 3]) for place in (0, 1)]
    ids, mask = np.array([[5, 6, 7], [8, 9, 1]]), np.array([[1, 1, 0], [1, 0, 0]])
    (found,) = session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
    assert found.tolist() == [[11, 2], [8, 1]]
    assert version_of("model.tflite") == litert  # a module without a package has no version


def test_without_either_of_litert_the_import_fails(litert, monkeypatch):
    monkeypatch.setitem(sys.modules, f"{litert}.interpreter", None)
    with pytest.raises(ImportError):
        import_runtime("model.tflite")


def test_a_file_of_openvino_is_described_and_run_as_a_session_is(image_student, tmp_path):
    if FORMATS["openvino"].missing():
        pytest.skip(FORMATS["openvino"].missing())
    for suffix, data in FORMATS["openvino"].build(image_student.source, ExportConfig()).items():
        (tmp_path / f"model{suffix}").write_bytes(data)
    session = open_other(str(tmp_path / "model.xml"), 1)
    images = image_student.splits.validation.images[:7].numpy()
    expected = runner(image_student.path)(images)
    assert session.get_inputs() == [Given("images", "tensor(float)", [None, *images.shape[1:]])]
    for names in (None, ["logits"]):
        (found,) = session.run(names, {"images": images})
        assert found == pytest.approx(expected, abs=1e-4)
    assert version_of("model.xml").startswith("openvino ")


def test_importing_openvino_there_hides_its_telemetry(monkeypatch):
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace())
    import_runtime("model.xml")
    assert sys.modules["openvino_telemetry"] is None
