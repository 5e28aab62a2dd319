"""Verdicts by a target's own samples, and several targets' verdicts together."""

import hashlib

import pytest
from loopback import profile_of

from edgestill.export.config import GateConfig
from edgestill.export.device.document import ProfileDocument
from edgestill.export.gate import Limits
from edgestill.export.result import ConvertedModel, ConvertResult, Parity, ProfileResult
from edgestill.export.targets.config import TargetConfig
from edgestill.export.targets.judged import judged, merged
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.training.metrics import Metrics

PARITY = Parity(max_abs_difference=0.1, top1_agreement=1.0, n=100, checked=("validation",))
SIZES = {"teacher": 9000, "fp32": 4000, "int8": 1000, "fp16": 2000, "openvino": 4000}


def model(name):
    validation = Metrics(accuracy=0.9, cross_entropy=0.1, n=1000)
    return ConvertedModel(
        path=f"export/{name}.onnx", sha256=hashlib.sha256(name.encode()).hexdigest(), size_bytes=SIZES[name],
        precision=name if name in ("fp16", "int8") else "fp32", opset=20, parity=PARITY, format=name,
        runtime="openvino" if name == "openvino" else "onnxruntime", validation=validation,
    )  # fmt: skip


MODELS = ConvertResult(
    teacher=model("teacher").model_copy(update={"format": "fp32"}),
    student=model("fp32"),
    others={name: model(name) for name in ("fp16", "int8", "openvino")},
)


def on(name, ms, limits=None, warnings=(), formats=()):
    """A target's part, whose files take these milliseconds."""
    document = ProfileDocument.model_validate({**profile_of(ms), "warnings": list(warnings)})
    target = TargetConfig(name=name, where=f"ssh://{name}", formats=formats)
    return judged(MODELS, document, target, GateConfig(), limits or Limits())


FAST_INT8 = {"teacher": 8.0, "fp32": 2.0, "fp16": 2.1, "int8": 0.5}
SLOW_INT8 = {"teacher": 8.0, "fp32": 2.0, "fp16": 1.0, "int8": 6.0}


def test_the_default_follows_the_devices_samples_and_so_do_the_verdicts():
    fast, slow = on("pi5", FAST_INT8), on("old", SLOW_INT8)
    assert (fast.target.default, slow.target.default) == ("int8", "fp16")
    assert fast.result.speedups["int8"].value == 16.0
    assert fast.result.student.latency.p50_ms == 0.5
    assert (fast.result.cpu, fast.target.architecture) == ("Board 5", "aarch64")
    (verdict,) = (v for v in slow.target.verdicts if v.format == "int8")
    assert not verdict.shipped
    assert "3.00× slower than fp32" in verdict.reason


def test_each_target_has_its_default_and_every_file_that_is_worth_it_anywhere_ships():
    found = merged([on("old", SLOW_INT8), on("pi5", FAST_INT8)])
    assert found.default == "fp16"
    assert found.defaults == {"old": "fp16", "pi5": "int8"}
    assert list(found.shipped) == ["fp32", "fp16", "int8"]
    (verdict,) = (v for v in found.verdicts if v.format == "int8")
    assert verdict.reason.startswith("it is worth it on pi5; on old rejected: 3.00× slower")
    assert ProfileResult.model_validate_json(found.model_dump_json()) == found


def test_a_format_of_another_runtime_is_skipped_with_the_reason():
    found = merged([on("pi5", {"fp32": 2.0, "int8": 0.5}, formats=("int8",))])
    reasons = {verdict.format: verdict.sentence for verdict in found.verdicts}
    assert (
        reasons["openvino"]
        == "openvino skipped: not measured on pi5: it runs in openvino, and its formats do not name it"
    )
    assert reasons["fp16"] == "fp16 skipped: not measured on pi5: its formats leave it out"
    assert found.speedup is None


def test_a_format_of_another_runtime_that_is_named_is_judged_there_and_is_no_default():
    """run.py has ONNX Runtime alone."""
    found = merged([on("pi5", {"fp32": 2.0, "int8": 1.0, "openvino": 0.5}, formats=("int8", "openvino"))])
    verdicts = {verdict.format: verdict for verdict in found.verdicts}
    assert verdicts["openvino"].shipped
    assert verdicts["openvino"].over_fp32.value == pytest.approx(4)
    assert found.default == found.defaults["pi5"] == "int8"


def test_int8_that_the_device_computes_otherwise_does_not_ship_for_it():
    said = "int8.onnx: this processor computes INT8 differently: use fp32 (logits are off)."
    found = on("pi5", FAST_INT8, warnings=[said])
    assert found.target.default == "fp32"
    assert {v.format: v.shipped for v in found.target.verdicts}["int8"] is False


def test_a_later_target_for_which_nothing_ships_is_told_and_the_first_one_ends_the_run():
    tight = Limits(max_size_bytes=500)
    none = on("tiny", FAST_INT8, limits=tight)
    assert none.target.default is None
    assert "above max_size_bytes 500" in none.target.why_none
    found = merged([on("pi5", FAST_INT8), none])
    assert found.defaults == {"pi5": "int8"}
    with pytest.raises(ExportError, match=r"^tiny: nothing ships"):
        merged([none])


def test_a_latency_limit_is_held_by_the_devices_median():
    found = on("pi5", FAST_INT8, limits=Limits(max_latency_ms=0.4))
    assert found.result.over_budget == ("median 0.5 ms, above max_latency_ms 0.4",)
