"""The table of what ships: teacher and student in every format, from a finished run or from one made here.

    python benchmarks/ship.py runs/20260101_120000_cifar10_abc123 [--duration 10]
    python benchmarks/ship.py --preset cifar10 --set teacher.weights=resnet56.th --set distill.training.epochs=30

Size and accuracy are of the exported files, accuracy on the test images with its 95 % interval (Wilson). Latency is a
single call at batch 1 on one thread, all files taking turns; `--duration` measures it again, that many seconds a file,
and says so. Ratios are to the teacher's file, with the 95 % interval over paired turns. Beside them, how
long the student was trained.
"""

import argparse
import os
from pathlib import Path
from typing import NamedTuple

import torch

from edgestill.distill.result import DistillResult
from edgestill.export.gate import Limits
from edgestill.export.result import ConvertResult, ExportedModel, ProfileResult, Ratio
from edgestill.export.timing import profile
from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.progress import Silent
from edgestill.flows.runner import new_run, run_chain
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import QatResult, ReportResult
from edgestill.pipeline.figures import duration
from edgestill.pipeline.runs.manifest import Manifest
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.teachers import make_teacher
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.pipeline.training.metrics import Metrics, wilson


class Found(NamedTuple):
    """What a finished run holds, with the latencies that are to be shown."""

    config: RunConfig
    manifest: Manifest
    teacher: TeacherResult
    distilled: DistillResult
    profiled: ProfileResult
    tested: ReportResult

    @property
    def teacher_file(self) -> Metrics:
        """Of the teacher's ONNX file, on test."""
        return self.tested.teacher_file or self.tested.teacher


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    root = arguments.run or _made_here(arguments)
    found = read(root, arguments.duration)
    for line in (*conditions(found, arguments.duration), "", *table(found), "", *targets(found)):
        print(line)


def read(root: Path, again_s: float | None) -> Found:
    """The run's results; its files are timed again for `again_s` seconds each, where that is given."""
    run = RunDir.view(root)
    config = run.config(RunConfig)
    stage = StageContext(run, config, lambda done, total, note: None)
    profiled = run.read("profile", ProfileResult)
    if again_s is not None:
        profiled = _timed_again(stage, profiled_files(run, config, profiled), again_s)
    return Found(
        config=config,
        manifest=run.manifest,
        teacher=run.read("teacher", TeacherResult),
        distilled=run.read("distill", DistillResult),
        profiled=profiled,
        tested=run.read("report", ReportResult),
    )


def profiled_files(run: RunDir, config: RunConfig, profiled: ProfileResult) -> ConvertResult:
    """The files that the run timed: the export's, with the INT8 files that fine-tuning put in their place."""
    converted = run.read("export", ConvertResult)
    if config.qat.mode != "never":
        converted = run.read("qat", QatResult).applied_to(converted)
    timed = {name: model.sha256 for name, model in profiled.formats.items()}
    assert timed == {name: converted.formats[name].sha256 for name in timed}, "other files than the profiled ones"
    return converted


def table(found: Found) -> list[str]:
    """Markdown: a row for the teacher's file and for each of the student's."""
    profiled, teacher = found.profiled, found.profiled.teacher
    rows = [_row("teacher fp32", teacher, found.teacher_file, teacher, None, "")]
    for verdict in profiled.verdicts:
        name = verdict.format
        if name not in profiled.formats:
            rows.append(f"| student {name} | | | | | | | {verdict.sentence} |")
            continue
        tested = found.tested.formats[name]
        note = "ships, default" if name == profiled.default else verdict.sentence.removeprefix(f"{name} ")
        rows.append(_row(f"student {name}", profiled.formats[name], tested, teacher, profiled.speedups[name], note))
    return [
        "| file | bytes | times smaller | test accuracy | p50, ms | p90, ms | times faster | ships? |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]


def conditions(found: Found, again_s: float | None) -> list[str]:
    """Hardware, data and training, without which the figures mean nothing."""
    manifest, distilled, latency = found.manifest, found.distilled, found.profiled.teacher.latency
    seconds = manifest.stages["distill"].seconds
    trained = "trained in this run" if found.teacher.trained_here else "given"
    sizes = f"{found.teacher.cost.params:,} and {distilled.cost.params:,} parameters"
    when = "timed again now" if again_s is not None else "timed in the run"
    return [
        f"{found.profiled.cpu}, {latency.runtime}, {latency.threads} thread, batch {latency.batch}; {when}, load "
        f"{found.profiled.load_before or 0:.2f} before; {latency.summary['n']:,} calls of the teacher's file",
        f"data {found.config.data.name}, {found.tested.shipped.n:,} test examples, seed {found.config.seed}; teacher "
        f"{make_teacher(found.config.teacher).title} ({trained}), student {distilled.architecture}: {sizes}",
        f"distillation: {len(distilled.curve)} epochs, best {distilled.best_epoch}, {duration(seconds)} on "
        f"{manifest.machine.get('accelerator') or manifest.machine.get('cpu', 'this machine')}, methods "
        f"{', '.join(str(method['name']) for method in distilled.methods)}; validation "
        f"{distilled.validation.accuracy:.2%} (teacher {found.teacher.validation.accuracy:.2%})",
        f"commit {manifest.git_commit or 'unknown'}, configuration {manifest.config_digest[:12]}",
    ]


def targets(found: Found) -> list[str]:
    """What issue and README promise of INT8, and whether this run keeps it."""
    if "int8" not in found.profiled.formats:
        return ["no int8 file"]
    teacher, int8 = found.profiled.teacher, found.profiled.formats["int8"]
    smaller, faster = teacher.size_bytes / int8.size_bytes, found.profiled.speedups["int8"]
    points = 100 * (found.teacher_file.accuracy - found.tested.formats["int8"].accuracy)
    return [
        f"int8 against the teacher's file: {smaller:.2f} times smaller (8 asked: {_kept(smaller >= 8)}), "
        f"{faster.value:.2f} times faster [{faster.interval[0]:.2f}, {faster.interval[1]:.2f}] "
        f"(5 asked: {_kept(faster.interval[0] >= 5)}), {points:.2f} points of test accuracy below it"
    ]


def _row(
    name: str, model: ExportedModel, tested: Metrics, teacher: ExportedModel, ratio: Ratio | None, note: str
) -> str:
    low, high = wilson(tested.accuracy, tested.n)
    summary = model.latency.summary
    p90 = f"{summary['p90_ms']:.3f}" if "p90_ms" in summary else "not enough calls"
    speed = "1" if ratio is None else f"{ratio.value:.2f} [{ratio.interval[0]:.2f}, {ratio.interval[1]:.2f}]"
    return (
        f"| {name} | {model.size_bytes:,} | {teacher.size_bytes / model.size_bytes:.2f} | {tested.accuracy:.2%} "
        f"[{100 * low:.2f}, {100 * high:.2f}] | {model.latency.p50_ms:.3f} | {p90} | {speed} | {note} |"
    )


def _timed_again(stage: StageContext, converted: ConvertResult, seconds: float) -> ProfileResult:
    config = stage.config.profile
    timing = config.timing.model_copy(update={"duration_s": seconds, "warmup_s": 1.0, "max_samples": 10**6})
    validation = stage.splits().validation
    inputs = validation.batch(torch.arange(min(64, len(validation)))).inputs.contiguous().numpy()
    one_thread = config.model_copy(update={"threads": 1, "timing": timing})
    result, _ = profile(converted, stage.run.root, inputs, one_thread, stage.config.export.gate, Limits())
    return result


def _made_here(arguments: argparse.Namespace) -> Path:
    config = load_config(preset=arguments.preset, settings=["baselines.enabled=false", *arguments.settings])
    with new_run(config, arguments.out) as run:
        return run_chain(run, Silent()).run


def _kept(is_kept: bool) -> str:
    return "kept" if is_kept else "not kept"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="a finished run's folder; without it, one is made")
    parser.add_argument("--preset", default="cifar10", help="of the run that is made")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--duration", type=float, help="time the files again, seconds each")
    arguments = parser.parse_args()
    if arguments.run is not None and not (arguments.run / "manifest.json").is_file():
        parser.error(f"{arguments.run} is no run: it has no manifest.json")
    return arguments


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
