"""A bundle of several formats, its default 8-bit; those for ONNX Runtime behind the interface for images."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from edgestill.export.bundle.manifest import MANIFEST, manifest_bytes
from edgestill.export.bundle.predict import predict
from edgestill.export.bundle.probes import open_model
from edgestill.export.bundle.read import open_bundle
from edgestill.export.bundle.verify import verify
from edgestill.export.onnx.sessions import open_session, to_pixels
from edgestill.pipeline.errors import ExportError


@pytest.fixture(scope="module")
def images(image_student):
    """Validation images on the grid of bytes, float32 [N, C, H, W] in [0, 1]."""
    given = image_student.splits.validation.images[:24].clamp(0, 1).numpy()
    return np.ascontiguousarray((to_pixels(given) / np.float32(255)).transpose(0, 3, 1, 2))


def test_every_format_takes_the_image_and_answers_as_the_same_format_without(bundle_of_formats, image_student, images):
    models = bundle_of_formats.bundle.models
    for name in ("fp32", "fp16", "int8"):
        model = models[name]
        session = open_session(bundle_of_formats.folder / model.file)
        assert session.get_inputs()[0].type == "tensor(uint8)"
        assert [output.name for output in session.get_outputs()] == ["probabilities", "logits"]
        logits = session.run(["logits"], {"image": to_pixels(images)})[0]
        assert open_model(bundle_of_formats.folder, model)(images) == pytest.approx(logits, abs=1e-6)
        assert model.interface == "image"
    raw = open_session(image_student.path).run(["logits"], {"images": images})[0]
    assert open_model(bundle_of_formats.folder, models["fp32"])(images) == pytest.approx(raw, abs=1e-5)


def test_a_format_of_two_files_travels_whole(bundle_of_formats, copy_of, image_student, images):
    """Another runtime's takes the image too, through the same operators."""
    if "openvino" not in bundle_of_formats.bundle.models:
        pytest.skip("openvino is not installed")
    model = bundle_of_formats.bundle.models["openvino"]
    assert model.interface == "image"
    assert model.bytes == sum(
        (bundle_of_formats.folder / f"model.openvino{s}").stat().st_size for s in (".xml", ".bin")
    )
    raw = open_session(image_student.path).run(["logits"], {"images": images})[0]
    assert open_model(bundle_of_formats.folder, model, trusted=True)(images) == pytest.approx(raw, abs=1e-4)
    openvino = pytest.importorskip("openvino")
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # a processor with bfloat16 would round to that by default
    compiled = openvino.Core().compile_model(bundle_of_formats.folder / model.file, "CPU", exact)
    answers = compiled({"image": to_pixels(images)})
    assert answers["probabilities"].sum(1) == pytest.approx(np.ones(len(images)), abs=1e-5)
    assert answers["logits"] == pytest.approx(raw, abs=1e-4)
    folder = copy_of(bundle_of_formats)
    (folder / "model.openvino.bin").unlink()
    assert verify(folder).problems == ("model.openvino.bin is missing",)


def test_a_file_that_is_a_program_runs_for_a_known_signer_alone(bundle_of_formats):
    entry = bundle_of_formats.bundle.models["fp32"]
    for name, file in (
        ("executorch", "model.executorch.pte"),
        ("openvino", "model.openvino.xml"),
        ("litert", "model.litert.tflite"),
        ("ort_int8", "model.ort_int8.ort"),
    ):
        program = entry.model_copy(update={"file": file, "format": name, "runtime": name})
        with pytest.raises(ExportError, match="is a program; give --public-key"):
            open_model(bundle_of_formats.folder, program)


def test_verify_reruns_each_format(bundle_of_formats):
    verdict = verify(bundle_of_formats.folder)
    assert verdict.problems == ()
    for file in ("model.onnx", "model.fp16.onnx", "model.int8.onnx"):
        assert any(fact.startswith(f"{file}: logits within") for fact in verdict.facts)
    if "openvino" in bundle_of_formats.bundle.models:
        assert any(fact.startswith("not run here: model.openvino.xml: a file of openvino is") for fact in verdict.facts)


def test_a_file_that_its_runtime_refuses_is_a_difference_and_one_without_its_runtime_is_not(
    bundle_of_formats, copy_of, monkeypatch
):
    from edgestill.export.formats import FORMATS

    if "openvino" not in bundle_of_formats.bundle.models:
        pytest.skip("openvino is not installed")
    monkeypatch.setattr(FORMATS["openvino"], "is_program", False)  # as where the signer is known
    folder = copy_of(bundle_of_formats)
    data = (folder / "model.openvino.xml").read_bytes()
    (folder / "model.openvino.xml").write_bytes(b" " * len(data))
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}
    (folder / MANIFEST).write_bytes(manifest_bytes(files))
    (problem,) = verify(folder).problems
    assert problem.startswith("model.openvino.xml is refused by openvino")
    monkeypatch.setattr(FORMATS["openvino"], "missing", lambda: "it is not installed")
    verdict = verify(folder)
    assert verdict.problems == ()
    assert "not run here: model.openvino.xml: it is not installed" in verdict.facts


def test_predict_and_run_py_take_the_8_bit_default(bundle_of_formats, images, tmp_path):
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, images["ab".index(name[0])].transpose(1, 2, 0))
    paths = [str(tmp_path / name) for name in ("a.npy", "b.npy")]
    with open_bundle(bundle_of_formats.folder) as opened:
        default, chosen = predict(opened, paths), predict(opened, paths, "int8")
        others = predict(opened, paths, "fp32")
    assert default == chosen
    assert [a.probability for a in default] != [a.probability for a in others]
    command = [sys.executable, "-I", str(bundle_of_formats.folder / "run.py"), *paths]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.splitlines() == [f"{path}: {answer.label}" for path, answer in zip(paths, default, strict=True)]


def test_a_format_in_anothers_place_is_found(bundle_of_formats, copy_of):
    folder = copy_of(bundle_of_formats)
    shutil.copyfile(folder / "model.fp16.onnx", folder / "model.int8.onnx")
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}
    (folder / MANIFEST).write_bytes(manifest_bytes(files))
    assert any("the model int8 has" in problem for problem in verify(folder).problems)


def test_profiling_all_models_says_which_it_leaves_out(bundle_of_formats, tmp_path):
    from edgestill.flows.profile import profile, settings_of

    if "openvino" not in bundle_of_formats.bundle.models:
        pytest.skip("openvino is not installed")
    settings = settings_of(
        "1", "1", None, duration_s=0.1, repeats=1, warmup_s=0, examples=None, length=0, spinning=False, seed=0
    )
    said: list[str] = []
    printed = profile(bundle_of_formats.folder, "all", None, settings, tmp_path / "p.json", said.append, "again")
    assert "openvino is left out: it runs in openvino, which this does not measure" in said
    assert "fp16" in printed
    assert "openvino" not in printed


def test_a_flipped_byte_of_any_format_is_found_before_the_file_is_opened(bundle_of_formats, copy_of, monkeypatch):
    """Those of other runtimes among them, whose files nothing here checks but the manifest."""
    from edgestill.export.formats.ort import OrtFile

    monkeypatch.setattr(OrtFile, "is_program", False)  # as where the signer is known
    monkeypatch.setattr(OrtFile, "open", lambda *given: pytest.fail("it was opened"))
    folder, rng = copy_of(bundle_of_formats), np.random.default_rng(0)
    for path in sorted(folder.glob("model.*")):
        whole = path.read_bytes()
        for place in rng.integers(0, len(whole), 3):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert f"{path.name} was altered: its SHA-256 is not the manifest's" in verify(folder).problems
        path.write_bytes(whole)


def test_a_signers_own_format_is_run_for_who_knows_the_signer(bundle_of_formats, copy_of):
    from edgestill.export.bundle.sign import make_keys, sign_manifest

    private, public = make_keys()
    folder = copy_of(bundle_of_formats)
    (folder / "manifest.sig").write_bytes(sign_manifest((folder / MANIFEST).read_bytes(), private)[0])
    verdict = verify(folder, public)
    assert verdict.problems == ()
    assert any(fact.startswith("model.ort_int8.ort: logits within") for fact in verdict.facts)
