"""Every format of the table: the same function in another form, or a reason; and calibrations that are refused."""

import dataclasses
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgestill.export.calibration import MIN_EXAMPLES, CalibrationConfig, calibration_examples, require_sound
from edgestill.export.config import ExportConfig
from edgestill.export.conformance import CHECKS, QUICK, require_same_function
from edgestill.export.formats import FORMATS, Source
from edgestill.export.onnx.quantize import METHODS
from edgestill.export.onnx.sessions import open_session, runner
from edgestill.export.onnx.write import to_onnx
from edgestill.export.parity import measure_parity, require_fp16_parity
from edgestill.pipeline.conformance.suite import NotHereError
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.input_kind import Images
from edgestill.pipeline.networks.network import Normalize


@pytest.fixture(scope="module")
def built(image_student, tmp_path_factory):
    """Name to (format, path) of each format that can be built here."""
    found = {}
    for name, form in FORMATS.items():
        if form.missing() is not None:
            continue
        folder = tmp_path_factory.mktemp(name)
        for suffix, data in form.build(image_student.source, QUICK).items():
            (folder / f"model{suffix}").write_bytes(data)
        found[name] = form, folder / f"model{form.suffix}"
    return found


@pytest.fixture(scope="module")
def models(built):
    return {name: onnx.load(path) for name, (_, path) in built.items() if path.suffix == ".onnx"}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_format_passes(check, name):
    try:
        check(FORMATS[name])
    except NotHereError as reason:
        pytest.skip(str(reason))


def test_the_table_says_of_each_format_what_it_is():
    for name, form in FORMATS.items():
        assert form.name == name
        assert form.precision in {"fp32", "fp16", "int8"}
        assert form.suffix.startswith(".")
        assert form.suffix == ".onnx" or form.adds_interface or form.interface("image") == "raw"
        assert form.interface("image") == "image" or not form.is_cpu_onnx
        assert form.is_program == (form.suffix != ".onnx")
        assert not (form.is_program and form.is_cpu_onnx)


def test_export_takes_the_keys_of_each_format_and_no_two_formats_declare_the_same():
    declared = [name for kind in {form.Config for form in FORMATS.values()} for name in kind.model_fields]
    assert sorted(declared) == ["calibration", "executorch", "int8", "tensorrt", "weight_bits"]
    assert set(ExportConfig.model_fields) == {*declared, "interface", "opset", "formats", "gate"}


def test_export_reads_every_key_that_a_run_has_kept():
    kept = {
        "interface": "image",
        "opset": 21,
        "formats": ["fp32", "tensorrt_int8", "executorch"],
        "calibration": {"method": "percentile", "percentile": 99.9, "examples": 64},
        "weight_bits": 8,
        "gate": {"max_accuracy_drop": 0.01, "min_speedup": 1.1, "min_shrink": 2.0, "max_slowdown": 1.5},
        "tensorrt": {"optimal_batch": 2, "max_batch": 16},
        "executorch": {"max_batch": 1},
    }
    assert ExportConfig.model_validate(kept).model_dump(mode="json") == kept


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_computes_the_student_whatever_the_batch(name, built, image_student):
    if name not in built:
        pytest.skip(FORMATS[name].missing())
    form, path = built[name]
    images = image_student.splits.validation.images.numpy()
    require_same_function(form, form.open(path, 1), runner(image_student.path), images)


def test_every_onnx_file_takes_and_gives_float32_and_is_valid(models):
    for model in models.values():
        onnx.checker.check_model(model, full_check=True)
        (taken,), (given,) = model.graph.input, model.graph.output
        assert (taken.name, given.name) == ("images", "logits")
        assert {v.type.tensor_type.elem_type for v in (taken, given)} == {onnx.TensorProto.FLOAT}
        assert {imported.domain for imported in model.opset_import} == {""}


def test_fp16_halves_the_weights(built, models, image_student):
    kinds = Counter(tensor.data_type for tensor in models["fp16"].graph.initializer if np.prod(tensor.dims) > 1)
    assert set(kinds) <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    assert built["fp16"][1].stat().st_size < 0.7 * image_student.path.stat().st_size
    splits = {"validation": image_student.splits.validation}
    parity = measure_parity(runner(image_student.path), runner(built["fp16"][1]), splits, Images((3, 12, 12)))
    assert 0 < parity.relative_difference < 1e-2
    require_fp16_parity(parity)


def zero_points(model, kind):
    """Of each node of a kind, the array of its zero points."""
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return [arrays[node.input[2]] for node in model.graph.node if node.op_type == kind and len(node.input) > 2]


def test_int8_has_unsigned_activations_and_a_scale_for_each_channel_of_its_weights(models):
    model = models["int8"]
    assert {z.dtype for z in zero_points(model, "QuantizeLinear")} == {np.dtype("uint8")}
    weights = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and np.prod(t.dims) > 50]
    assert len(weights) == sum(node.op_type in ("Conv", "Gemm") for node in model.graph.node)
    per_channel = [z for z in zero_points(model, "DequantizeLinear") if z.dtype == np.int8]
    assert {z.size for z in per_channel} == {8, 12, 16, 4}  # each layer's output channels, the classes among them
    assert all(not z.any() for z in per_channel)


def test_int8_for_tensorrt_is_symmetric_with_float_weights_and_biases(models):
    model = models["int8_tensorrt"]
    found = [*zero_points(model, "QuantizeLinear"), *zero_points(model, "DequantizeLinear")]
    assert {z.dtype for z in found} == {np.dtype("int8")}
    assert not any(z.any() for z in found)
    assert not [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT32]  # no quantised bias
    written = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 4}
    quantised = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert written
    assert written <= quantised  # behind a pair of Q and DQ


def test_each_calibration_method_gives_another_file(image_student):
    auto = ExportConfig(calibration=CalibrationConfig(method="auto", percentile=90.0))
    variants = dict(FORMATS["int8"].variants(image_student.source, auto))
    assert tuple(variants) == METHODS
    assert variants["minmax"] != variants["percentile"]


def test_a_text_student_has_both_precisions(small_space, make_token_task, make_split, tmp_path):
    task, space = make_token_task(), small_space("text_transformer")
    student = space.build(list(space.all_architectures())[-1], task).eval()
    path = tmp_path / "student.onnx"
    path.write_bytes(to_onnx(student, task.inputs, 20))
    reference = dataclasses.replace(make_split(task, 64, seed=3), role="reference")
    source = Source(path, student, task, calibration_examples(reference, 64))
    expected = runner(path)(source.calibration)
    for name, moved in (("fp16", 0.02), ("int8", 0.5)):
        data = FORMATS[name].build(source, QUICK)[".onnx"]
        model = onnx.load_from_string(data)
        assert [taken.name for taken in model.graph.input] == ["input_ids", "attention_mask"]
        logits = runner(data)(source.calibration)
        assert np.abs(logits - expected).max() <= moved * np.abs(expected).max()
        assert runner(data)(source.calibration[:1, :3]).shape == (1, task.num_classes)
    (table,) = [t for t in model.graph.initializer if tuple(t.dims)[:1] == (task.vocab_size,)]
    assert table.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


def test_a_network_without_a_product_to_quantise_is_refused_as_unchanged(make_task, image_student, tmp_path):
    class Means(nn.Module):
        def __init__(self):
            super().__init__()
            self.normalize = Normalize((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))

        def forward(self, images):
            return self.normalize(images).mean((2, 3))

    path = tmp_path / "means.onnx"
    path.write_bytes(to_onnx(Means(), Images((3, 12, 12)), 20))
    source = dataclasses.replace(image_student.source, onnx=path)
    with pytest.raises(ExportError, match="changed nothing"):
        FORMATS["int8"].build(source, QUICK)


def test_a_session_takes_other_providers(image_student):
    session = open_session(image_student.path, 1, ("CPUExecutionProvider",))
    assert session.get_providers() == ["CPUExecutionProvider"]


# Broken calibrations


def spoilt(image_student, change):
    return dataclasses.replace(image_student.source, calibration=change(image_student.source.calibration.copy()))


def with_nan(images):
    images[3, 0, 2, 2] = np.nan
    return images


BROKEN = {
    "one image 64 times": (lambda x: np.repeat(x[:1], 64, axis=0), "are all alike"),
    "constants": (lambda x: np.full_like(x, 0.5), "are all alike"),
    "not a number": (with_nan, "1 of 64 calibration examples hold NaN"),
    "bytes": (lambda x: x * 255, r"run from .* to .*; the file takes \[0, 1\]"),
    "normalised already": (lambda x: (x - 0.5) / 0.25, r"the file takes \[0, 1\] and normalises itself"),
    "divided by 255 twice": (lambda x: x / 255, "not like the training data: channel 0 has mean 0.00"),
    "inverted": (lambda x: np.clip(0.25 * (1 - x), 0, 1), "not like the training data"),
    "too few": (lambda x: x[: MIN_EXAMPLES - 1], f"has 31 examples and needs {MIN_EXAMPLES}"),
    "another size": (lambda x: x[..., :-1], r"shape \[3, 12, 11\], not \[3, 12, 12\]"),
    "doubles": (lambda x: x.astype(np.float64), "are float64"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("form", ["int8", "int8_tensorrt"])
def test_a_broken_calibration_is_refused_with_its_reason(name, form, image_student):
    change, reason = BROKEN[name]
    with pytest.raises(ExportError, match=reason):
        FORMATS[form].build(spoilt(image_student, change), QUICK)


def test_token_ids_outside_the_vocabulary_are_refused(make_token_task):
    task = make_token_task()
    ids = np.random.default_rng(0).integers(1, 20, (64, *task.input_shape))
    require_sound(ids, task)
    ids[5, 0] = 20
    with pytest.raises(ExportError, match="ids 1 to 20; the vocabulary has 20"):
        require_sound(ids, task)
    with pytest.raises(ExportError, match="are float32; token ids are int64"):
        require_sound(ids.astype(np.float32), task)


@pytest.mark.parametrize("role", ["test", "validation", "train", ""])
def test_calibration_sees_no_other_split_than_reference(role, image_student):
    split = dataclasses.replace(image_student.splits.reference, role=role)
    with pytest.raises(ExportError, match=f"reference split alone, and was given '{role}'"):
        calibration_examples(split, 32)


def test_calibration_takes_at_most_what_it_is_told(image_student):
    assert len(calibration_examples(image_student.splits.reference, 40)) == 40
    assert len(calibration_examples(image_student.splits.reference, 4000)) == 64


def test_a_calibration_too_narrow_to_notice_costs_what_the_gate_sees(image_student):
    """Within [0, 1] and near the training data's mean, and yet without contrast: the ranges clip the true inputs."""
    flat = spoilt(image_student, lambda x: 0.02 * (x - x.mean()) + x.mean())
    data = FORMATS["int8"].build(flat, QUICK)[".onnx"]
    images, targets = image_student.splits.validation.images.numpy(), image_student.splits.validation.targets.numpy()
    assert (runner(image_student.path)(images).argmax(1) == targets).mean() > 0.9
    assert (runner(data)(images).argmax(1) == targets).mean() < 0.8
    assert torch.isfinite(torch.from_numpy(runner(data)(images))).all()
