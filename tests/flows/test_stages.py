"""Every stage keeps its contract: it goes on when killed, repeats nothing, says a line; its result survives JSON."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cut
import pytest

from edgestill.flows.chain import STAGES, results_of, stages_of
from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.progress import Silent
from edgestill.flows.runner import Runner, new_run, run_chain
from edgestill.flows.stages.stage import Stage
from edgestill.pipeline.frozen import digest
from edgestill.pipeline.runs.rundir import RunDir

pytestmark = pytest.mark.engines

EVERY_STAGE = (
    "device.threads=1",
    "teacher.architecture=resnet8",
    "teacher.training.epochs=2",
    "rank_check.students=4",
    "rank_check.epochs=1",
    "nightly.warm_start=true",
    "search.space.widths=[[6,8],[8,12],[12,16]]",
    "search.space.blocks=[[1,2],[1,2],[1]]",
    "search.budget.max_params=26000",
    "search.evaluations=6",
    "search.workers=1",
    "search.draws=1",
    "search.baselines=[params]",
    "search.shortlist=2",
    "search.tournament.epochs=1",
    "distill.methods=auto",
    "distill.auto.methods=[logit_standardisation]",
    "distill.auto.epochs=1",
    "tune.trials=2",
    "tune.epochs=1",
    "distill.training.epochs=2",
    "prune.method=l1",
    "prune.epochs=2",
    "export.formats=[fp32,int8]",
    "export.calibration.method=minmax",
    "export.gate.max_slowdown=100",
    "qat.mode=always",
    "qat.epochs=1",
    "profile.timing.warmup_s=0.05",
    "profile.timing.duration_s=0.05",
    "profile.timing.min_samples=70",
    "baselines.seeds=2",
    "baselines.budget=10000",
)


class _KilledError(BaseException):
    pass


class _KilledAt(Silent):
    """Ends the process' work at the n-th tick."""

    def __init__(self, at: int) -> None:
        self.at, self.ticks = at, 0

    def tick(self, done: int, total: int, note: str) -> None:
        self.ticks += 1
        if self.ticks == self.at:
            raise _KilledError


class _Counting(Silent):
    """Counts the ticks of each stage."""

    def __init__(self) -> None:
        self.ticks: Counter[str] = Counter()

    def begin(self, stage: str, index: int, count: int) -> None:
        self._stage = stage

    def tick(self, done: int, total: int, note: str) -> None:
        self.ticks[self._stage] += 1


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[str]]:
    """A run that nothing disturbed, and its ticks by stage."""
    progress = _Counting()
    with new_run(load_config(preset="digits", settings=EVERY_STAGE), tmp_path_factory.mktemp("runs")) as run:
        run_chain(run, progress)
    return run.root, progress.ticks


@pytest.fixture(scope="module")
def whole(counted: tuple[Path, Counter[str]]) -> Path:
    return counted[0]


@pytest.fixture
def before(whole: Path, tmp_path: Path) -> Callable[[Stage[Any]], RunDir]:
    """The run as it was before a stage: without its folder and the later ones'."""

    def make(stage: Stage[Any]) -> RunDir:
        return RunDir.open(cut.before(whole, stage, tmp_path))

    return make


def runner(run: RunDir, progress: Silent) -> Runner:
    return Runner(run, run.config(RunConfig), progress, lambda name, work: work())


def test_every_stage_is_in_the_run(whole: Path) -> None:
    assert stages_of(RunDir.view(whole).config(RunConfig)) == STAGES
    assert len({stage.name for stage in STAGES}) == len({stage.result for stage in STAGES}) == len(STAGES)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_result_is_frozen_survives_json_and_is_said_in_one_line(stage: Stage[Any], whole: Path) -> None:
    found = stage.read(RunDir.view(whole))
    again = stage.result.model_validate_json(found.model_dump_json())
    assert again == found
    assert digest(again) == digest(found)
    said = stage.sentence(found)
    assert said
    assert said.replace("\N{NO-BREAK SPACE}", " ").isprintable()
    assert stage.to_change


def test_nothing_that_is_done_is_done_again(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in STAGES:
        monkeypatch.setattr(type(stage), "work", lambda *given: pytest.fail("was done"))
    files = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file() and path.name != ".lock"}
    with RunDir.open(whole) as run:
        run_chain(run)
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_that_was_killed_goes_on_to_the_same_result(
    stage: Stage[Any], counted: tuple[Path, Counter[str]], before: Any
) -> None:
    whole, ticks = counted
    expected = cut.timeless(stage.read(RunDir.view(whole)).model_dump(mode="json"))
    at = (ticks[stage.name] + 1) // 2
    with before(stage) as run:
        results = results_of(run, run.config(RunConfig))
        if at:
            with pytest.raises(_KilledError):
                runner(run, _KilledAt(at))(stage, results)
            assert stage.name not in run.manifest.stages
        done = runner(run, Silent())
        found = done(stage, results)
        assert not done.reused
        assert cut.timeless(found.model_dump(mode="json")) == expected
        assert done(stage, results) == found
        assert done.reused
