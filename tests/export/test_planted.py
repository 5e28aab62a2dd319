"""Failures planted in real files, each caught by the stages' own code with the right reason."""

import copy
import dataclasses
import time
from functools import partial

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgestill.export import build as building
from edgestill.export.build import Folder, Reference, build_formats, source_of
from edgestill.export.calibration import CalibrationConfig
from edgestill.export.config import ExportConfig, ProfileConfig
from edgestill.export.device.facts import byte_products
from edgestill.export.evaluate import answers_of, evaluate_file, evaluate_run
from edgestill.export.formats import FORMATS, Format
from edgestill.export.formats.int8 import Int8
from edgestill.export.gate import Limits
from edgestill.export.onnx.quantize import FOR_CPU
from edgestill.export.onnx.sessions import runner
from edgestill.export.onnx.write import to_onnx
from edgestill.export.parity import check_parity, require_accuracy, require_fp16_parity
from edgestill.export.result import Arithmetic, ConvertedModel, ConvertResult, Parity
from edgestill.export.timing import profile
from edgestill.flows.config import RunConfig
from edgestill.flows.stages.context import StageContext
from edgestill.pipeline.errors import ExportError, MissingDependencyError
from edgestill.pipeline.runs.rundir import RunDir, file_digest
from edgestill.pipeline.timing.timing import TimingConfig
from edgestill.pipeline.training.metrics import evaluate

PARITY = Parity(max_abs_difference=0.1, top1_agreement=0.99, n=1008, checked=("validation",), reference="fp32")


@pytest.fixture
def stage(tmp_path):
    with RunDir.create(tmp_path, "run", 0, RunConfig()) as run:
        config = RunConfig(export=ExportConfig(formats=("int8",), calibration=CalibrationConfig(method="minmax")))
        yield StageContext(run, config, lambda done, total, note: None)


def shipped(stage, student):
    """Export's and profile's result for the student, by the stages' functions."""
    path = stage.run.write("export", "student.onnx", student.path.read_bytes())
    answers = answers_of(runner(path), student.splits.validation)
    export, folder = stage.config.export, Folder(stage.run.root, partial(stage.run.write, "export"))
    source, fp32 = source_of(student.network, path, student.splits, export), Reference(path, answers)
    others, absent = build_formats(source, fp32, student.splits, export, folder, stage.tick)
    fp32 = ConvertedModel(
        path="export/student.onnx", sha256=file_digest(path), size_bytes=path.stat().st_size, precision="fp32",
        opset=20, parity=PARITY, validation=answers.metrics,
    )  # fmt: skip
    converted = ConvertResult(teacher=fp32, student=fp32, others=others, absent=absent)
    timing = TimingConfig(warmup_s=0.01, duration_s=0.1, min_samples=200, max_samples=1000)
    images = student.splits.validation.images[:8].numpy()
    result, _ = profile(converted, stage.run.root, images, ProfileConfig(timing=timing), export.gate, Limits())
    return converted, result


def planted(monkeypatch, **methods):
    """Puts a format in int8's place, with methods of its own."""
    monkeypatch.setitem(FORMATS, "int8", type("Planted", (Int8,), methods)("int8", FOR_CPU))


def test_a_true_int8_is_measured_and_judged(stage, image_student):
    converted, result = shipped(stage, image_student)
    made = converted.others["int8"]
    assert made.variant == "minmax"
    assert made.sha256 == file_digest(stage.run.root / made.path)
    assert made.parity.reference == "fp32"
    assert made.parity.agreement_interval[0] < made.parity.top1_agreement <= made.parity.agreement_interval[1] + 1e-12
    accuracy = evaluate_file(stage.run.root / made.path, image_student.splits.validation).accuracy
    assert made.validation.accuracy == accuracy
    assert made.gained - made.lost == round(300 * (accuracy - converted.student.validation.accuracy))
    assert {v.format for v in result.verdicts} == {"fp32", "int8"}
    assert set(result.speedups) == {"fp32", "int8"}
    assert set(result.shipped) == {v.format for v in result.verdicts if v.shipped}


def test_an_int8_that_cannot_saturate_says_so_and_where_it_was_measured(stage, image_student):
    converted, result = shipped(stage, image_student)
    assert converted.others["int8"].arithmetic == Arithmetic(saturable=0, measured_on=byte_products())
    assert "saturate" not in result.verdicts[1].reason


def test_weights_of_8_bits_are_judged_on_both_kinds_of_processors_and_the_worse_counts(stage, image_student):
    eight = stage.config.model_copy(update={"export": stage.config.export.model_copy(update={"weight_bits": 8})})
    converted, result = shipped(dataclasses.replace(stage, config=eight), image_student)
    made = converted.others["int8"]
    exact = evaluate_run(runner(stage.run.root / made.path, exact=True), image_student.splits.validation).accuracy
    assert made.arithmetic.saturable == 10
    assert made.arithmetic.accuracy["exact"] == exact
    assert made.validation.accuracy == min(made.arithmetic.accuracy.values())
    saturating, elsewhere = (100 * made.arithmetic.accuracy[kind] for kind in ("saturating", "exact"))
    assert result.verdicts[1].reason.endswith(
        f"so that the worse counts: {saturating:.1f} % there, {elsewhere:.1f} % elsewhere"
    )


def test_what_another_kind_of_processor_loses_is_lost(stage, image_student, monkeypatch):
    def wrong(self, path, threads):
        run = runner(path, threads)
        return lambda inputs: np.roll(run(inputs), 1, axis=1)

    planted(monkeypatch, saturable=lambda self, path: 1, elsewhere=wrong)
    converted, result = shipped(stage, image_student)
    assert converted.others["int8"].validation.accuracy < 0.1
    assert converted.others["int8"].lost > 250
    assert not result.verdicts[1].shipped


def test_a_kind_of_processor_that_is_not_imitated_is_said(stage, image_student, monkeypatch):
    planted(monkeypatch, saturable=lambda self, path: 1, elsewhere=Format.elsewhere)
    _, result = shipped(stage, image_student)
    assert "what that costs is not known: onnxruntime's kernels on other processors are not imitated" in (
        result.verdicts[1].reason
    )


def test_a_slower_int8_is_rejected_for_being_slower(stage, image_student, monkeypatch):
    def slow(self, path, threads):
        run = runner(path, threads)

        def with_detours(inputs):
            until = time.perf_counter() + 2e-3
            while time.perf_counter() < until:
                pass
            return run(inputs)

        return with_detours

    planted(monkeypatch, open=slow)
    _, result = shipped(stage, image_student)
    (found,) = (v for v in result.verdicts if v.format == "int8")
    assert not found.shipped
    assert "× slower than fp32 [" in found.reason
    assert found.over_fp32.interval[1] < 1 / 1.2
    assert result.default == "fp32"
    assert set(result.shipped) == {"fp32"}


def test_a_compression_that_gives_the_same_file_is_found(stage, image_student, monkeypatch):
    planted(monkeypatch, variants=lambda self, source, config: iter([("minmax", {".onnx": source.onnx.read_bytes()})]))
    _, result = shipped(stage, image_student)
    assert "the compression changed nothing: its file is fp32's, byte for byte" in result.verdicts[1].reason


def test_a_compression_that_only_renames_is_found(stage, image_student, monkeypatch):
    def renamed(self, source, config):
        model = onnx.load(source.onnx)
        model.graph.name = "quantized"
        return iter([("minmax", {".onnx": model.SerializeToString()})])

    planted(monkeypatch, variants=renamed)
    _, result = shipped(stage, image_student)
    assert not result.verdicts[1].shipped
    assert "its logits are fp32's to the last bit on 372 inputs" in result.verdicts[1].reason


def test_a_broken_calibration_is_recorded_and_ends_nothing(stage, image_student, monkeypatch):
    monkeypatch.setattr(
        building, "calibration_examples", lambda split, count: np.full((64, 3, 12, 12), np.nan, np.float32)
    )
    converted, result = shipped(stage, image_student)
    (absent,) = converted.absent
    assert not absent.skipped
    assert "64 of 64 calibration examples hold NaN" in absent.reason
    assert result.verdicts[1].sentence.startswith("int8 rejected: ")
    assert set(result.shipped) == {"fp32"}


def test_a_calibration_without_contrast_is_rejected_for_its_accuracy(stage, image_student, monkeypatch):
    monkeypatch.setattr(building, "_repaired", lambda *given: given[-1])
    given = image_student.source.calibration
    flat = (0.02 * (given - given.mean()) + given.mean()).astype(np.float32)
    monkeypatch.setattr(building, "calibration_examples", lambda split, count: flat)
    _, result = shipped(stage, image_student)
    assert not result.verdicts[1].shipped
    assert "points below fp32 on 300 validation examples" in result.verdicts[1].reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MissingDependencyError("install it"), "install it"),
        (RuntimeError("segment\nlong trace"), "RuntimeError: segment"),
    ],
)
def test_a_format_that_breaks_ends_nothing(stage, image_student, monkeypatch, error, reason):
    def broken(self, source, config):
        raise error

    planted(monkeypatch, variants=broken)
    _, result = shipped(stage, image_student)
    assert result.verdicts[1].sentence == f"int8 rejected: {reason}"


def test_a_format_whose_library_is_missing_is_skipped(stage, image_student, monkeypatch):
    planted(monkeypatch, missing=lambda self: "needs a library; pip install it")
    _, result = shipped(stage, image_student)
    assert result.verdicts[1].sentence == "int8 skipped: needs a library; pip install it"


class Biased(Format):
    """The fp32 file with every logit of class 0 moved; three ways that are differently wrong."""

    name, precision, runtime, suffix = "int8", "int8", "onnxruntime", ".onnx"

    def build(self, source, config):
        raise NotImplementedError

    def variants(self, source, config):
        for shift in (50.0, 0.004, 0.002):
            model = onnx.load(source.onnx)
            (bias,) = (t for t in model.graph.initializer if tuple(t.dims) == (4,))
            values = onnx.numpy_helper.to_array(bias).copy()
            values[0] += shift
            bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
            yield f"{shift:g}", {".onnx": model.SerializeToString()}

    def open(self, path, threads):
        return runner(path, threads)


def test_the_best_on_validation_is_kept_and_ties_go_to_the_nearest_to_fp32(stage, image_student, monkeypatch):
    monkeypatch.setitem(FORMATS, "int8", Biased())
    converted, _ = shipped(stage, image_student)
    made = converted.others["int8"]
    assert set(made.tried) == {"50", "0.004", "0.002"}
    assert made.tried["50"] < made.tried["0.004"] == made.tried["0.002"]
    assert made.variant == "0.002"


# The network that is exported and the one that was evaluated


class Changed(nn.Module):
    """The student behind a change of its inputs."""

    def __init__(self, network, change):
        super().__init__()
        self.network, self.change = network, change

    def forward(self, images):
        return self.network(self.change(images))


class BatchStatistics(nn.Module):
    """Batch norm as in training mode, and as no ONNX checker would notice."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, inputs):
        mean = inputs.mean((0, 2, 3), keepdim=True)
        std = (inputs.var((0, 2, 3), keepdim=True, correction=0) + self.norm.eps).sqrt()
        return (inputs - mean) / std * self.norm.weight.view(-1, 1, 1) + self.norm.bias.view(-1, 1, 1)


def by_batch_statistics(network):
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, BatchStatistics(child))
    return network


def with_exchanged_statistics(network):
    network = copy.deepcopy(network)
    network.normalize.mean, network.normalize.std = network.normalize.std, network.normalize.mean
    return network


def without_normalisation(network):
    network = copy.deepcopy(network)
    network.normalize = nn.Identity()
    return network


MISTAKES = {
    "swapped channels": (lambda n: Changed(n, lambda x: x.flip(1)), "channels are in reverse order"),
    "no normalisation": (without_normalisation, "does not normalise its inputs"),
    "normalised twice": (lambda n: Changed(n, n.normalize), "normalises its inputs twice"),
    "exchanged statistics": (with_exchanged_statistics, "mean and standard deviation exchanged"),
    "bytes": (lambda n: Changed(n, lambda x: 255 * x), "takes pixels from 0 to 255"),
    "batch norm in training mode": (by_batch_statistics, "batch norm works as in training mode"),
}


@pytest.fixture(scope="module")
def spoilt(image_student, tmp_path_factory):
    """A mistake's name to the file of the network spoilt by it, made once each."""
    folder = tmp_path_factory.mktemp("spoilt")

    def file(name):
        path = folder / f"{name}.onnx"
        if not path.exists():
            network = MISTAKES[name][0](image_student.network).eval()
            path.write_bytes(to_onnx(network, image_student.task.inputs, 20))
        return path

    return file


@pytest.mark.parametrize("name", MISTAKES)
def test_a_file_of_a_network_spoilt_in_a_known_way_is_refused_with_the_reason(name, image_student, spoilt):
    reason, path = MISTAKES[name][1], spoilt(name)
    splits = {"validation": image_student.splits.validation}
    with pytest.raises(ExportError, match=f"the exported file is not the network: on validation .*; .*{reason}"):
        check_parity(image_student.network, path, splits, image_student.task.inputs)


@pytest.mark.parametrize("name", [name for name in MISTAKES if name != "batch norm in training mode"])
def test_a_network_other_than_the_one_evaluated_is_refused_with_the_reason(name, image_student, spoilt):
    """Parity cannot see it where the network was spoilt before it was exported; the accuracy of training can."""
    network, validation = image_student.network, image_student.splits.validation
    task = image_student.task.model_copy(
        update={key: tuple(network.normalize.get_buffer(key).flatten().tolist()) for key in ("mean", "std")}
    )
    reason, path = MISTAKES[name][1], spoilt(name)
    trained, found = evaluate(network, validation, torch.device("cpu")), evaluate_file(path, validation)
    with pytest.raises(ExportError, match=rf"not the network evaluated: .* training ended with .*; .*{reason}"):
        require_accuracy(found, trained, runner(path), validation, task)
    require_accuracy(evaluate_file(image_student.path, validation), trained, runner(path), validation, task)


def test_another_network_than_the_one_evaluated_is_refused_without_a_made_up_reason(image_student, tmp_path):
    other = copy.deepcopy(image_student.network)
    nn.init.normal_(other.linear.weight)
    path, validation = tmp_path / "other.onnx", image_student.splits.validation
    path.write_bytes(to_onnx(other, image_student.task.inputs, 20))
    trained = evaluate(image_student.network, validation, torch.device("cpu"))
    with pytest.raises(ExportError, match="normalisation, channel order or mode must differ"):
        require_accuracy(evaluate_file(path, validation), trained, runner(path), validation, image_student.task)


def test_a_network_whose_answers_depend_on_the_batch_is_refused(image_student):
    """Batch norm without running statistics stays as it is in training, whatever `eval` says."""
    network = copy.deepcopy(image_student.network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    splits = {"validation": image_student.splits.validation}
    with pytest.raises(ExportError, match=r"depends on the others in its batch .* batch norm is in training mode"):
        check_parity(network, image_student.path, splits, image_student.task.inputs)


def test_a_module_that_does_not_listen_to_eval_is_named(image_student):
    class Stubborn(nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train(True)

    network = copy.deepcopy(image_student.network)
    network.bn1 = Stubborn(8)
    with pytest.raises(ExportError, match=r"modules stay in training mode after eval\(\), .*: bn1; let "):
        to_onnx(network, image_student.task.inputs, 20)


def test_fp16_further_away_than_rounding_explains_is_refused():
    near = PARITY.model_copy(update={"top1_agreement": 1.0, "relative_difference": 0.01})
    require_fp16_parity(near)
    with pytest.raises(ExportError, match=r"up to 3.0% of the largest one; rounding to 16 bits explains 2%"):
        require_fp16_parity(near.model_copy(update={"relative_difference": 0.03}))
    with pytest.raises(ExportError, match=r"answers as fp32 does on 98.00% of 1,008 inputs"):
        require_fp16_parity(near.model_copy(update={"top1_agreement": 0.98}))
    require_fp16_parity(near.model_copy(update={"top1_agreement": 0.99, "n": 100}))  # 1 of 100 is no proof
