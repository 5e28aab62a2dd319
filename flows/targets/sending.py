"""Jobs for a target, from the files of a run, of a bundle, or from one exported candidate."""

from collections.abc import Callable, Mapping
from pathlib import Path

from edgestill.export.bundle.probes import COUNT
from edgestill.export.device.document import ProfileDocument
from edgestill.export.formats import FORMATS
from edgestill.export.result import ConvertResult
from edgestill.export.targets.config import TargetConfig
from edgestill.export.targets.job import Job, Sent, Timed, make_job
from edgestill.export.targets.judged import TEACHER
from edgestill.export.targets.measure import Device
from edgestill.flows.targets.carried import carried
from edgestill.pipeline.task import Task

_MOST_TEACHER_BYTES = 2**28  # a larger teacher is not sent to a small board


def job_of_files(
    files: ConvertResult, root: Path, task: Task, target: TargetConfig, timed: Timed, architecture: str
) -> Job:
    """Return the job to measure the student's files that the target runs, and the teacher's beside them.

    INT8 files get their answers to probe inputs: they show if the device computes INT8 otherwise.
    """
    from safetensors.numpy import save

    inputs = task.inputs.probes(COUNT)
    sent: dict[str, Sent] = {}
    logits = {}
    for name, model in files.formats.items():
        if target.runs(name):
            path, form = root / model.path, FORMATS[name]
            beside = tuple((suffix, path.with_suffix(suffix).read_bytes()) for suffix in form.beside)
            sent[name] = Sent(path.read_bytes(), name, form.precision, form.suffix, beside)
            if form.precision == "int8":
                logits[name] = form.open_exact(path, 1)(inputs)
    if files.teacher is not None and files.teacher.size_bytes <= _MOST_TEACHER_BYTES:
        sent[TEACHER] = Sent((root / files.teacher.path).read_bytes(), TEACHER, "fp32")
    return make_job(sent, timed, save({"inputs": inputs, **logits}) if logits else None, architecture)


def job_of_candidates(models: Mapping[str, bytes], timed: Timed, form: str = "fp32") -> Job:
    """Return the job to measure files of students that nobody keeps."""
    precision = FORMATS[form].precision
    return make_job({name: Sent(data, form, precision) for name, data in models.items()}, timed)


def measured(
    job: Job, target: TargetConfig, opset: int | None, say: Callable[[str], None], cautions: list[str]
) -> ProfileDocument:
    """Measure a job on a target, by a connection or by a person's hands.

    Args:
        cautions: gets a sentence for each thing that went on without.

    Raises:
        TargetError, ExportError: it cannot be measured now; says why.
    """
    if target.is_carried:
        return carried(target, job)
    with Device(target, say) as device:
        found = device.measure(job, opset)
        cautions.extend(device.cautions)
    return found


def length_of(task: Task) -> int:
    """Return the size of inputs' sides that a file may leave open, as a bundle's script takes it."""
    return int(task.inputs.length or max(task.input_shape[-2:]))
