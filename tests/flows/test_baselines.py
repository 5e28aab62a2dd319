"""Baselines: which trainings there is time for, that they are paired, and the sentence on what they show."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

from edgestill.distill.config import DistillConfig
from edgestill.distill.result import TuneResult
from edgestill.flows.config import RunConfig, config_of, load_config
from edgestill.flows.report import worth as page
from edgestill.flows.report.data import ReportData
from edgestill.flows.stages.baselines.allowance import Allowance
from edgestill.flows.stages.baselines.arms import Arm, arms_of, largest_of
from edgestill.flows.stages.baselines.rounds import Rounds
from edgestill.flows.stages.baselines.tested import worth_of
from edgestill.flows.stages.baselines.trainings import Trainings
from edgestill.flows.stages.context import WEIGHTS, StageContext
from edgestill.flows.stages.results import (
    ArmFigures,
    BaselineArm,
    BaselinesResult,
    BaselineTraining,
    LatencyRatio,
    ReportResult,
    Results,
    Worth,
)
from edgestill.flows.stages.training import taught
from edgestill.flows.wording.worth import trainings_clause, worth_rows, worth_sentence, worth_sentences
from edgestill.pipeline.cache import cache_folder
from edgestill.pipeline.data.loading import load_splits, load_test
from edgestill.pipeline.errors import FailedError, TrainingError
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.checkpoint import load_weights, weights_bytes
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.teachers import build_teacher, make_teacher
from edgestill.pipeline.training import fit as loop
from edgestill.pipeline.training.difference import Difference
from edgestill.pipeline.training.metrics import Metrics, evaluate
from edgestill.search.budget import Budget
from edgestill.search.result import Candidate, SearchResult
from edgestill.search.tournament import Entrant, TournamentResult

SETTINGS = ("teacher.architecture=resnet8", "data.limit=64", "distill.training.batch_size=16", "device.threads=1")
STUDENT, LARGE = "1-1-1/4-4-8", "1-1-1/4-4-16"


def candidate(architecture: str, params: int) -> Candidate:
    return Candidate(architecture=architecture, cost=Cost(params=params, flops=10 * params), scores={}, std={})


def arm(name: Any, **changes: Any) -> Arm:
    return Arm(name, candidate(STUDENT, 100), DistillConfig(), **changes)


def training(name: Any, seed: int = 0, seconds: float = 1.0) -> BaselineTraining:
    metrics = Metrics(accuracy=0.9, cross_entropy=0.1, n=10)
    return BaselineTraining(
        arm=name, seed=seed, weights="w", validation=metrics, best_epoch=1, epochs=1, seconds=seconds
    )


class Played:
    """Rounds whose trainings take given seconds, and which of them were made."""

    def __init__(self, allowed_s: float, seconds: dict[str, float], known: Sequence[Any] = (), stop: int = 99) -> None:
        self.made, self.journal, self._stop, self._seconds = list[str](), list[Any](known), stop, seconds
        allowance = Allowance(allowed_s, {name: abs(taken) for name, taken in seconds.items()})
        self.rounds = Rounds(training("recipe"), allowance, known, self.journal.append)

    def __call__(self, *arms: Arm, seeds: int = 3) -> list[str]:
        self.rounds.play(arms, seeds, self._train)
        return [f"{one.arm} {one.seed}" for one in self.rounds.trainings]

    def _train(self, arm: Arm, seed: int) -> BaselineTraining:
        if len(self.made) == self._stop:
            raise KeyboardInterrupt
        self.made.append(f"{arm.name} {seed}")
        if self._seconds[arm.name] < 0:
            raise TrainingError("the loss became nan")
        return training(arm.name, seed, self._seconds[arm.name])


RECIPE, ALONE, LARGEST = arm("recipe"), arm("no_teacher", is_tunable=True), arm("largest")
EACH = {"recipe": 2.0, "no_teacher": 1.0, "largest": 4.0}


def test_it_goes_seed_by_seed_and_the_students_own_training_is_not_repeated() -> None:
    assert Played(100, EACH)(RECIPE, ALONE, LARGEST, seeds=2) == [
        "recipe 0", "no_teacher 0", "largest 0", "recipe 1", "no_teacher 1", "largest 1",
    ]  # fmt: skip


def test_an_arm_without_time_for_a_seed_has_no_later_one_and_the_others_go_on() -> None:
    found = Played(12, EACH)(RECIPE, ALONE, LARGEST)  # the second of the largest would end at 5 + 3 + 4
    assert found[-1] == "largest 1"
    found = Played(11.9, EACH)(RECIPE, ALONE, LARGEST)
    assert found == ["recipe 0", "no_teacher 0", "largest 0", "recipe 1", "no_teacher 1", "recipe 2", "no_teacher 2"]


def test_no_seed_is_begun_that_leaves_the_recipe_alone() -> None:
    assert Played(3.9, EACH)(RECIPE, ALONE) == ["recipe 0", "no_teacher 0"]  # 1 + 2 + 1 are more
    assert Played(4, EACH)(RECIPE, ALONE)[-1] == "no_teacher 1"
    assert Played(0.5, EACH)(RECIPE, ALONE) == ["recipe 0"]


def test_a_failed_training_ends_its_arm_alone() -> None:
    played = Played(100, EACH | {"largest": -1.0})
    assert played(RECIPE, LARGEST, ALONE, seeds=2) == ["recipe 0", "no_teacher 0", "recipe 1", "no_teacher 1"]
    assert played.rounds.failures == {"largest": "TrainingError: the loss became nan"}
    again = Played(100, EACH, played.journal)
    again(RECIPE, LARGEST, ALONE, seeds=2)
    assert again.made == []
    assert again.rounds.failures == played.rounds.failures


@pytest.mark.parametrize("stop", range(5))
def test_rounds_that_were_interrupted_go_on_and_repeat_nothing(stop: int) -> None:
    whole = Played(11.9, EACH)(RECIPE, ALONE, LARGEST)
    killed = Played(11.9, EACH, stop=stop)
    with pytest.raises(KeyboardInterrupt):
        killed(RECIPE, ALONE, LARGEST)
    resumed = Played(11.9, EACH, killed.journal)
    assert resumed(RECIPE, ALONE, LARGEST) == whole
    assert [*killed.made, *resumed.made] == [name for name in whole if name != "recipe 0"]


def test_arms_are_tuned_only_if_there_is_time_for_that_and_for_every_training() -> None:
    asked: list[str] = []

    def tune(arm: Arm) -> dict[str, float]:
        asked.append(arm.name)
        return {"training.learning_rate": 0.25}

    # 1 + 2 + 1 for the trainings of two seeds, and 10 for tuning
    short, enough = Played(13.9, EACH), Played(14, EACH)
    assert short.rounds.tuned((RECIPE, ALONE), 2, tune, 10.0) == (RECIPE, ALONE)
    assert not short.rounds.are_tuned
    arms = enough.rounds.tuned((RECIPE, ALONE), 2, tune, 10.0)
    assert asked == ["no_teacher"]
    assert enough.rounds.are_tuned
    assert [one.config.training.learning_rate for one in arms] == [0.05, 0.25]
    again = Played(0, EACH, enough.journal)  # the decision stays
    assert again.rounds.tuned((RECIPE, ALONE), 2, tune, 10.0) == arms
    assert asked == ["no_teacher"]
    assert Played(99, EACH).rounds.tuned((RECIPE, ALONE), 2, tune, 0.0) == (RECIPE, ALONE)  # nor was the recipe


def test_an_arm_that_cannot_be_tuned_is_told_and_left_out() -> None:
    def tune(arm: Arm) -> dict[str, float]:
        raise FailedError("none of 2 tuning trials completed")

    played = Played(99, EACH)
    arms = played.rounds.tuned((RECIPE, ALONE, LARGEST), 1, tune, 1.0)
    assert played(*arms, seeds=1) == ["recipe 0", "largest 0"]
    assert played.rounds.failures == {"no_teacher": "FailedError: none of 2 tuning trials completed"}


def results(chosen: str = STUDENT, best: dict[str, float] | None = None, failed: bool = False) -> Results:
    small, large = candidate(STUDENT, 100), candidate(LARGE, 200)
    winner = small if chosen == STUDENT else large
    found = SearchResult(
        space="resnet", space_size=2, scorer="params", combine="sum", budget=Budget(), winner=small,
        strategy="evolution", front=(), picks={"params": large}, evaluated=1, exhaustive=False, failures=(),
        candidates=(small,), notes=(),
    )  # fmt: skip
    entrants = (Entrant(candidate=large, rank=None, most_params=True, failure="too slow"),) if failed else ()
    played = TournamentResult(enabled=True, winner=winner, search_winner=small, entrants=entrants)
    collected = Results()
    tuned = TuneResult(enabled=True, best=best or {}, best_value=None, best_trial=None, trials=())
    for stage, result in (("search", found), ("tournament", played), ("tune", tuned)):
        collected.add(stage, result, "")
    return collected


def names(settings: Sequence[str], **changes: Any) -> list[str]:
    return [one.name for one in arms_of(load_config(preset="digits", settings=settings), results(**changes))]


def test_what_the_recipe_is_already_has_no_arm() -> None:
    assert names([]) == ["recipe", "no_teacher", "largest"]
    assert names(["distill.methods=[rkd]"]) == ["recipe", "no_teacher", "plain_kd", "largest"]
    assert names(["distill.methods=[none]"]) == ["recipe", "plain_kd", "largest"]
    assert names([], chosen=LARGE) == ["recipe", "no_teacher"]
    assert names([], failed=True) == ["recipe", "no_teacher"]


def test_plain_kd_on_the_data_is_an_arm_of_kd_on_the_students_own_samples() -> None:
    config = load_config(preset="strings", settings=["distill.driver=rollout"])
    arms = {one.name: one.config.driver.sampling for one in arms_of(config, results())}
    assert arms["recipe"] is not None
    assert arms["plain_kd"] is None


def test_a_start_from_something_is_compared_with_a_random_one() -> None:
    config = load_config(preset="digits")
    started = config.model_copy(update={"distill": config.distill.model_copy(update={"start": "teacher"})})
    assert [one.name for one in arms_of(started, results())][2] == "random_start"
    assert arms_of(started, results())[2].begins_at_random


def test_all_but_the_largest_have_the_recipes_learning_rate() -> None:
    config = load_config(preset="digits", settings=["distill.methods=[rkd]"])
    arms = arms_of(config, results(best={"training.learning_rate": 0.2, "rkd.distance_weight": 3.0}))
    assert {one.name: one.config.training.learning_rate for one in arms} == {
        "recipe": 0.2, "no_teacher": 0.2, "plain_kd": 0.2, "largest": config.distill.training.learning_rate,
    }  # fmt: skip
    assert largest_of(results()).architecture == LARGE


def test_of_students_with_equal_parameters_the_one_with_most_flops_is_the_largest() -> None:
    """A resolution is a gene without parameters."""
    found = results()
    sharper = candidate("sharper", 200)
    sharper = sharper.model_copy(update={"cost": sharper.cost.model_copy(update={"flops": 9000})})
    searched = found.of(SearchResult)
    more = Results()
    more.add("search", searched.model_copy(update={"candidates": (*searched.candidates, sharper)}), "")
    more.add("tournament", found.of(TournamentResult), "")
    assert largest_of(more).architecture == "sharper"


@pytest.fixture
def make_stage(tmp_path: Path):
    """A stage's context in a new run whose teacher is there, if untrained."""

    def make(name: str, *settings: str) -> StageContext:
        config = load_config(preset="digits", settings=[*SETTINGS, "distill.training.epochs=2", *settings])
        task = load_splits(config.data, config.seed).task
        run = RunDir.create(tmp_path, name, config.seed, config)
        with drawn_from(0):
            weights = weights_bytes(build_teacher(config.teacher, task), make_teacher(config.teacher).metadata(task))
        run.write("teacher", WEIGHTS, weights)
        return StageContext(run, config, lambda done, total, note: None)

    return make


def trained(stage: StageContext, name: str, seed: int) -> tuple[BaselineTraining, bytes]:
    [found] = [one for one in arms_of(stage.config, results()) if one.name == name]
    done = Trainings(stage)(found, seed, lambda record: None)
    return done, (stage.run.root / done.weights).read_bytes()


def test_the_recipe_by_seed_0_is_the_distillation_and_by_another_seed_is_not(make_stage) -> None:
    stage = make_stage("one")
    student = stage.fresh_student(stage.space.parse(STUDENT), stage.splits().task)
    own = weights_bytes(taught(stage, "distill", student, stage.splits(), stage.config.distill).student)
    assert trained(stage, "recipe", 0)[1] == own
    assert trained(stage, "recipe", 1)[1] != own


def test_arms_of_a_seed_begin_with_the_same_weights_and_see_the_same_examples_in_the_same_order(
    make_stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    whole = loop._Step.__call__

    def step(self, batch, generator):
        seen.append((batch.inputs.clone(), next(self.network.parameters()).detach().clone()))
        return whole(self, batch, generator)

    monkeypatch.setattr(loop._Step, "__call__", step)
    steps = {}
    for name in ("recipe", "no_teacher"):
        for seed in (0, 1):
            trained(make_stage(f"{name}-{seed}"), name, seed)
            steps[name, seed] = list(seen)
            seen.clear()
    for seed in (0, 1):
        ours, alone = steps["recipe", seed], steps["no_teacher", seed]
        assert len(ours) == len(alone) > 4
        assert torch.equal(ours[0][1], alone[0][1])
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(ours, alone, strict=True))
        assert not torch.equal(ours[-1][1], alone[-1][1])
    assert not torch.equal(steps["recipe", 0][0][1], steps["recipe", 1][0][1])


@pytest.mark.parametrize("name", ["no_teacher", "recipe"])
def test_a_training_killed_after_an_epoch_ends_with_the_same_bits(make_stage, monkeypatch, name: str) -> None:
    _, expected = trained(make_stage("whole"), name, 1)
    stage, save, saved = make_stage("killed"), RunDir.save, []

    def killing(run, *given):
        save(run, *given)
        saved.append(given)
        if len(saved) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunDir, "save", killing)
    with pytest.raises(KeyboardInterrupt):
        trained(stage, name, 1)
    done, found = trained(stage, name, 1)
    assert found == expected
    assert (len(saved), done.epochs) == (2, 2)


def test_seeds_share_the_views_and_so_the_teachers_kept_outputs(make_stage) -> None:
    stage = make_stage("views", "distill.training.views=2")
    kept = []
    for seed in (0, 1):
        trained(stage, "recipe", seed)
        kept.append(sorted(path.name for path in cache_folder().rglob("*")))
    assert kept[0] == kept[1] != []


def test_without_a_teacher_only_labelled_examples_count_for_as_many_steps(make_stage, monkeypatch) -> None:
    stage = make_stage("part")
    splits = stage.splits()
    targets = splits.train.targets.clone()
    targets[::2] = -100
    train = dataclasses.replace(splits.train, targets=targets)
    stage.loaded[:] = [dataclasses.replace(splits, train=train)]
    done, _ = trained(stage, "no_teacher", 0)
    assert done.epochs == int(np.ceil(2 * len(train) / len(train.labelled())))


def test_on_test_the_recipe_is_compared_on_the_seeds_that_both_have(make_stage) -> None:
    stage = make_stage("tested", "distill.methods=[{name: lelp, subclasses: 2}]", "distill.training.epochs=1")
    recipe, alone = arms_of(stage.config, results())[:2]
    train = Trainings(stage)
    done = [train(arm, seed, lambda record: None) for arm, seed in ((recipe, 0), (alone, 0), (recipe, 1))]
    found, _ = told({}, arms=["no_teacher", "largest"], trainings=tuple(done))
    collected = results()
    collected.add("baselines", found, "")
    test = load_test(stage.config.data, stage.config.seed)
    worth = worth_of(stage, collected, test)
    accuracies = {figures.name: figures.accuracies for figures in worth.arms}
    assert [len(accuracies[name]) for name in ("recipe", "no_teacher")] == [2, 1]
    [gain] = worth.gains.values()
    assert gain.value == pytest.approx(accuracies["recipe"][0] - accuracies["no_teacher"][0])
    student = stage.structure(stage.space.parse(STUDENT), stage.splits().task)
    load_weights(student, stage.run.root / done[1].weights)
    assert accuracies["no_teacher"][0] == evaluate(student, test, stage.device).accuracy


def difference(low: float, high: float, seeds: int = 3) -> Difference:
    return Difference(value=(low + high) / 2, interval=(low, high), seeds=seeds)


def told(
    gains: dict[Any, Difference], arms: Sequence[Any] = (), largest: str = LARGE, **changes: Any
) -> tuple[BaselinesResult, Worth]:
    """A result with an arm for each gain and for each further name, which was not trained."""
    every = dict.fromkeys(["recipe", *gains, *arms])
    trainings = [training("recipe", seed) for seed in range(3)]
    trainings += [training(name, seed) for name, gain in gains.items() for seed in range(gain.seeds)]
    values = {
        "arms": tuple(BaselineArm(name=n, architecture=STUDENT, learning_rate=0.1, weight_decay=0) for n in every),
        "trainings": tuple(trainings), "seeds": 3, "allowed_s": 60.0, "seconds": 59.0, "tuned": "recipe",
        "methods": ("kd",), "start": "random", "largest": largest,
    } | changes  # fmt: skip
    figures = [ArmFigures(name=name, accuracies=(0.9, 0.92, 0.91)[: gain.seeds]) for name, gain in gains.items()]
    own = ArmFigures(name="recipe", accuracies=(0.95, 0.96, 0.97))
    return BaselinesResult(**values), Worth(n=450, metric="accuracy", arms=(own, *figures), gains=gains)


def test_a_gain_is_told_by_the_side_of_0_on_which_its_interval_lies() -> None:
    added = told({"no_teacher": difference(0.008, 0.018), "largest": difference(-0.004, 0.006)})
    assert worth_sentence(*added) == (
        "The teacher added 1.3 points [0.8, 1.8]; the search added nothing measurable over the largest student that "
        "fits [−0.4, 0.6] (3 seeds)."
    )
    cost = told({"no_teacher": difference(-0.018, -0.008), "plain_kd": difference(-0.001, 0.0001)}, largest=STUDENT)
    assert worth_sentence(*cost) == (
        "The teacher cost 1.3 points [0.8, 1.8]; the recipe added nothing measurable over plain KD [−0.10, 0.01]; the "
        "search chose the largest student that fits, so it could add nothing (3 seeds)."
    )


def test_the_worth_of_a_start_and_the_times_of_both_students_are_told() -> None:
    latency = LatencyRatio(chosen_ms=0.105, largest_ms=0.131, ratio=1.25, interval=(1.24, 1.26))
    gains = {"random_start": difference(0.031, 0.049), "largest": difference(-0.02, -0.01)}
    said = worth_sentence(*told(gains, start="pretrained", latency=latency)).replace("\N{NO-BREAK SPACE}", " ")
    assert said == (
        "Starting from pretrained weights added 4.0 points over random weights [3.1, 4.9]; the search cost 1.5 points "
        "over the largest student that fits [1.0, 2.0]; its student takes 0.105 ms against 0.131 ms, 1.25× faster "
        "[1.24, 1.26] (3 seeds)."
    )


def test_a_single_seed_and_what_was_left_out_for_time_are_told() -> None:
    found, worth = told({"no_teacher": difference(0.001, 0.009, seeds=1)}, arms=["largest"])
    assert worth_sentence(found, worth) == (
        "The teacher added 0.5 points [0.1, 0.9]; the worth of the search is not known (one seed)."
    )
    collected = results()
    collected.add("baselines", found, "")
    conditions = " ".join(worth_sentences(collected, worth)[1:])
    for words in (
        "A single seed (without a teacher): its interval counts the test examples",
        "Seeds trained of 3: without a teacher 1 and the largest student that fits 0; the time allowed by",
        "tuned for the recipe, which favours it",
        "The recipe is plain KD.",
    ):
        assert words in conditions
    assert trainings_clause(found).startswith("3 trainings, 59 s of 1 min 0 s allowed; of 3 seeds: the student as")


def test_the_table_has_a_row_for_each_arm() -> None:
    rows = worth_rows(*told({"no_teacher": difference(0.008, 0.018)}))
    assert [(row["arm"], row["accuracy"], row["seeds"], row["difference"]) for row in rows] == [
        ("the student as taught", "96.00 ± 1.00%", 3, ""),
        ("without a teacher", "91.00 ± 1.00%", 3, "+1.3 [0.8, 1.8]"),
    ]


def test_the_page_has_the_sentence_the_table_and_the_conditions() -> None:
    found, worth = told({"no_teacher": difference(0.008, 0.018)}, largest=STUDENT)
    collected, tested = results(), Metrics(accuracy=0.9, cross_entropy=0.1, n=450)
    collected.add("baselines", found, "")
    collected.add("report", ReportResult(teacher=tested, student=tested, shipped=tested, worth=worth), "")
    section = page.worth(ReportData(config=RunConfig(), manifest=None, results=collected, samples_ms={}))  # type: ignore[arg-type]
    environment = Environment(
        loader=PackageLoader("edgestill.flows.report", "."), autoescape=True, undefined=StrictUndefined
    )
    html = environment.get_template("worth.html.j2").render(worth=section)
    assert section is not None
    assert section["sentence"].startswith("The teacher added 1.3 points [0.8, 1.8]")
    for words in ("+1.3 [0.8, 1.8]", "91.00 ± 1.00%", "450 test examples"):
        assert words in html
    assert "mean recall" not in html


def test_a_result_without_baselines_is_written_as_before() -> None:
    tested = Metrics(accuracy=0.9, cross_entropy=0.1, n=450)
    found = ReportResult(teacher=tested, student=tested, shipped=tested)
    assert "worth" not in found.model_dump(mode="json")


def test_a_run_from_before_the_stage_has_none(tmp_path: Path) -> None:
    with RunDir.create(tmp_path, "old", 0, RunConfig()) as run:
        assert config_of(run).baselines.enabled
        written = (run.root / "config.yaml").read_text()
        head, _, rest = written.partition("\nbaselines:\n")
        kept = rest[rest.index("\ncard:") :]
        (run.root / "config.yaml").write_text(head + kept)
    assert not config_of(RunDir.view(run.root)).baselines.enabled
