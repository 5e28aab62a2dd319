"""The mean recall decides on files where it chooses: which calibration, which file ships, and by which interval."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from sklearn.metrics import balanced_accuracy_score

from edgestill.export.build import Folder, Reference, try_format
from edgestill.export.config import ExportConfig, GateConfig
from edgestill.export.evaluate import answers_of
from edgestill.export.formats.base import Format
from edgestill.export.gate import Limits, judge
from edgestill.export.onnx.sessions import runner
from edgestill.export.result import ExportedModel, Latency, Parity, Ratio
from edgestill.pipeline.training.difference import balanced_difference
from edgestill.pipeline.training.metrics import Metrics

PARITY = Parity(max_abs_difference=0.1, top1_agreement=0.99, n=1000, checked=("validation",), reference="fp32")
RARE = 3  # class with a handful of examples


@pytest.fixture(scope="module")
def splits(image_student):
    """The student's validation split with five examples of class 3 among all of the others."""
    whole = image_student.splits.validation
    rare = (whole.targets == RARE).nonzero().flatten()
    kept = [n for n in range(len(whole)) if n not in set(rare[5:].tolist())]
    validation = whole.select(whole.targets.new_tensor(kept))
    return SimpleNamespace(validation=validation, reference=image_student.splits.reference, task=image_student.task)


def answers(splits, path, balanced):
    return answers_of(runner(path), splits.validation, balanced=balanced)


class Shifted(Format):
    """The fp32 file with one class's logit moved: `rare` never answers class 3, `common` is wrong here and there."""

    name, precision, runtime, suffix = "shifted", "int8", "onnxruntime", ".onnx"

    def __init__(self, shift):
        self.shifts = {"rare": (RARE, -1000.0), "common": (0, shift)}

    def build(self, source, config):
        raise NotImplementedError

    def variants(self, source, config):
        for name, (place, shift) in self.shifts.items():
            model = onnx.load(source.onnx)
            (bias,) = (t for t in model.graph.initializer if tuple(t.dims) == (4,))
            values = onnx.numpy_helper.to_array(bias).copy()
            values[place] += shift
            bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
            yield name, {".onnx": model.SerializeToString()}

    def open(self, path, threads):
        return runner(path, threads)


@pytest.fixture(scope="module")
def shifted(image_student, splits):
    """Moves class 0 until more examples are wrong than the rare class has."""
    fp32 = answers(splits, image_student.path, False)
    targets = splits.validation.targets.numpy()
    for shift in np.linspace(0, 50, 500):
        moved = fp32.logits + np.array([shift, 0, 0, 0])
        if fp32.right.sum() - (moved.argmax(1) == targets).sum() > 8:
            return Shifted(float(shift))
    raise AssertionError("no shift makes eight examples wrong")


@pytest.mark.parametrize(("balanced", "kept"), [(False, "rare"), (True, "common")])
def test_the_variant_kept_is_the_best_by_the_figure_that_chooses(
    balanced, kept, shifted, image_student, splits, tmp_path
):
    fp32 = answers(splits, image_student.path, balanced)

    def write(name, data):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    made = try_format(
        shifted,
        image_student.source,
        Reference(image_student.path, fp32),
        splits,
        ExportConfig(),
        Folder(tmp_path, write),
    )
    assert made.variant == kept
    found = answers(splits, tmp_path / made.path, balanced)
    targets = splits.validation.targets.numpy()
    recall = balanced_accuracy_score(targets, found.logits.argmax(1))
    assert made.tried[kept] == pytest.approx(recall if balanced else found.right.mean())
    assert (made.difference is not None) == balanced == ("difference" in made.model_dump())
    if balanced:
        assert made.validation.balanced_accuracy == pytest.approx(recall)
        assert made.difference.value == pytest.approx(recall - fp32.metrics.balanced_accuracy)


def exported(name, metrics, difference=None):
    return ExportedModel(
        path=f"export/{name}.onnx", sha256=name, size_bytes=1000, precision="int8", opset=20, parity=PARITY,
        format=name, validation=metrics, difference=difference,
        latency=Latency(runtime="r", provider="p", threads=1, batch=1, summary={"n": 100, "p50_ms": 1.0}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "shipped", "reason"),
    [
        ("rare", False, "40.0 points of mean recall below fp32 on 1,000 validation examples [−"),
        ("common", True, "0.4 points of mean recall below fp32 on 1,000 validation examples [−"),
        ("none", True, "fp32's mean recall on 1,000 validation examples ["),
    ],
)
def test_the_gate_counts_the_loss_and_its_interval_in_mean_recall(lost, shipped, reason):
    """Of 1,000 examples 10 are of the rare class: 8 of them are 0.8 points of accuracy, and 40 of mean recall."""
    targets = np.array([0] * 990 + [1] * 10)
    right = {"rare": np.arange(1000) < 992, "common": np.arange(1000) >= 8, "none": np.ones(1000, bool)}[lost]

    def metrics(right):
        recall = np.mean([right[targets == k].mean() for k in (0, 1)])
        return Metrics(accuracy=right.mean(), cross_entropy=0.1, n=1000, balanced_accuracy=recall)

    everything = np.ones(1000, bool)
    fp32 = exported("fp32", metrics(everything))
    found = exported("int8", metrics(right), balanced_difference(right, everything, targets))
    faster = {"int8": Ratio(value=2.0, interval=(1.9, 2.1))}
    verdict = judge({"fp32": fp32, "int8": found}, faster, (), GateConfig(), Limits())[1]
    assert verdict.shipped is shipped
    assert reason in verdict.reason
