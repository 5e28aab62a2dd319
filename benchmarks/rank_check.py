"""Rank check of runs on their own task, with the measured latency of each student among the scores.

    edgestill rank-check …          # one run or more
    python benchmarks/rank_check.py RUN [RUN …]

Each trained student's fp32 file is timed in ONNX Runtime, all in turns. Kendall's tau with validation accuracy has its
95 % interval, and stands beside those of every scorer of the run, parameters and FLOPs among them.
"""

import argparse
from pathlib import Path

from edgestill.export.file_timing import ProbeSettings, time_files
from edgestill.flows.config import config_of
from edgestill.flows.latency import export_student, median_ms
from edgestill.flows.stages.results import DataResult, RankCheckResult
from edgestill.flows.wording.verdicts import rank_cells
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.timing.timing import TimingConfig
from edgestill.search.rank_correlation import RankedStudent, rank_scorers
from edgestill.search.spaces import make_space

LATENCY = "measured latency"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime")
    given = parser.parse_args()
    print(describe_machine()["cpu"])
    for run in given.runs:
        print(f"\n{table(run, given.threads)}")


def table(folder: Path, threads: int) -> str:
    run = RunDir.view(folder)
    config, checked, task = config_of(run), run.read("rank_check", RankCheckResult), run.read("data", DataResult).task
    space = make_space(config.search.space)
    trained = [student for student in checked.students if student.accuracy is not None]
    files = {
        s.architecture: export_student(space, space.parse(s.architecture), task, config.export.opset) for s in trained
    }
    settings = ProbeSettings(TimingConfig(), threads, length=task.input_shape[0])
    timed = {name: median_ms(timing) for name, timing in time_files(files, settings, config.seed).items()}
    students = [_with_latency(student, timed[student.architecture]) for student in trained]
    names = [*sorted({name for student in students for name in student.scores})]
    accuracies, spent = [s.accuracy or 0.0 for s in students], sorted(timed.values())
    lines = [
        f"space {space.name}: {len(students)} students, {checked.epochs} epochs of {checked.train_images:,} images; "
        f"accuracies {min(accuracies):.1%} to {max(accuracies):.1%}, latencies {spent[0]:.2f} to {spent[-1]:.2f} ms, "
        f"{threads} thread(s)",
        "",
        "| score | Kendall tau | 95 % interval | students | no score |",
        "|---|---|---|---|---|",
        *(f"| {row.scorer} | {' | '.join(rank_cells(row))} |" for row in rank_scorers(students, names)),
    ]
    return "\n".join(lines)


def _with_latency(student: RankedStudent, latency_ms: float) -> RankedStudent:
    return student.model_copy(update={"scores": {**student.scores, LATENCY: latency_ms}})


if __name__ == "__main__":
    main()
