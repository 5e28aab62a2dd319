"""What each stage's result says in one line; the terminal, the logs and the report share it."""

from functools import singledispatch

from distill.result import DistillResult, TuneResult
from export.result import ConvertResult, ProfileResult
from flows.stages import DataResult, ReportResult
from pipeline.teacher import TeacherResult
from search.result import SearchResult


@singledispatch
def sentence(result: object) -> str:
    """One line about a stage's result."""
    raise TypeError(f"no sentence for {type(result).__name__}")


@sentence.register
def _(result: DataResult) -> str:
    channels, height, width = result.task.input_shape
    sizes = ", ".join(f"{count:,} {name}" for name, count in result.sizes.items())
    return f"{result.task.num_classes} classes of {channels}x{height}x{width} images: {sizes}"


@sentence.register
def _(result: TeacherResult) -> str:
    how = f"trained, best at epoch {result.best_epoch}" if result.trained_here else "loaded"
    return f"{how}; {result.validation.accuracy:.2%} on validation, {result.cost.params:,} parameters"


@sentence.register
def _(result: SearchResult) -> str:
    failed = f", {len(result.failures)} failed" if result.failures else ""
    return (
        f"{result.winner.architecture} of {result.evaluated} scored{failed}; "
        f"{result.winner.cost.params:,} parameters, {result.winner.cost.flops:,} FLOPs"
    )


@sentence.register
def _(result: TuneResult) -> str:
    if not result.enabled:
        return "off"
    pruned = sum(trial.state == "PRUNED" for trial in result.trials)
    best = ", ".join(f"{name.split('.')[-1]} {value:.3g}" for name, value in result.best.items())
    return f"{result.best_value:.2%} on validation with {best}; {len(result.trials)} trials, {pruned} pruned"


@sentence.register
def _(result: DistillResult) -> str:
    stopped = ", stopped early" if result.stopped_early else ""
    return f"{result.validation.accuracy:.2%} on validation at epoch {result.best_epoch} of {len(result.curve)}{stopped}"


@sentence.register
def _(result: ConvertResult) -> str:
    parity = result.student.parity
    return (
        f"{result.student.size_bytes / 1e3:,.0f} kB ONNX (teacher {result.teacher.size_bytes / 1e3:,.0f} kB); logits "
        f"within {parity.max_abs_difference:.1e} of torch on {parity.n:,} inputs"
    )


@sentence.register
def _(result: ProfileResult) -> str:
    low, high = result.speedup_interval
    return (
        f"{result.student.latency.p50_ms:.3f} ms against the teacher's {result.teacher.latency.p50_ms:.3f} ms: "
        f"{result.speedup:.1f} times faster [{low:.1f}, {high:.1f}]"
    )


@sentence.register
def _(result: ReportResult) -> str:
    return (
        f"shipped file {result.shipped.accuracy:.2%} on {result.shipped.n} test images, "
        f"teacher {result.teacher.accuracy:.2%}"
    )
