"""Core ML's files: made here, computed by an interpreter of the tests, never shipped unless their runtime is here."""

import io
import sys
import zipfile
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from mil import run_program

from edgestill.export.build import Folder, Reference, build_formats
from edgestill.export.conformance import QUICK
from edgestill.export.evaluate import answers_of
from edgestill.export.formats import FORMATS, coreml
from edgestill.export.onnx.sessions import runner
from edgestill.pipeline.errors import ExportError

pytestmark = pytest.mark.engines
NAMES = ("coreml", "coreml_w8")


@pytest.fixture(scope="module")
def coremltools():
    return pytest.importorskip("coremltools")


@pytest.fixture(scope="module")
def files(coremltools, image_student):
    return {name: FORMATS[name].build(image_student.source, QUICK)[".mlpackage.zip"] for name in NAMES}


@pytest.fixture
def opened(coremltools, files, tmp_path):
    def load(name):
        zipfile.ZipFile(io.BytesIO(files[name])).extractall(tmp_path / name)
        return coremltools.models.MLModel(str(tmp_path / name / "model.mlpackage"), skip_model_load=True)

    return load


def test_the_program_of_a_file_gives_the_networks_logits(opened, image_student):
    images = image_student.splits.validation.images[:64].numpy()
    expected = runner(image_student.path)(images)
    largest = float(np.abs(expected).max())
    for name, share in (("coreml", 0.005), ("coreml_w8", 0.03)):
        found = run_program(opened(name), {"images": images})
        assert list(found) == ["logits"]
        assert 0 < np.abs(found["logits"] - expected).max() < share * largest


def test_it_takes_floats_in_any_batch_and_gives_floats(opened):
    for name in NAMES:
        description = opened(name).get_spec().description
        (given,), (made,) = description.input, description.output
        side = given.type.multiArrayType.shapeRange.sizeRanges[0]
        assert (given.name, made.name, side.lowerBound, side.upperBound) == ("images", "logits", 1, 64)
        assert given.type.multiArrayType.dataType == made.type.multiArrayType.dataType == 65568  # float32


def test_weights_have_16_or_8_bits_and_nothing_else_is_packed(files):
    sizes = {}
    for name, data in files.items():
        packed = {one.filename: one for one in zipfile.ZipFile(io.BytesIO(data)).infolist()}
        assert len(packed) == 3
        sizes[name] = packed["model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"].file_size
        assert {one.date_time for one in packed.values()} == {(1980, 1, 1, 0, 0, 0)}
    assert sizes["coreml_w8"] < 0.7 * sizes["coreml"]


def test_a_run_has_the_file_and_ships_nothing_of_it(coremltools, image_student, tmp_path, monkeypatch):
    monkeypatch.setattr(coreml, "_runs_here", lambda: False)
    fp32 = Reference(image_student.path, answers_of(runner(image_student.path), image_student.splits.validation))

    def write(name, data):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    config = QUICK.model_copy(update={"formats": ("fp32", "coreml")})
    folder = Folder(tmp_path, write)
    built, (absent,) = build_formats(
        image_student.source, fp32, image_student.splits, config, folder, lambda *told: None
    )
    assert built == {}
    assert absent.skipped
    assert absent.reason.startswith("student.coreml.mlpackage.zip is made and not run here: Core ML runs on Apple's")
    assert zipfile.is_zipfile(tmp_path / "student.coreml.mlpackage.zip")
    with pytest.raises(ExportError, match="Core ML runs on Apple's systems alone"):
        FORMATS["coreml"].open(tmp_path / "student.coreml.mlpackage.zip", 1)


def test_on_a_mac_it_runs_as_every_other_format(files, tmp_path, monkeypatch):
    """Beside a double of the library's model, which is given the package's folder and as many inputs as it takes."""
    asked = []

    class Model:
        def __init__(self, path, compute_units):
            asked.append(sorted(part.name for part in zipfile.Path(tmp_path / "m.zip", "model.mlpackage/").iterdir()))

        def predict(self, given):
            asked.append(len(given["images"]))
            return {"logits": given["images"].sum((1, 2, 3))[:, None].repeat(4, 1)}

    library = ModuleType("coremltools")
    library.models, library.ComputeUnit = SimpleNamespace(MLModel=Model), SimpleNamespace(CPU_ONLY=0)
    library.__spec__ = ModuleSpec("coremltools", None)
    monkeypatch.setitem(sys.modules, "coremltools", library)
    monkeypatch.setattr(coreml, "_runs_here", lambda: True)
    assert FORMATS["coreml"].missing() is None
    assert not FORMATS["coreml"].is_made_unrun()
    (tmp_path / "m.zip").write_bytes(files["coreml"])
    images = np.ones((100, 3, 2, 2), np.float32)
    assert (FORMATS["coreml"].open(tmp_path / "m.zip", 1)(images) == 12).all()
    assert asked == [["Data", "Manifest.json"], 64, 36]


def test_without_the_library_it_is_missing_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert FORMATS["coreml"].missing() == "coremltools is not installed; `pip install 'edgestill[coreml]'`"
    assert not FORMATS["coreml"].is_made_unrun()
