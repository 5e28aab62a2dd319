"""Decides on the formats to ship: those worth it for this artefact, as measured here."""

from collections.abc import Mapping, Sequence

from edgestill.export.config import GateConfig
from edgestill.export.formats import FORMATS
from edgestill.export.result import Absent, ConvertedModel, ExportedModel, Ratio, Verdict
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.figures import points, shrink, speed
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.training.metrics import Metrics, paired_difference

_KINDS = {"saturating": "there", "exact": "elsewhere"}  # kind of processor -> its name in the sentence of `_elsewhere`


class Limits(Frozen):
    """Limits of the budget on a shipped file."""

    max_size_bytes: int | None = None
    max_latency_ms: float | None = None


def judge(
    formats: Mapping[str, ExportedModel],
    over_fp32: Mapping[str, Ratio],
    absent: Sequence[Absent],
    gate: GateConfig,
    limits: Limits,
) -> tuple[Verdict, ...]:
    """Return a verdict for each format: fp32 first, then those with a file, then the others.

    Args:
        formats: the timed files, fp32 among them.
        over_fp32: each format's speed over fp32's, from the same interleaved measurement.

    Raises:
        ExportError: nothing ships.
    """
    fp32 = formats["fp32"]
    verdicts = [_judge_fp32(fp32, limits)]
    for name, model in formats.items():
        if name != "fp32":
            verdicts.append(_judge(model, fp32, over_fp32[name], gate, limits))
    verdicts += [Verdict(format=a.format, shipped=False, reason=a.reason, skipped=a.skipped) for a in absent]
    if not any(verdict.shipped for verdict in verdicts):
        reasons = "; ".join(verdict.sentence for verdict in verdicts)
        raise ExportError(
            f"nothing ships: {reasons}; raise the limit of search.budget that fp32 exceeds, or search a smaller student"
        )
    return tuple(verdicts)


def choose_default(verdicts: Sequence[Verdict], formats: Mapping[str, ExportedModel], gate: GateConfig) -> str:
    """Return the fastest format that ships and runs in ONNX Runtime; fp32, if it ships, where none beats it clearly.

    A format beats fp32 clearly if the lower end of its speedup's interval reaches `gate.min_speedup`.

    Raises:
        ExportError: nothing that ships runs in ONNX Runtime.
    """
    ships = [v for v in verdicts if v.shipped and FORMATS[v.format].is_cpu_onnx]
    if not ships:
        raise ExportError("no file that ships runs in ONNX Runtime, which a bundle's run.py needs")
    names = [v.format for v in ships]
    worth = [v.format for v in ships if v.over_fp32 is not None and v.over_fp32.interval[0] >= gate.min_speedup]
    candidates = worth or (["fp32"] if "fp32" in names else names)
    return min(candidates, key=lambda name: formats[name].latency.p50_ms)


def beyond_limits(model: ExportedModel, limits: Limits) -> tuple[str, ...]:
    """Return a clause for each limit exceeded by a file."""
    found = [_too_large(model, limits)] if _too_large(model, limits) else []
    limit = limits.max_latency_ms
    if limit is not None and model.latency.p50_ms > limit:
        found.append(f"median {model.latency.p50_ms:.4g} ms, above max_latency_ms {limit:g}")
    return tuple(found)


def require_a_size_within(formats: Mapping[str, ConvertedModel], limits: Limits) -> None:
    """Refuse a student without any file small enough, before anything is timed.

    Raises:
        ExportError: every file of the student is above max_size_bytes.
    """
    found = {name: _too_large(model, limits) for name, model in formats.items()}
    if found and all(found.values()):
        raise ExportError("no file of the student keeps the budget: " + "; ".join(f"{k} {v}" for k, v in found.items()))


def loses_too_much(found: Metrics, fp32: Metrics, max_accuracy_drop: float) -> bool:
    """True if a file's figure that chooses is further below fp32's than the gate allows."""
    return fp32.score - found.score > max_accuracy_drop + 1e-9


def _judge_fp32(fp32: ExportedModel, limits: Limits) -> Verdict:
    too_large = _too_large(fp32, limits)
    reason = too_large or "what the others are measured against"
    return Verdict(format="fp32", shipped=not too_large, reason=reason)


def _judge(model: ExportedModel, fp32: ExportedModel, over_fp32: Ratio, gate: GateConfig, limits: Limits) -> Verdict:
    worth, against = _worth(model, fp32, over_fp32, gate)
    for found in (_changed_nothing(model, fp32), _loses(model, fp32, gate), _too_large(model, limits)):
        if found:
            against.append(found)
    accuracy, further = (
        _accuracy(model, fp32),
        (_equalized(model), _bias_corrected(model), _in_float(model), _for_speed(model), _elsewhere(model)),
    )
    return Verdict(
        format=model.format,
        shipped=not against,
        reason="; ".join(filter(None, [*(against or [*worth, accuracy]), *further])),
        over_fp32=over_fp32,
    )


def _worth(
    model: ExportedModel, fp32: ExportedModel, over_fp32: Ratio, gate: GateConfig
) -> tuple[list[str], list[str]]:
    """List the reasons for a format and those against, by speed and size; speed counts by its interval's lower end."""
    shrunk = fp32.size_bytes / model.size_bytes
    fast, small = _speed(over_fp32), shrink(shrunk)
    if over_fp32.interval[0] >= gate.min_speedup:
        return [fast, small], []
    if shrunk < gate.min_shrink:
        return [], [f"{fast} and {small}; {gate.min_speedup:g}× faster or {gate.min_shrink:g}× smaller is needed"]
    if over_fp32.interval[0] < 1 / gate.max_slowdown:
        if f"{1 / over_fp32.value:.2f}" == f"{gate.max_slowdown:.2f}":  # two digits would hide the difference
            fast = _speed(over_fp32, digits=5)
        return [], [f"{fast}; a file that is {small} may be at most {gate.max_slowdown:g}× slower"]
    return [small, fast], []


def _changed_nothing(model: ExportedModel, fp32: ExportedModel) -> str:
    if model.sha256 == fp32.sha256 and model.runtime == fp32.runtime:  # another runtime may make the same file worth it
        return "the compression changed nothing: its file is fp32's, byte for byte"
    if model.precision != "fp32" and model.parity.max_abs_difference == 0:
        return f"the compression changed nothing: its logits are fp32's to the last bit on {model.parity.n:,} inputs"
    return ""


def _loses(model: ExportedModel, fp32: ExportedModel, gate: GateConfig) -> str:
    assert fp32.validation is not None
    assert model.validation is not None
    if not loses_too_much(model.validation, fp32.validation, gate.max_accuracy_drop):
        return ""
    return f"{_accuracy(model, fp32)}; at most {100 * gate.max_accuracy_drop:g} below are allowed"


def _accuracy(model: ExportedModel, fp32: ExportedModel) -> str:
    """Compare accuracy in words: `0.9 points below fp32 on 270 validation examples [−2.0, 0.2]`.

    The interval is of the paired difference.
    """
    assert fp32.validation is not None
    assert model.validation is not None
    n = model.validation.n
    difference = model.validation.score - fp32.validation.score
    is_balanced = model.difference is not None
    low, high = model.difference.interval if model.difference else paired_difference(model.lost, model.gained, n)
    interval = f"[{100 * low:+.1f}, {100 * high:+.1f}]".replace("-", "−")
    if abs(difference) < 1e-11:
        return f"fp32's {'mean recall' if is_balanced else 'accuracy'} on {n:,} validation examples {interval}"
    unit = " of mean recall" if is_balanced else ""
    words = f"{points(difference)}{unit} {'above' if difference > 0 else 'below'} fp32"
    return f"{words} on {n:,} validation examples {interval}"


def _equalized(model: ConvertedModel) -> str:
    """Tell that the ranges of channels were equalised before the file was quantised; empty if not."""
    pairs = f"{model.equalized} pair{'s' if model.equalized > 1 else ''}"
    return f"channels' ranges were equalised across {pairs} of layers" if model.equalized else ""


def _bias_corrected(model: ConvertedModel) -> str:
    """Tell that the file's biases were corrected; empty if not."""
    return "its biases were corrected, so that each channel has fp32's mean" if model.bias_corrected else ""


def _in_float(model: ConvertedModel) -> str:
    """Name the layers of an INT8 file that stay in float, with the reason; empty if there are none."""
    if not model.in_float:
        return ""
    shown = [f"{layer} ({100 * moved:.3g} %)" for layer, moved in list(model.in_float.items())[:3]]
    more = f" and {len(model.in_float) - len(shown)} more" if len(model.in_float) > len(shown) else ""
    plural = "layers stay" if len(model.in_float) > 1 else "layer stays"
    return (
        f"{len(model.in_float)} {plural} in float, as 8 bits there cost the accuracy: {', '.join(shown)}{more} (in "
        "brackets how far each alone moves the logits, of their spread)"
    )


def _for_speed(model: ConvertedModel) -> str:
    """Name the layers of an INT8 file that stay in float for its speed; empty if there are none."""
    if not model.for_speed:
        return ""
    more = f" and {len(model.for_speed) - 3} more" if len(model.for_speed) > 3 else ""
    return f"in float, as 8 bits there cost time: {', '.join(model.for_speed[:3])}{more}"


def _elsewhere(model: ConvertedModel) -> str:
    """Describe how a saturable INT8 file's accuracy depends on the processor; empty for others.

    The gate counted the worse accuracy.
    """
    about = model.arithmetic
    if about is None or not about.saturable:
        return ""
    if about.unknown:
        return (
            f"its products may saturate on processors without VNNI, and what that costs is not known: {about.unknown}"
        )
    shares = ", ".join(f"{100 * about.accuracy[kind]:.1f} % {where}" for kind, where in _KINDS.items())
    return f"its products saturate on processors without VNNI, so that the worse counts: {shares}"


def _too_large(model: ConvertedModel, limits: Limits) -> str:
    limit = limits.max_size_bytes
    if limit is None or model.size_bytes <= limit:
        return ""
    return f"{model.size_bytes:,} bytes, above max_size_bytes {limit:,}"


def _speed(ratio: Ratio, digits: int = 3) -> str:
    return speed(ratio.value, ratio.interval, "fp32", digits)
