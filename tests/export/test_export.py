"""ONNX files: valid, whole, dynamic in the batch, and equal to the network or refused."""

import contextlib
import copy

import numpy as np
import onnx
import onnx.reference
import pytest
import torch
from torch import nn

from edgestill.export.config import GateConfig, ProfileConfig
from edgestill.export.evaluate import evaluate_file
from edgestill.export.gate import Limits
from edgestill.export.onnx import write
from edgestill.export.onnx.sessions import runner
from edgestill.export.onnx.write import to_onnx
from edgestill.export.parity import _allowed_by_rounding, _answers_as, check_parity
from edgestill.export.result import ConvertedModel, ConvertResult
from edgestill.export.timing import profile
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.runs.rundir import file_digest
from edgestill.pipeline.timing.timing import TimingConfig
from edgestill.pipeline.training.metrics import evaluate
from edgestill.search.spaces import SPACES

OPSET = 20


@pytest.fixture(scope="module")
def task(make_task):
    return make_task(channels=3, side=9, classes=4)


@pytest.fixture(scope="module")
def splits(make_split, task):
    return {"validation": make_split(task, 300, seed=1), "reference": make_split(task, 20, seed=2)}


@pytest.fixture(scope="module")
def network(task):
    """With running statistics far from fresh, and in training mode."""
    torch.manual_seed(3)
    network = CifarResNet((1, 1, 1), (4, 6, 8), num_classes=4, mean=(0.2, 0.5, 0.7), std=(0.1, 0.2, 0.3)).train()
    for _ in range(5):
        network(torch.rand(16, *task.input_shape) * 0.5)
    return network


@pytest.fixture(scope="module")
def data(network, task):
    assert network.training
    return to_onnx(network, task.inputs, OPSET)


@pytest.fixture(scope="module")
def path(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    path.write_bytes(data)
    return path


def test_the_exporters_table_is_made_once_and_changes_no_byte(network, task, data, monkeypatch):
    from torch.onnx._internal.exporter import _registration

    table = _registration.ONNXRegistry.from_torchlib
    made = []
    monkeypatch.setattr(
        _registration.onnxscript_apis, "get_torchlib_ops",
        lambda own=_registration.onnxscript_apis.get_torchlib_ops: made.append(1) or own(),
    )  # fmt: skip
    assert to_onnx(copy.deepcopy(network), task.inputs, OPSET) == data
    assert made == []
    assert _registration.ONNXRegistry.from_torchlib == table  # torch's own, for others' exports
    monkeypatch.setattr(write, "kept_translations", contextlib.nullcontext)
    assert to_onnx(copy.deepcopy(network), task.inputs, OPSET) == data
    assert made == [1]


def test_the_file_is_valid_and_says_what_goes_in_and_out(data):
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import if o.domain == ""] == [("", OPSET)]
    (taken,), (given,) = model.graph.input, model.graph.output
    assert (taken.name, given.name) == ("images", "logits")
    assert [d.dim_param or d.dim_value for d in taken.type.tensor_type.shape.dim] == ["batch", 3, 9, 9]
    assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["batch", 4]
    for value in (taken, given):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_the_file_needs_no_other_file_and_tells_nothing_of_the_machine(data):
    model = onnx.load_from_string(data)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    for trace in (b"site-packages", b"/torch/", b".py", b'File "'):
        assert trace not in data


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_any_batch_goes_through_as_it_does_in_evaluation_mode(network, path, task, batch):
    images = torch.rand(batch, *task.input_shape)
    with torch.no_grad():
        expected = copy.deepcopy(network).eval()(images).numpy()
    assert runner(path)(images.numpy()) == pytest.approx(expected, abs=1e-5)


def test_a_second_implementation_of_onnx_computes_the_same(network, data, task):
    images = torch.rand(3, *task.input_shape)
    with torch.no_grad():
        expected = copy.deepcopy(network).eval()(images).numpy()
    (found,) = onnx.reference.ReferenceEvaluator(onnx.load_from_string(data)).run(None, {"images": images.numpy()})
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", [name for name in SPACES if name != "resnet"])
def test_students_of_every_other_space_export_on_odd_sides_too(name, small_space, make_task_for, make_split, tmp_path):
    space = small_space(name)
    task = make_task_for(space, channels=1, side=9)
    student, path = space.build(list(space.all_architectures())[-1], task), tmp_path / "model.onnx"
    path.write_bytes(to_onnx(student, task.inputs, OPSET))
    splits = {"validation": make_split(task, 20)}
    parity = check_parity(student, path, splits, task.inputs)
    assert parity.top1_agreement == 1


def test_a_network_without_an_onnx_form_is_refused_in_one_sentence(task):
    class Branching(nn.Module):
        def forward(self, images):
            return images.mean((1, 2, 3))[:, None] * (2 if images.sum() > 3 else 1)

    with pytest.raises(ExportError, match="has no ONNX form") as caught:
        to_onnx(Branching(), task.inputs, OPSET)
    assert "\n" not in str(caught.value)


# Parity


def test_a_true_file_passes_on_every_kind_of_input(network, path, splits, task):
    parity = check_parity(network, path, splits, task.inputs)
    assert parity.max_abs_difference < 1e-4
    assert parity.top1_agreement == 1
    assert parity.n == 300 + 20 + 1 + 7 + 1 + 1 + 1 + 7
    assert {"validation", "reference", "batch size 1", "batch size 7", "zeros", "ones", "noise"} <= set(parity.checked)


class BatchStatistics(nn.Module):
    """Batch norm as in training mode: by the statistics of the batch."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, inputs):
        mean = inputs.mean((0, 2, 3), keepdim=True)
        std = (inputs.var((0, 2, 3), keepdim=True, correction=0) + self.norm.eps).sqrt()
        scale, shift = self.norm.weight.view(-1, 1, 1), self.norm.bias.view(-1, 1, 1)
        return (inputs - mean) / std * scale + shift


def in_training_mode(network):
    network.bn1 = BatchStatistics(network.bn1)


def with_swapped_normalisation(network):
    network.normalize.mean, network.normalize.std = network.normalize.std, network.normalize.mean


def with_other_weights(network):
    nn.init.normal_(network.linear.weight)


def with_one_bias_slightly_off(network):
    network.linear.bias.data[2] += 2e-4


@pytest.mark.parametrize(
    "spoil", [in_training_mode, with_swapped_normalisation, with_other_weights, with_one_bias_slightly_off]
)
def test_a_file_of_another_network_is_refused(network, splits, task, tmp_path, spoil):
    other = copy.deepcopy(network)
    spoil(other)
    (tmp_path / "model.onnx").write_bytes(to_onnx(other, task.inputs, OPSET))
    with pytest.raises(ExportError, match=r"is not the network: on validation logits differ by up to .* \(allowed"):
        check_parity(network, tmp_path / "model.onnx", splits, task.inputs)


@pytest.mark.parametrize(("off", "is_refused"), [(2e-4, False), (6e-3, True)])
def test_large_logits_may_differ_by_as_much_as_rounding_does_and_no_cause_is_made_up(
    network, splits, task, tmp_path, off, is_refused
):
    large = copy.deepcopy(network)
    with torch.no_grad():
        large.linear.weight.zero_()
        large.linear.bias.copy_(torch.tensor([500.0, 0.0, -20.0, 3.0]))
    other = copy.deepcopy(large)
    other.linear.bias.data[2] += off
    (tmp_path / "model.onnx").write_bytes(to_onnx(other, task.inputs, OPSET))
    if not is_refused:
        check_parity(large, tmp_path / "model.onnx", splits, task.inputs)
        return
    with pytest.raises(ExportError, match=r"by up to 0\.006 \(allowed 0\.005\) and 0 of 256 answers change$"):
        check_parity(large, tmp_path / "model.onnx", splits, task.inputs)


class Offset(nn.Module):
    """Adds a large number and takes it away: float32 keeps three digits behind the point."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return (self.network(inputs) + 6e4) - 6e4


def test_a_network_that_rounds_much_may_differ_from_its_file_by_as_much(network, splits):
    inputs = splits["reference"].batch(torch.arange(20)).inputs
    network = copy.deepcopy(network).eval()
    rounding = Offset(network)
    with torch.inference_mode():
        allowed = [_allowed_by_rounding(kind, inputs, kind(inputs).numpy()) for kind in (network, rounding)]
    assert allowed[0] < 1e-4
    assert allowed[1] == pytest.approx(1e-3)  # rounds by 2e-3, and no more is explained


def test_a_file_with_other_classes_or_no_numbers_is_refused(network, path, splits, task):
    wider = copy.deepcopy(network)
    wider.linear = nn.Linear(8, 5)
    with pytest.raises(ExportError, match=r"on validation the exported file gives logits \[256, 4\].*gives \[256, 5\]"):
        check_parity(wider, path, splits, task.inputs)


# Latency and accuracy of files


def test_accuracy_of_a_file_is_that_of_the_network(network, path, splits):
    expected = evaluate(copy.deepcopy(network).eval(), splits["validation"], torch.device("cpu"))
    found = evaluate_file(path, splits["validation"])
    assert found.accuracy == expected.accuracy
    assert found.cross_entropy == pytest.approx(expected.cross_entropy, rel=1e-5)
    assert found.n == 300


def test_profiling_times_both_files_in_turns_and_gives_their_ratio(network, path, splits, task):
    parity = check_parity(network, path, splits, task.inputs)
    model = ConvertedModel(
        path=path.name, sha256=file_digest(path), size_bytes=path.stat().st_size, precision="fp32", opset=OPSET,
        parity=parity, validation=evaluate_file(path, splits["validation"]),
    )  # fmt: skip
    config = ProfileConfig(timing=TimingConfig(warmup_s=0, duration_s=0.01, min_samples=70, max_samples=70))
    images = splits["validation"].images[:8].numpy()
    twice = ConvertResult(teacher=model, student=model)
    result, timings = profile(twice, path.parent, images, config, GateConfig(), Limits())
    assert {name: len(timing.samples_ms) for name, timing in timings.items()} == {"teacher": 70, "fp32": 70}
    assert result.student.latency.p50_ms == timings["fp32"].percentile(50)
    assert set(result.student.latency.summary) == {"n", "p50_ms", "p90_ms"}
    assert result.speedup is not None
    low, high = result.speedup.interval
    assert low <= result.speedup.value <= high
    assert 0.2 < result.speedup.value < 5  # the same file twice
    assert result.student.sha256 == model.sha256


def test_every_file_is_timed_with_the_configured_threads(network, path, splits, task, monkeypatch):
    """The teacher's too, or the ratio would compare one thread with several."""
    seen = []

    def opened(file, threads=1, exact=False):
        seen.append(threads)
        return runner(file, 1)

    for module in ("edgestill.export.timing.runner", "edgestill.export.formats.fp32.runner"):
        monkeypatch.setattr(module, opened)
    model = ConvertedModel(
        path=path.name, sha256=file_digest(path), size_bytes=path.stat().st_size, precision="fp32", opset=OPSET,
        parity=check_parity(network, path, splits, task.inputs), validation=evaluate_file(path, splits["validation"]),
    )  # fmt: skip
    timing = TimingConfig(warmup_s=0, duration_s=0.01, min_samples=70, max_samples=70)
    images = splits["validation"].images[:8].numpy()
    twice, config = ConvertResult(teacher=model, student=model), ProfileConfig(threads=2, timing=timing)
    seen.clear()
    profile(twice, path.parent, images, config, GateConfig(), Limits())
    assert seen == [2, 2]


def test_an_answer_may_change_between_logits_that_only_rounding_tells_apart():
    expected = np.float32([[1, 1 - 1e-7, 0], [1, 1 - 1e-4, 0], [0, 1, 2]])
    found = np.float32([[1 - 1e-7, 1, 0], [1 - 1e-4, 1, 0], [0, 1, 2]])
    assert _answers_as(found, expected).tolist() == [True, False, True]
