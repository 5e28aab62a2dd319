"""The gate: what ships, what does not, and the right reason for it."""

import numpy as np
import pytest

from edgestill.export.config import ExportConfig, GateConfig
from edgestill.export.gate import Limits, beyond_limits, choose_default, judge, loses_too_much, require_a_size_within
from edgestill.export.result import Absent, ExportedModel, Latency, Parity, Ratio
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.training.metrics import Metrics, paired_difference

PARITY = Parity(max_abs_difference=0.1, top1_agreement=0.99, n=1008, checked=("validation",), reference="fp32")


def model(name="int8", size=250_000, accuracy=0.95, p50=1.0, **changes):
    values = {
        "path": f"export/student.{name}.onnx",
        "sha256": name,
        "size_bytes": size,
        "precision": name if name in ("fp32", "fp16") else "int8",
        "opset": 20,
        "parity": PARITY,
        "format": name,
        "validation": Metrics(accuracy=accuracy, cross_entropy=0.1, n=1000),
        "lost": max(0, round(1000 * (0.95 - accuracy))),
        "latency": Latency(runtime="r", provider="p", threads=1, batch=1, summary={"n": 100, "p50_ms": p50}),
    }
    return ExportedModel(**values | changes)


FP32 = model("fp32", size=1_000_000)


GATE, NO_LIMITS = GateConfig(), Limits()


def verdict(other, ratio, gate=GATE, limits=NO_LIMITS):
    """Of one format beside fp32; `ratio` is (value, low, high) of its speed over fp32's."""
    value, low, high = ratio
    over_fp32 = {other.format: Ratio(value=value, interval=(low, high))}
    found = judge({"fp32": FP32, other.format: other}, over_fp32, (), gate, limits)
    return found[1]


FASTER, SLOWER, SAME = (2.0, 1.9, 2.1), (0.66, 0.65, 0.67), (1.0, 0.97, 1.03)


@pytest.mark.parametrize(
    ("other", "ratio", "shipped", "reason"),
    [
        (model(), FASTER, True, "2.00× faster than fp32 [1.90, 2.10]; 4.00× smaller; fp32's accuracy on 1,000"),
        (model(), SLOWER, False, "1.52× slower than fp32 [1.49, 1.54]; a file that is 4.00× smaller may be at most"),
        (model(), SAME, True, "4.00× smaller; 1.00× fp32's speed [0.970, 1.03]"),
        (model(size=900_000), SAME, False, "1.00× fp32's speed [0.970, 1.03] and 1.11× smaller; 1.05× faster or 1.5×"),
        (model(size=1_200_000), FASTER, True, "2.00× faster than fp32 [1.90, 2.10]; 1.20× larger"),
        (model(accuracy=0.941), FASTER, False, "0.9 points below fp32 on 1,000 validation examples [−1.5, −0.3]"),
        (model(accuracy=0.945), FASTER, True, "0.5 points below fp32"),
        (model(accuracy=0.96, gained=10), FASTER, True, "1.0 points above fp32"),
        (model(size=900_000), (1.5, 1.0, 2.0), False, "1.05× faster or 1.5× smaller is needed"),
        (model(), (1.0, 0.8, 1.2), False, "may be at most 1.2× slower"),
    ],
)  # fmt: skip
def test_a_format_ships_where_it_is_worth_it(other, ratio, shipped, reason):
    found = verdict(other, ratio)
    assert found.shipped is shipped
    assert reason in found.reason
    assert found.sentence.startswith(f"int8 {'ships' if shipped else 'rejected'}: ")


def test_every_reason_against_a_format_is_given():
    found = verdict(model(size=1_100_000, accuracy=0.90), SLOWER, limits=Limits(max_size_bytes=1_050_000))
    for part in ("1.52× slower", "1.10× larger", "5.0 points below fp32", "above max_size_bytes 1,050,000"):
        assert part in found.reason


def test_the_margins_are_configured():
    strict = GateConfig(min_speedup=3, min_shrink=5, max_slowdown=1)
    assert not verdict(model(), FASTER, strict).shipped
    assert verdict(model(), SLOWER, GateConfig(max_slowdown=2)).shipped
    assert verdict(model(accuracy=0.90), FASTER, GateConfig(max_accuracy_drop=0.06)).shipped


def test_a_compression_that_changed_nothing_is_said_to():
    assert "changed nothing: its file is fp32's" in verdict(model(sha256="fp32"), FASTER).reason
    exact = PARITY.model_copy(update={"max_abs_difference": 0.0})
    found = verdict(model(parity=exact), FASTER)
    assert not found.shipped
    assert "changed nothing: its logits are fp32's to the last bit on 1,008 inputs" in found.reason


def test_the_fp32_file_by_another_runtime_is_a_form_of_its_own():
    elsewhere = {"sha256": "fp32", "precision": "fp32", "runtime": "onnxruntime-cuda"}
    assert verdict(model("cuda_fp32", **elsewhere), FASTER).shipped


def test_what_is_absent_has_a_verdict_too():
    absent = (
        Absent(format="engine", reason="no GPU here", skipped=True),
        Absent(format="x", reason="broke", skipped=False),
    )
    found = judge({"fp32": FP32}, {}, absent, GateConfig(), Limits())
    assert [v.sentence for v in found[1:]] == ["engine skipped: no GPU here", "x rejected: broke"]


def test_fp32_above_the_size_budget_leaves_the_bundle_to_the_others():
    limits = Limits(max_size_bytes=300_000)
    ratio = {"int8": Ratio(value=1.0, interval=(0.9, 1.1))}
    formats = {"fp32": FP32, "int8": model()}
    found = judge(formats, ratio, (), GateConfig(), limits)
    assert [v.shipped for v in found] == [False, True]
    assert found[0].sentence == "fp32 rejected: 1,000,000 bytes, above max_size_bytes 300,000"
    assert choose_default(found, formats, GateConfig()) == "int8"
    require_a_size_within(formats, limits)


def test_nothing_within_the_size_budget_is_an_error_with_every_size():
    formats = {"fp32": FP32, "int8": model()}
    with pytest.raises(ExportError, match=r"fp32 1,000,000 bytes, .* 200,000; int8 250,000 bytes"):
        require_a_size_within(formats, Limits(max_size_bytes=200_000))
    with pytest.raises(ExportError, match="nothing ships: fp32 rejected"):
        judge({"fp32": FP32}, {}, (), GateConfig(), Limits(max_size_bytes=200_000))


def test_the_default_is_the_fastest_that_is_surely_faster():
    def default(**ratios):
        formats = {"fp32": FP32} | {name: model(name, p50=1 / low) for name, low in ratios.items()}
        found = judge(
            formats, {n: Ratio(value=v, interval=(v, v)) for n, v in ratios.items()}, (), GateConfig(), Limits()
        )
        return choose_default(found, formats, GateConfig())

    assert default(int8=2.0, fp16=1.5) == "int8"
    assert default(fp16=1.01) == "fp32"  # ships for its size; a hundredth is no reason to leave fp32
    assert default(fp16=2.0, int8=0.5) == "fp16"


def test_the_default_is_never_a_file_that_run_py_cannot_open():
    formats = {"fp32": FP32, "openvino": model("openvino", p50=0.1, runtime="openvino")}
    found = judge(formats, {"openvino": Ratio(value=10, interval=(9, 11))}, (), GateConfig(), Limits())
    assert found[1].shipped
    assert choose_default(found, formats, GateConfig()) == "fp32"


def test_the_largest_drop_that_is_allowed_is_allowed_however_it_is_rounded():
    fp32 = Metrics(accuracy=0.95, cross_entropy=0.1, n=1000)
    assert 0.95 - 0.945 > 0.005
    assert not loses_too_much(fp32.model_copy(update={"accuracy": 0.945}), fp32, 0.005)
    assert loses_too_much(fp32.model_copy(update={"accuracy": 0.944}), fp32, 0.005)


def test_a_latency_above_the_budget_is_named():
    assert beyond_limits(FP32, Limits(max_latency_ms=0.5)) == ("median 1 ms, above max_latency_ms 0.5",)
    assert beyond_limits(FP32, Limits(max_latency_ms=1, max_size_bytes=10**6)) == ()


def test_the_interval_of_a_paired_difference_holds_the_truth_about_as_often_as_it_says():
    """2,000 draws of 300 pairs, 2 points apart in truth; 95 % are expected, 93.5 % is three deviations below."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(300, [0.04, 0.02, 0.94], size=2000)
    held = [low <= -0.02 <= high for low, high in (paired_difference(lost, gained, 300) for lost, gained, _ in drawn)]
    assert 0.935 <= np.mean(held) <= 0.99


def test_the_configuration_knows_the_formats_and_always_makes_fp32():
    assert ExportConfig(formats=("int8",)).formats == ("fp32", "int8")
    with pytest.raises(ValueError, match="unknown format 'int9'; did you mean"):
        ExportConfig(formats=("int9",))


def test_a_slowdown_just_beyond_the_limit_is_told_with_the_digits_that_decide():
    """`1.20× slower; at most 1.2× slower` would be no reason."""
    assert "1.1983× slower than fp32 [1.1962, 1.2006]" in verdict(model(), (0.8345, 0.8329, 0.836)).reason


def test_layers_of_an_8_bit_file_that_stay_in_float_are_named_with_the_reason():
    few = {"node_conv2d_1": 0.5, "node_conv2d_2": 0.0312}
    told = verdict(model(in_float=few), FASTER).reason
    assert (
        "2 layers stay in float, as 8 bits there cost the accuracy: node_conv2d_1 (50 %), node_conv2d_2 (3.12 %)"
        in told
    )
    many = verdict(model(in_float={f"layer{place}": 0.9 for place in range(5)}), FASTER).reason
    assert "5 layers stay in float" in many
    assert "layer2 (90 %) and 2 more" in many
    assert "in float" not in verdict(model(), FASTER).reason
