"""`edgestill export` of a bundle or an ONNX file: formats beside it, compared with it, and reasons for the others."""

import numpy as np
import onnx
import pytest
from onnx import helper

from edgestill.export.onnx.sessions import open_session, runner
from edgestill.flows.cli.main import execute


@pytest.fixture
def elsewhere(image_student, tmp_path):
    """An ONNX file whose ends have other names, and 64 real inputs."""
    model = onnx.load(image_student.path)
    graph = model.graph
    graph.input[0].name, graph.output[0].name = "x", "scores"
    for node in graph.node:
        node.input[:] = ["x" if name == "images" else name for name in node.input]
        node.output[:] = ["scores" if name == "logits" else name for name in node.output]
    onnx.save(model, tmp_path / "theirs.onnx")
    np.save(tmp_path / "inputs.npy", image_student.source.calibration)
    return tmp_path / "theirs.onnx", tmp_path / "inputs.npy"


def test_formats_of_an_onnx_file_answer_as_it_does(elsewhere, image_student, tmp_path, capsys):
    path, inputs = elsewhere
    to = tmp_path / "made"
    asked = ["export", str(path), "--formats", "int8,ort_int8,executorch", "--inputs", str(inputs), "--to", str(to)]
    assert execute(asked) == 0
    told = capsys.readouterr().out
    lines = {line.split()[0].strip(":"): line for line in told.splitlines()}
    assert list(lines) == ["fp32", "int8", "ort_int8", "executorch"]
    assert "answers as fp32 on 100.00% of" in lines["fp32"]
    assert "executorch skipped: " in lines["executorch"]
    images = image_student.source.calibration
    assert runner(to / "model.onnx")(images) == pytest.approx(runner(image_student.path)(images))
    assert open_session(to / "model.ort_int8.ort", written_as="ORT").get_inputs()[0].name == "images"
    assert (to / "model.int8.onnx").exists()


def test_8_bits_are_calibrated_on_real_examples_or_not_made(elsewhere, tmp_path, capsys):
    assert execute(["export", str(elsewhere[0]), "--formats", "int8,fp16", "--to", str(tmp_path / "made")]) == 0
    told = capsys.readouterr().out
    assert "int8 skipped: it is calibrated on real examples: give --inputs FILE.npy" in told
    assert "fp16: model.fp16.onnx" in told


def test_formats_of_a_bundle_go_to_a_folder_of_their_own(bundles, tmp_path, capsys):
    folder = bundles(3).folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert execute(["export", str(folder), "--formats", "ort_fp32", "--to", str(tmp_path / "made")]) == 0
    assert "ort_fp32: model.ort_fp32.ort, model.ort_fp32.config" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "name the formats to make with --formats"),
        (["--formats", "int9"], "unknown format 'int9'"),
        (["--formats", "fp16", "--set", "seed=1"], "--set changes a run's settings"),
    ],
)
def test_an_option_that_cannot_be_is_refused(elsewhere, options, problem, capsys):
    assert execute(["export", str(elsewhere[0]), *options]) == 2
    assert problem in capsys.readouterr().err


def test_options_of_files_are_refused_for_a_run(tmp_path, capsys):
    assert execute(["export", "latest", "--to", str(tmp_path)]) == 2
    assert "--to is for a bundle or an ONNX file" in capsys.readouterr().err


def test_a_folder_with_something_in_it_is_not_written_to(elsewhere, tmp_path, capsys):
    assert execute(["export", str(elsewhere[0]), "--formats", "fp16", "--to", str(tmp_path)]) == 2
    assert "is there already and not empty" in capsys.readouterr().err


@pytest.mark.parametrize("ends", ["two inputs", "one batch"])
def test_a_file_with_other_ends_is_refused(ends, tmp_path, capsys):
    sides = [2, 3] if ends == "one batch" else ["batch", 3]
    given = [helper.make_tensor_value_info(name, 1, sides) for name in ("a", "b")[: 2 if ends == "two inputs" else 1]]
    made = helper.make_tensor_value_info("y", 1, sides)
    node = helper.make_node("Add" if ends == "two inputs" else "Relu", [value.name for value in given], ["y"])
    graph = helper.make_graph([node], "other", given, [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "other.onnx")
    assert execute(["export", str(tmp_path / "other.onnx"), "--formats", "fp16", "--to", str(tmp_path / "made")]) == 1
    assert ("a classifier has one input" if ends == "two inputs" else "one size alone") in capsys.readouterr().err
