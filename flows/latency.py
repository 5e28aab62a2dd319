"""Latencies for a search: the candidate exported and timed here, or a latency model's prediction."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from edgestill.export.calibration import MIN_EXAMPLES, CalibrationConfig
from edgestill.export.config import ExportConfig
from edgestill.export.device.document import ProfileDocument
from edgestill.export.file_timing import ProbeSettings, time_files
from edgestill.export.formats import FORMATS, Source
from edgestill.export.onnx.write import to_onnx
from edgestill.export.targets.config import TargetConfig
from edgestill.export.targets.job import Timed
from edgestill.export.targets.measure import Device
from edgestill.flows.stages.context import StageContext
from edgestill.flows.supervise import attempting
from edgestill.flows.targets.sending import job_of_candidates
from edgestill.pipeline.errors import BudgetError, ConfigError
from edgestill.pipeline.networks.trace import Trace
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.task import Task
from edgestill.pipeline.timing.timing import Timing
from edgestill.search.config import SearchConfig
from edgestill.search.ends import least_within_budget
from edgestill.search.hardware_costs import Latency, LatencySource
from edgestill.search.latency.model import LatencyModel, read_latency_model
from edgestill.search.scoring.cost_table import Shipped
from edgestill.search.space import Architecture, SearchSpace
from edgestill.search.spaces import make_space

_MODEL = "latency_model.json"
_NEAR = 1.3  # times the limit: a busy machine's medians differ by as much


def latency_source(
    config: SearchConfig, task: Task, opset: int, target: TargetConfig | None = None
) -> LatencySource | None:
    """Make the latency source set by `search.latency`; return None if the budget does not limit latency.

    Args:
        target: the device to measure on; None: this machine.

    Raises:
        DataError: the model's file cannot be used for this search.
        ConfigError: later, on measuring a candidate: the timing gives no median.
    """
    if config.budget.max_latency_ms is None:
        return None
    space, latency = make_space(config.space), config.latency
    settings = ProbeSettings(latency.timing, latency.threads, latency.batch, length=task.input_shape[0])
    if target is not None:
        settings = settings._replace(threads=target.threads)
    measure = _Measure(space, task, opset, settings, target, latency.format)
    if latency.source == "measured" or latency.model is None:
        learns = not latency.every
        return LatencySource(lambda architecture, trace: Latency(measure(architecture), None), measure, True, learns)
    model = read_latency_model(latency.model)
    model.require_space(space, str(latency.model))
    model.require_input(task, str(latency.model))
    if model.threads is not None:
        settings = settings._replace(threads=model.threads, batch=model.batch)

    def predict(architecture: Architecture, trace: Trace) -> Latency:
        return Latency(*model.predict(trace))

    measurable = is_here(model) if target is None else not target.is_carried
    return LatencySource(predict, _Measure(space, task, opset, settings, target, "fp32") if measurable else None, False)


def latency_of(context: StageContext, task: Task) -> LatencySource | None:
    """Make the latency source of a run, from the run's own copy of the latency model."""
    config = context.config.search
    latency = config.latency.model_copy(update={"model": latency_model(context.run, config)})
    own, whole = config.model_copy(update={"latency": latency}), context.config
    return latency_source(own, task, whole.export.opset, whole.latency_target)


def require_reachable_latency(context: StageContext, task: Task, shipped: Shipped | None) -> None:
    """Refuse a latency limit that the students of least cost miss, measured here; a near miss is a caution.

    Raises:
        BudgetError: names the fastest student found, with its latency.
    """
    config, source = context.config.search, latency_of(context, task)
    limit = config.budget.max_latency_ms
    if limit is None or source is None or source.measure is None or not source.is_measured:
        return
    least = map(context.space.format, least_within_budget(config, task, context.seed("search"), shipped))
    measured = {text: source.measure(context.space.parse(text)) for text in least}
    fastest = min(measured, key=lambda text: measured[text])
    if measured[fastest] <= limit:
        return
    target = context.config.latency_target
    where = "here" if target is None else f"on {target.name}"
    found = (
        f"the smallest student of space {context.space.name!r}, {fastest}, takes {measured[fastest]:.4g} ms {where}, "
        f"above max_latency_ms {limit:g}"
    )
    if measured[fastest] > _NEAR * limit:
        raise BudgetError(f"{found}; raise that limit, or offer the space smaller choices")
    context.cautions.append(f"{found}: the search may find no student within budget")


def keep_latency_model(context: StageContext) -> None:
    """Copy the latency model into the run, so later changes to the file do not affect the run."""
    model = context.config.search.latency.model
    if model is not None:
        context.run.write("data", _MODEL, model.read_bytes())


def latency_model(run: RunDir, config: SearchConfig) -> Path | None:
    """Path of the run's copy of the latency model; before there is one, the configured path."""
    kept = run.root / "data" / _MODEL
    return kept if config.latency.model is not None and kept.is_file() else config.latency.model


def is_here(model: LatencyModel) -> bool:
    """True if the model was measured on a machine with this one's CPU and number of cores."""
    here = describe_machine()
    return model.machine is not None and all(model.machine.get(k) == here[k] for k in ("cpu", "cores"))


def export_student(space: SearchSpace, architecture: Architecture, task: Task, opset: int) -> bytes:
    """Export a fresh student to ONNX; its weights do not affect its speed."""
    with drawn_from(0):
        network = space.build(architecture, task)
    return to_onnx(network, task.inputs, opset)


def in_format(data: bytes, name: str, task: Task) -> bytes:
    """Return a fresh student's file in another form; ranges of drawn inputs do for its speed.

    Raises:
        ExportError: there is no such form of this network.
    """
    if name == "fp32":
        return data
    with tempfile.TemporaryDirectory(prefix="edgestill-") as folder:
        path = Path(folder) / "student.onnx"
        path.write_bytes(data)
        source = Source(path, nn.Identity(), task, task.inputs.probes(2 * MIN_EXAMPLES))
        config = ExportConfig(calibration=CalibrationConfig(method="minmax"))
        return FORMATS[name].build(source, config)[".onnx"]


def median_ms(timing: Timing) -> float:
    """Median in ms, rounded to six significant digits.

    Raises:
        ConfigError: there are too few samples for a median.
    """
    median = timing.percentile(50)
    if median is None:
        raise ConfigError([f"{len(timing.samples_ms)} timed calls give no median; raise timing.min_samples"])
    return float(f"{median:.6g}")


def profiled_on(
    device: Device, files: Mapping[str, bytes], settings: ProbeSettings, opset: int, form: str = "fp32"
) -> ProfileDocument:
    """Measure files of a format on a device, in turns; the files are removed there and the connection is closed.

    Raises:
        TargetError: the device cannot be reached, or cannot measure now.
        ExportError: its runtime refuses a file.
    """
    timed = Timed((settings.threads,), (settings.batch,), settings.timing.duration_s, 1, settings.length)
    with device:
        return device.measure(job_of_candidates(files, timed, form), opset, keep=False)


def medians_of(profile: ProfileDocument) -> dict[str, float]:
    """Return the median of each model in ms, rounded to six significant digits."""
    return {result.model: float(f"{result.summary.percentiles['p50_ms']:.6g}") for result in profile.results}


class _Measure:
    """Function from a student to its median latency in ms, exported and timed in ONNX Runtime here or on a target."""

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        opset: int,
        settings: ProbeSettings,
        target: TargetConfig | None,
        form: str,
    ) -> None:
        self._space, self._task, self._opset, self._settings, self._form = space, task, opset, settings, form
        self._device = None if target is None else Device(target)

    def __call__(self, architecture: Architecture) -> float:
        with attempting(f"the latency of {self._space.format(architecture)}"):
            data = export_student(self._space, architecture, self._task, self._opset)
            data = in_format(data, self._form, self._task)
            if self._device is not None:
                student = {"student": data}
                return medians_of(profiled_on(self._device, student, self._settings, self._opset, self._form))[
                    "student"
                ]
            return median_ms(time_files({"student": data}, self._settings)["student"])
