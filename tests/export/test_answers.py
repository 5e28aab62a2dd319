"""A processor that computes INT8 otherwise is found by verify, run.py and the profile, by the probes in the bundle."""

import ast
import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load, save

from edgestill.export.bundle.manifest import MANIFEST, manifest_bytes
from edgestill.export.bundle.scripts.join import PROFILE, run_script
from edgestill.export.bundle.verify import verify
from edgestill.export.bundle.write import write_bundle
from edgestill.export.calibration import CalibrationConfig
from edgestill.export.config import ExportConfig
from edgestill.export.device.answers import OTHERWISE, int8_note, off_by, open_default, probe_feed, read_probe_file
from edgestill.export.device.facts import byte_products
from edgestill.export.formats import FORMATS
from edgestill.export.onnx.interface import describe_input, describe_output
from edgestill.export.onnx.saturation import saturates_here
from edgestill.export.onnx.sessions import open_session


@pytest.fixture
def elsewhere(bundle_of_formats, copy_of):
    """A bundle from a processor that saturates otherwise than this one: its INT8 logits were a tenth larger there."""
    folder = copy_of(bundle_of_formats)
    probes = load((folder / "probes.safetensors").read_bytes())
    (folder / "probes.safetensors").write_bytes(save(probes | {"int8": probes["int8"] * np.float32(1.1)}))
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}
    (folder / MANIFEST).write_bytes(manifest_bytes(files))
    return folder


@pytest.fixture(scope="module")
def of_8_bits(bundle_of_formats, image_student, tmp_path_factory):
    """A bundle whose INT8 file saturates where there is no VNNI."""
    folder = tmp_path_factory.mktemp("eight")
    config = ExportConfig(calibration=CalibrationConfig(method="minmax"), weight_bits=8)
    data = FORMATS["int8"].build(image_student.source, config)[".onnx"]
    files = {"model.onnx": image_student.path.read_bytes(), "model.int8.onnx": data}
    models = {
        name: bundle_of_formats.bundle.models[name].model_copy(update={"bytes": len(files[file]), "interface": "raw"})
        for name, file in (("fp32", "model.onnx"), ("int8", "model.int8.onnx"))
    }
    task = bundle_of_formats.bundle.task
    about = {"interface": "raw", "input": describe_input(task), "output": describe_output(task), "models": models}
    for name, contents in files.items():
        (folder / name).write_bytes(contents)
    (folder / "bundle").mkdir()
    paths = {name: folder / name for name in files}
    write_bundle(folder / "bundle", bundle_of_formats.bundle.model_copy(update=about), paths)
    return folder / "bundle"


def test_a_file_that_saturates_is_found_where_it_does(of_8_bits, tmp_path):
    """Whatever processor made the bundle, this one among them: stored are the exact answers."""
    problems, said = verify(of_8_bits).problems, answer(of_8_bits, tmp_path).stderr
    assert [problem.endswith(OTHERWISE) for problem in problems] == [True] * saturates_here()
    assert (OTHERWISE in said) == saturates_here()


def entry(folder, name):
    return json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["models"][name]


def answer(folder, tmp_path):
    np.save(tmp_path / "image.npy", np.random.default_rng(0).random((12, 12, 3), dtype=np.float32))
    command = [sys.executable, "-I", str(folder / "run.py"), str(tmp_path / "image.npy")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def test_verify_says_that_this_processor_computes_int8_differently(elsewhere):
    (problem,) = verify(elsewhere).problems
    assert problem.startswith("model.int8.onnx: logits within ")
    assert problem.endswith(OTHERWISE)


def test_run_py_says_so_and_answers_by_fp32(elsewhere, bundle_of_formats, tmp_path):
    said, silent = answer(elsewhere, tmp_path), answer(bundle_of_formats.folder, tmp_path)
    assert said.stderr.startswith(f"note: model.int8.onnx: {OTHERWISE} (logits are off by up to ")
    assert said.stderr.endswith("; model.onnx answers instead\n")
    assert silent.stderr == ""
    card = json.loads((elsewhere / "bundle.json").read_text(encoding="utf-8"))
    images = read_probe_file(elsewhere / "probes.safetensors")["inputs"]
    found = (session := open_default(elsewhere, card)).run(["logits"], probe_feed(session, images))[0]
    assert np.array_equal(found, read_probe_file(elsewhere / "probes.safetensors")["fp32"])


def test_without_an_fp32_file_it_warns_and_answers_all_the_same(elsewhere, capsys):
    card = json.loads((elsewhere / "bundle.json").read_text(encoding="utf-8"))
    (elsewhere / "model.onnx").unlink()
    open_default(elsewhere, card)
    assert capsys.readouterr().err.startswith(f"warning: model.int8.onnx: {OTHERWISE}")


def test_a_profile_warns_of_it(elsewhere, tmp_path):
    from edgestill.flows.profile import profile, settings_of

    settings = settings_of(
        "1", "1", None, duration_s=0.05, repeats=1, warmup_s=0, examples=None, length=0, spinning=False, seed=0
    )
    printed = profile(elsewhere, "int8", None, settings, tmp_path / "p.json", lambda line: None, "again")
    assert OTHERWISE in " ".join(printed.split())
    assert OTHERWISE in json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))["warnings"][-1]
    command = [sys.executable, str(elsewhere / PROFILE), "--model", "int8", "--duration", "0.05", "--repeats", "1"]
    out = tmp_path / "q.json"
    subprocess.run([*command, "--out", str(out)], capture_output=True, timeout=60, check=True)
    assert OTHERWISE in json.loads(out.read_text(encoding="utf-8"))["warnings"][-1]


def test_other_precisions_are_not_compared_by_the_scripts(elsewhere):
    assert int8_note(entry(elsewhere, "fp32"), elsewhere) == ""
    assert int8_note(entry(elsewhere, "int8"), elsewhere) != ""


def test_the_limit_is_a_twentieth_of_the_largest_logit_and_nan_is_beyond_it():
    expected = np.array([[4.0, -20.0]], np.float32)
    assert off_by(expected + np.float32(0.99), expected, 0.05) == ""
    assert off_by(expected + np.float32(1.01), expected, 0.05).endswith("on 1 probe inputs, 1 is allowed")
    assert "nan" in off_by(expected * np.nan, expected, 0.05)
    assert "inf" in off_by(expected[:, :1], expected, 0.05)


# Reading safetensors without their library


def test_tensors_are_read_as_their_library_reads_them(bundle_of_formats):
    path = bundle_of_formats.folder / "probes.safetensors"
    expected, found = load(path.read_bytes()), read_probe_file(path)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], values) for name, values in expected.items())


def packed(header, numbers=b"\0" * 8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


def one(**changes):
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


BROKEN = {
    "nothing": b"",
    "a length beyond the file": (2**63).to_bytes(8, "little") + b"{}",
    "no JSON": packed(b"{"),
    "nesting without end": packed(b"[" * 100_000),
    "a list": packed([]),
    "a tensor of another kind": packed(one(dtype="BOOL")),
    "a tensor beyond the file": packed(one(data_offsets=[0, 16])),
    "a tensor that ends before it begins": packed(one(data_offsets=[8, 0])),
    "a negative beginning": packed(one(data_offsets=[-8, 8])),
    "a shape that is larger": packed(one(shape=[10**9, 10**9])),
    "a negative side": packed(one(shape=[-1, -2])),
    "a fraction": packed(one(shape=[2.0])),
    "words for numbers": packed(one(data_offsets=["0", "8"])),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_probes_are_an_unknown_and_no_crash(name, bundle_of_formats, copy_of):
    folder = copy_of(bundle_of_formats)
    (folder / "probes.safetensors").write_bytes(BROKEN[name])
    with pytest.raises((OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)):
        read_probe_file(folder / "probes.safetensors")
    note = int8_note(entry(folder, "int8"), folder, open_session(folder / "model.int8.onnx"))
    assert note.startswith("whether INT8 is computed here as it was at its maker's is not known")


# What ships


@pytest.mark.parametrize("file", ["run_images.py", "run_texts.py"])
def test_a_script_of_two_modules_defines_no_name_twice_and_begins_with_what_it_is(file):
    tree = ast.parse(run_script(file))
    names = [node.name for node in tree.body if hasattr(node, "name")]
    assert len(names) == len(set(names))
    assert ast.get_docstring(tree).startswith("Prints the label of ")
    assert "export." not in {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def test_the_instruction_sets_are_those_that_the_system_tells(tmp_path):
    (tmp_path / "proc").mkdir()
    for line, expected in (
        ("flags\t\t: fpu ssse3 avx2 rdpid", ("SSSE3", "AVX2")),
        ("flags\t\t: ssse3 avx2 avx512bw avx512_vnni", ("SSSE3", "AVX2", "AVX-512", "AVX-512 VNNI")),
        ("Features\t: fp asimd asimddp", ("Neon", "Neon dot product")),
    ):
        (tmp_path / "proc/cpuinfo").write_text(f"model name\t: a CPU\n{line}\n")
        assert byte_products(tmp_path) == expected
    (tmp_path / "proc/cpuinfo").unlink()
    assert len(byte_products(tmp_path)) == 1  # the architecture
