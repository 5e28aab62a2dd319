"""Run the stages of the chain, in plain Python; `flows/prefect/flow.py` runs them as a Prefect flow."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from edgestill.export.result import ProfileResult
from edgestill.flows.chain import STAGES, stage_names, stages_of
from edgestill.flows.config.loading import config_of, load_config
from edgestill.flows.config.model import RunConfig
from edgestill.flows.given import config_with
from edgestill.flows.observer import Observer
from edgestill.flows.outcome import Outcome, Part
from edgestill.flows.progress import Forgiving, Progress, Silent
from edgestill.flows.report.again import report_again
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import BaselinesResult, R, RankCheckResult, ReportResult, Results
from edgestill.flows.stages.stage import Stage
from edgestill.flows.supervise import note_progress, note_stage
from edgestill.pipeline.device import select_device
from edgestill.pipeline.errors import ConfigError, MissingDependencyError, RunDirError, UserError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.nicety import nicety
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.teachers.python import GIVEN, PythonConfig, giving
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.search.result import SearchResult
from edgestill.search.tournament import TournamentResult

Call = Callable[[str, Callable[[], Any]], Any]  # (stage's name, work) -> the work's result


@contextmanager
def new_run(config: RunConfig, out: Path) -> Iterator[RunDir]:
    """Create a run directory below `out`, held by this process; remove it on an error that leaves nothing to keep."""
    select_device(config.device)  # refuses a missing GPU before anything is made
    with RunDir.create(out, config.name, config.seed, config) as run:
        try:
            yield run
        except BaseException as error:
            with suppress(RunDirError, OSError):  # the first error is the one to report
                if not is_kept(run, error):
                    run.discard()
            raise


def is_kept(run: RunDir, error: BaseException) -> bool:
    """True if a new run that ended with the error is kept, to go on later.

    It is not if no stage is done, nor if the user's mistake came before anything was trained.
    """
    done = run.manifest.stages
    is_mistaken = isinstance(error, UserError) and not isinstance(error, MissingDependencyError | RunDirError)
    return any(not is_mistaken or stage.is_worth_keeping for stage in STAGES if stage.name in done)


def compress(
    config: RunConfig | None = None,
    *,
    preset: str | None = None,
    settings: Sequence[str] = (),
    out: Path | str = "runs",
    progress: Progress | None = None,
    teacher: nn.Module | None = None,
    data: Any = None,
) -> Outcome | RankCheckResult:
    """Make a student that ships: search, tune, distill, export, measure, bundle, report.

    Args:
        config: of `load_config`; None: the preset's, or the built-in digits'.
        preset: a built-in configuration to start from, such as `digits`; in the place of `config`.
        settings: `key=value` each, such as `search.budget.max_params=50000`; with `preset`.
        out: folder that the new run is made in.
        progress: shows how far the run is; None: nothing is shown.
        teacher: a trained network, inputs to logits, in the place of the configured one. It is called with pixels in
            [0, 1]; the configuration's keys for `python` teachers (mean, std, size, labels, …) apply, with `teacher:
            python:given`. Such a run cannot be resumed by the command.
        data: examples in the place of the configured ones: a torch Dataset, a pair of arrays (pictures, labels), a pair
            (train, test) or a mapping of those, or a `datasets.Dataset`. They are kept in the cache for `resume`.

    Returns:
        Results and paths of the run; with `rank_check: {only: true}` the rank check's result.

    Raises:
        ConfigError: the configuration has a problem, or `config` stands beside `preset` or `settings`.
        EdgestillError: a stage failed; the run is kept, and `edgestill resume` goes on with it.
    """
    if config is not None and (preset is not None or settings):
        raise ConfigError(["config is given beside preset or settings; load_config joins them into one"])
    if data is not None:
        config = config_with(data, config, preset, settings)
    chosen = load_config(None, preset, settings) if config is None else config
    if teacher is not None:
        chosen = _taught_by_a_module(chosen)
    with giving(teacher), new_run(chosen, Path(out).expanduser()) as run:
        return run_chain(run, progress)


def _taught_by_a_module(config: RunConfig) -> RunConfig:
    """Return the configuration with the teacher that `giving` gives."""
    if isinstance(config.teacher, PythonConfig) and config.teacher.code == GIVEN:
        return config
    given = {"name": "python", "code": GIVEN, "training": config.teacher.training}
    try:
        return RunConfig.model_validate({**dict(config), "teacher": given})
    except ValidationError as error:
        raise ConfigError([problem["msg"].removeprefix("Value error, ") for problem in error.errors()]) from None


def run_chain(
    run: RunDir, progress: Progress | None = None, call: Call = lambda name, work: work()
) -> Outcome | RankCheckResult:
    """Run every stage in order; a stage already done for its inputs is read back, not repeated.

    Args:
        call: runs a stage's work; the Prefect flow passes its own, to run it as a task.

    Returns:
        The outcome, or the rank check's result with `rank_check: {only: true}`.
    """
    outcome: Outcome | RankCheckResult = _to_its_end(run, None, progress, call)
    return outcome


def run_part(
    run: RunDir,
    last: str | None,
    progress: Progress | None = None,
    call: Call = lambda name, work: work(),
    earlier: RunDir | None = None,
) -> Outcome | RankCheckResult | Part:
    """Run the stages up to `last`, as `run_chain` does all of them; None: all.

    Args:
        earlier: another run of the same origin; a stage that it has done for the same inputs is taken over from it.

    Returns:
        The part of the run that is done; for a run that ends there anyway, as `run_chain`.
    """
    outcome: Outcome | RankCheckResult | Part = _to_its_end(run, last, progress, call, earlier)
    return outcome


def _to_its_end(
    run: RunDir, last: str | None, progress: Progress | None, call: Call, earlier: RunDir | None = None
) -> Any:
    config = config_of(run)
    runner = Runner(run, config, progress or Silent(), call, last, earlier)
    results, unwritten = Results(), list[str]()
    try:
        for stage in stages_of(config, last):
            result = runner(stage, results)
            results.add(stage.name, result, stage.sentence(result))
        tested = results.get(ReportResult)
        if tested is None:
            runner.observer.close(is_finished=True)
            return _short_of_report(run, config, results, runner)
        if not runner.reused or not (run.root / tested.report).is_file():
            with nicety(f"{tested.report} was not written", unwritten):
                report_again(run, results, cautions=unwritten)
        runner.observer.note("bundle", str((run.root / tested.bundle).absolute()))
        runner.observer.close(is_finished=True)
    finally:
        runner.progress.close()
        runner.observer.close()
    return _outcome(run, results, (*run.cautions, *unwritten, *runner.progress.cautions, *runner.observer.cautions))


def _short_of_report(run: RunDir, config: RunConfig, results: Results, runner: "Runner") -> RankCheckResult | Part:
    if config.rank_check.only:
        return results.of(RankCheckResult)
    return Part(
        run=run.root,
        stage=list(results.sentences)[-1],
        sentences=tuple(f"{stage}: {sentence}" for stage, sentence in results.sentences.items()),
        cautions=(*run.cautions, *runner.progress.cautions, *runner.observer.cautions),
    )


def _outcome(run: RunDir, results: Results, cautions: tuple[str, ...]) -> Outcome:
    tested = results.of(ReportResult)
    return Outcome(
        run=run.root,
        bundle=run.root / tested.bundle,
        report=run.root / tested.report,
        teacher=results.of(TeacherResult),
        found=results.of(SearchResult),
        played=results.of(TournamentResult),
        distilled=results.shipped_student,
        profiled=results.of(ProfileResult),
        tested=tested,
        baselines=results.get(BaselinesResult),
        cautions=cautions,
    )


class Runner:
    """Runner of one stage after another: it reads back or computes each, records it and shows its progress."""

    def __init__(
        self,
        run: RunDir,
        config: RunConfig,
        progress: Progress,
        call: Call,
        last: str | None = None,
        earlier: RunDir | None = None,
    ) -> None:
        self._last, self._earlier = last, earlier
        self.run, self.progress, self.call = run, Forgiving(progress), call
        self.reused = False  # True if the last stage was done before
        self._names = stage_names(config)
        self.observer = Observer(config.trackers, run.root, config.model_dump(mode="json", exclude={"trackers"}))
        self._context = StageContext(run, config, self._tick, self.progress.say, self.observer.epoch)

    def __call__(self, stage: Stage[R], results: Results) -> R:
        inputs = stage.inputs_digest(self._context, results)
        context = dataclasses.replace(self._context.settled(results), inputs=inputs, cautions=[])
        self.progress.begin(stage.name, self._names.index(stage.name) + 1, len(self._names))
        self.reused = self.run.is_done(stage.name, inputs)
        start = time.perf_counter()
        note_stage(self.run.root, stage.name, stage.to_change, self._last)
        self.observer.begin(stage.name)
        result: R = self.call(stage.name, lambda: self._result(stage, context, results, start))
        self.progress.end(stage.name, time.perf_counter() - start, stage.sentence(result), self.reused)
        self.observer.end(stage.name, result, stage.sentence(result))
        return result

    def _result(self, stage: Stage[R], context: StageContext, results: Results, start: float) -> R:
        if self.reused:
            return self.run.read(stage.name, stage.result)  # all of it must be there
        self.run.note_origin()
        if self._earlier is not None and not stage.looks_outside and self._earlier.is_done(stage.name, context.inputs):
            self.run.take_over(self._earlier, stage.name)
            self.reused = True
            return self.run.read(stage.name, stage.result)
        with drawn_from(derive_seed(context.config.seed, "stage", stage.name)):
            result = stage.work(context, results)
        beside = () if stage.beside is None else (stage.beside,)
        self.run.finish(stage.name, result, context.inputs, time.perf_counter() - start, beside, context.cautions)
        return result

    def _tick(self, done: int, total: int, note: str) -> None:
        note_progress(done, total, note)
        self.progress.tick(done, total, note)
