"""The order of the stages, written here and nowhere else, in plain Python.

`flows/prefect/flow.py` is the same chain as a Prefect flow.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from edgestill.distill.result import DistillResult, PruneResult, TuneResult
from edgestill.export.config import GateConfig
from edgestill.export.result import ConvertResult, ProfileResult
from edgestill.flows import bundling, delivery, stages
from edgestill.flows.config.model import RunConfig
from edgestill.flows.heads import heads
from edgestill.flows.latency import latency_model
from edgestill.flows.outcome import Outcome
from edgestill.flows.progress import Forgiving, Progress, Silent
from edgestill.flows.pruning import prune_student
from edgestill.flows.quantization import QatResult, fine_tune_int8
from edgestill.flows.rank_check import RankCheckResult, check_ranks
from edgestill.flows.report.again import report_again
from edgestill.flows.sentences import sentence
from edgestill.flows.stage import DataResult, Stage
from edgestill.flows.supervise import note_progress, note_stage
from edgestill.flows.tournament import play_tournament
from edgestill.pipeline.device import select_device
from edgestill.pipeline.errors import RunDirError
from edgestill.pipeline.frozen import derive_seed, digest
from edgestill.pipeline.nicety import nicety
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.rundir import RunDir, file_digest
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.search.result import SearchResult
from edgestill.search.tournament import TournamentResult

Result = TypeVar("Result", bound=BaseModel)
Call = Callable[[str, Callable[[], Any]], Any]  # (stage's name, work) -> the work's result

STAGES = ("data", "teacher", "search", "tournament", "tune", "distill", "export", "qat", "profile", "report")
_BESIDE = {"report": (delivery.BUNDLE,)}  # a stage's results outside its own folder


def stage_names(config: RunConfig) -> tuple[str, ...]:
    """Names of a run's stages in order: STAGES, with `rank_check` and `prune` and without `qat` if so configured."""
    if config.rank_check.only:
        return (*STAGES[:2], "rank_check")
    behind = {"teacher": "rank_check"} if config.rank_check.students else {}
    behind |= {"distill": "prune"} if config.prune.enabled else {}
    left_out = {"qat"} if config.qat.mode == "never" else set()
    names = (name for stage in STAGES for name in (stage, behind.get(stage)))
    return tuple(name for name in names if name is not None and name not in left_out)


@contextmanager
def new_run(config: RunConfig, out: Path) -> Iterator[RunDir]:
    """Create a run directory below `out`, held by this process; remove it on an error before a stage is done."""
    select_device(config.device)  # refuses a missing GPU before anything is made
    with RunDir.create(out, config.name, config.seed, config) as run:
        try:
            yield run
        except BaseException:
            with suppress(RunDirError, OSError):  # the first error is the one to report
                if not run.manifest.stages:
                    run.discard()
            raise


def run_chain(run: RunDir, progress: Progress | None = None, call: Call = lambda name, work: work()) -> Outcome:
    """Run every stage in order; a stage already done for its inputs is read back, not repeated.

    Args:
        call: runs a stage's work; the Prefect flow passes its own, to run it as a task.
    """
    config = run.config(RunConfig)
    step = _Steps(run, config, progress or Silent(), call)
    with _closing(step.progress):
        data, teacher = _prepare(step, config)
        if config.rank_check.students:
            _check_ranks(step, config, teacher)
        trained = teacher if config.search.uses_trained_teacher else None
        predicted = _latency_model(run, config)
        search_inputs = (data, config.search, config.teacher, trained, *predicted, *heads(config.distill))
        found = step("search", SearchResult, search_inputs, stages.search_student)
        played = step(
            "tournament",
            TournamentResult,
            (teacher, found, config.search.shortlist, config.search.tournament, config.distill),
            lambda stage: play_tournament(stage, found),
        )
        winner = played.winner
        tuned = step(
            "tune",
            TuneResult,
            (teacher, winner, config.tune, config.distill),
            lambda stage: stages.tune_distillation(stage, winner),
        )
        distilled = step(
            "distill",
            DistillResult,
            (teacher, winner, config.distill, tuned.best),
            lambda stage: stages.distill_student(stage, winner, tuned),
        )
        pruned = _prune(step, config, teacher, distilled, tuned)
        distilled = distilled if pruned is None else pruned.applied_to(distilled)
        converted = step(
            "export",
            ConvertResult,
            (
                teacher,
                distilled,
                config.export.model_copy(update={"gate": GateConfig()}),
            ),  # the gate is applied by the profile stage
            lambda stage: delivery.export_models(stage, distilled),
        )
        fine_tuned = _fine_tune_int8(step, config, teacher, distilled, tuned, converted)
        converted = converted if fine_tuned is None else fine_tuned.applied_to(converted)
        profiled = step(
            "profile",
            ProfileResult,
            (converted, config.profile, config.export.gate, config.search.budget, config.search.latency.source),
            lambda stage: delivery.profile_models(stage, converted),
        )
        tested = step(
            "report",
            delivery.ReportResult,
            (profiled, distilled, fine_tuned, config.card),
            lambda stage: bundling.test_and_bundle(stage, teacher, distilled, profiled),
        )
        unwritten: list[str] = []
        if not step.reused or not (run.root / tested.report).is_file():
            with nicety(f"{tested.report} was not written", unwritten):
                report_again(run, cautions=unwritten)
    return Outcome(
        run=run.root,
        bundle=run.root / tested.bundle,
        report=run.root / tested.report,
        teacher=teacher,
        found=found,
        played=played,
        distilled=distilled,
        profiled=profiled,
        tested=tested,
        cautions=(*run.cautions, *unwritten, *step.progress.cautions),
    )


def run_configured(
    run: RunDir, progress: Progress | None = None, call: Call = lambda name, work: work()
) -> Outcome | RankCheckResult:
    """Run the whole chain, or the rank check alone with `rank_check: {only: true}`."""
    only = run.config(RunConfig).rank_check.only
    return run_rank_check(run, progress, call) if only else run_chain(run, progress, call)


def run_rank_check(
    run: RunDir, progress: Progress | None = None, call: Call = lambda name, work: work()
) -> RankCheckResult:
    """Run data, teacher and rank check alone, for a configuration with `rank_check: {only: true}`."""
    config = run.config(RunConfig)
    step = _Steps(run, config, progress or Silent(), call)
    with _closing(step.progress):
        _, teacher = _prepare(step, config)
        return _check_ranks(step, config, teacher)


def _prepare(step: "_Steps", config: RunConfig) -> tuple[DataResult, TeacherResult]:
    data = step("data", DataResult, (config.seed, config.read_data), stages.prepare_data)
    return data, step("teacher", TeacherResult, (data, config.teacher), stages.train_teacher)


def _check_ranks(step: "_Steps", config: RunConfig, teacher: TeacherResult) -> RankCheckResult:
    inputs = (teacher, config.rank_check, config.search, config.distill)
    return step("rank_check", RankCheckResult, inputs, check_ranks)


def _prune(
    step: "_Steps", config: RunConfig, teacher: TeacherResult, distilled: DistillResult, tuned: TuneResult
) -> PruneResult | None:
    """Run the prune stage; return None if pruning is off."""
    if not config.prune.enabled:
        return None
    inputs = (teacher, distilled, config.prune, config.distill, tuned.best)
    return step("prune", PruneResult, inputs, lambda stage: prune_student(stage, distilled, tuned))


def _fine_tune_int8(
    step: "_Steps",
    config: RunConfig,
    teacher: TeacherResult,
    distilled: DistillResult,
    tuned: TuneResult,
    converted: ConvertResult,
) -> QatResult | None:
    """Run the qat stage, which fine-tunes for INT8; return None if its mode is `never`."""
    if config.qat.mode == "never":
        return None
    drop = config.export.gate.max_accuracy_drop
    inputs = (teacher, distilled, converted, config.qat, config.distill, tuned.best, drop)
    return step("qat", QatResult, inputs, lambda stage: fine_tune_int8(stage, distilled, tuned, converted))


class _Steps:
    """Runner of one stage after another: it reads back or computes each, records it and shows its progress."""

    def __init__(self, run: RunDir, config: RunConfig, progress: Progress, call: Call) -> None:
        self.run, self.config, self.progress, self.call = run, config, Forgiving(progress), call
        self.reused = False  # True if the last stage was done before

    def __call__(
        self, name: str, kind: type[Result], inputs: tuple[Any, ...], work: Callable[[Stage], Result]
    ) -> Result:
        inputs_digest = digest(name, *inputs)
        stage = Stage(self.run, self.config, self._tick, self.progress.say, inputs_digest)
        names = stage_names(self.config)
        self.progress.begin(name, names.index(name) + 1, len(names))
        self.reused = reused = self.run.is_done(name, inputs_digest)
        start = time.perf_counter()

        note_stage(self.run.root, name)

        def compute() -> Result:
            if reused:
                return self.run.read(name, kind)
            self.run.note_origin()
            with drawn_from(derive_seed(self.config.seed, "stage", name)):
                result = work(stage)
            seconds = time.perf_counter() - start
            self.run.finish(name, result, inputs_digest, seconds, _BESIDE.get(name, ()), stage.cautions)
            return result

        result: Result = self.call(name, compute)
        self.progress.end(name, time.perf_counter() - start, sentence(result), reused)
        return result

    def _tick(self, done: int, total: int, note: str) -> None:
        note_progress(done, total, note)
        self.progress.tick(done, total, note)


def _latency_model(run: RunDir, config: RunConfig) -> tuple[str, ...]:
    """Digest of the latency model's file, if the search uses one: its path alone does not identify its content."""
    model = latency_model(run, config.search)
    return () if model is None or config.search.budget.max_latency_ms is None else (file_digest(model),)


@contextmanager
def _closing(progress: Progress) -> Iterator[None]:
    try:
        yield
    finally:
        progress.close()
