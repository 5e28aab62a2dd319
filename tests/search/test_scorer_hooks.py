"""What a scorer of one's own can do: settings, refusals, notes, a preparation on a sample, fitness of a population."""

import json
import statistics
from typing import ClassVar

import pytest
from pydantic import Field, ValidationError

from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import Frozen
from edgestill.search.config import SearchConfig
from edgestill.search.fitness import fitness_of
from edgestill.search.result import SearchResult
from edgestill.search.scorers import SCORERS, Scorer
from edgestill.search.scoring.conditions import Conditions, Means
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.search import find_student
from edgestill.search.spaces import ResNetConfig, ResNetSpace
from edgestill.search.tournament import shortlist

SPACE = ResNetConfig(blocks=((1, 2), (1, 2), (1,)), widths=((4, 6), (8,), (16,)))


class NearestConfig(Frozen):
    params: int = Field(5_000, ge=1)


class Nearest(Scorer):
    """Parameters; the fittest have nearest to `params` of them."""

    name: ClassVar[str] = "random"  # takes its place in the table
    Config = NearestConfig

    def __call__(self, student):
        return float(student.cost.params)

    @classmethod
    def check(cls, space, teacher):
        if teacher.embedding_dim == 24:
            raise ConfigError(["not beside this teacher"])

    @classmethod
    def notes(cls, space, teacher):
        return (f"{space.name} beside {teacher.embedding_dim}",)

    @classmethod
    def fitness(cls, config, scores):
        return [-abs(candidate[cls.name] - config.params) for candidate in scores]


class Middle(Frozen):
    params: float


class FromMiddle(Scorer):
    """Distance of a part's score from the sample's median."""

    name: ClassVar[str] = "random"
    parts: ClassVar[tuple[str, ...]] = ("params",)
    prepares = Middle

    @classmethod
    def prepare(cls, sample):
        return Middle(params=statistics.median(sample["params"]))

    def __call__(self, student):
        return abs(student.parts["params"] - self.context.prepared.params)


class Unprepared(FromMiddle):
    prepares = None

    def __call__(self, student):
        assert self.context.prepared is None
        return 2 * student.parts["params"]


@pytest.fixture
def task(make_task):
    return make_task(channels=1, side=8, classes=4)


@pytest.fixture
def find(task, make_batch):
    def run(config, width=16):
        teacher = ResNetSpace().build(ResNetSpace().parse(f"2-2-2/4-8-{width}"), task)
        return find_student(config, task, make_batch(task, 16), teacher, seed=0)

    return run


def configured(**changes):
    given = {"space": SPACE, "baselines": (), "draws": 1, "evaluations": 8}
    return SearchConfig(**given | changes)


def test_a_scorer_and_its_settings_can_be_given_together_or_apart():
    together = configured(scorer={"name": "diswot", "combine": "zscore"})
    assert together == configured(scorer="diswot", combine="zscore")
    written = together.model_dump(mode="json")
    assert (written["scorer"], written["combine"]) == ("diswot", "zscore")
    assert "scorer_settings" not in together.model_dump_json()
    assert configured(scorer={"name": "nwot"}) == configured(scorer="nwot")


def test_settings_that_a_scorer_lacks_are_refused_by_name(monkeypatch):
    with pytest.raises(ValidationError, match="scorer nwot: unknown key 'colour'; it has no settings"):
        configured(scorer={"name": "nwot", "colour": 1})
    monkeypatch.setitem(SCORERS, "random", Nearest)
    with pytest.raises(ValidationError, match="scorer random: params: Input should be greater than or equal to 1"):
        configured(scorer={"name": "random", "params": 0})


def test_settings_are_written_where_there_are_any_and_read_back(monkeypatch, find):
    monkeypatch.setitem(SCORERS, "random", Nearest)
    config = configured(scorer={"name": "random", "params": 5_300})
    assert SearchConfig.model_validate_json(config.model_dump_json()) == config
    assert SearchConfig.model_validate(config.model_dump(mode="json")) == config
    result = find(config)
    written = json.loads(result.model_dump_json())
    assert (written["scorer"], written["combine"], written["scorer_settings"]) == ("random", "sum", {"params": 5_300})
    assert SearchResult.model_validate_json(result.model_dump_json()) == result
    assert "scorer_settings" not in json.loads(find(configured(scorer="params")).model_dump_json())


def test_winner_front_and_shortlist_follow_the_scorers_own_fitness(monkeypatch, find):
    monkeypatch.setitem(SCORERS, "random", Nearest)
    for aim in (4_000, 5_300, 9_000):
        result = find(configured(scorer={"name": "random", "params": aim}))
        distance = {c.architecture: abs(c.cost.params - aim) for c in result.candidates}
        assert len(distance) == 8
        assert result.winner.architecture == result.front[0].architecture == min(distance, key=distance.get)
        assert fitness_of(result) == [-distance[c.architecture] for c in result.candidates]
        ranks = [(entrant.rank, distance[entrant.candidate.architecture]) for entrant in shortlist(result, 3)]
        assert [rank for rank, _ in ranks[:3]] == [1, 2, 3]
        assert [d for _, d in ranks[:3]] == sorted(distance.values())[:3]


def test_a_result_whose_scorer_is_not_installed_here_shows_plain_scores(monkeypatch, find):
    monkeypatch.setitem(SCORERS, "random", Nearest)
    result = find(configured(scorer="random"))
    monkeypatch.delitem(SCORERS, "random")
    assert fitness_of(result) == [float(c.cost.params) for c in result.candidates]


def test_a_scorer_may_refuse_a_teacher_and_note_what_it_does_beside_another(monkeypatch, find):
    monkeypatch.setitem(SCORERS, "random", Nearest)
    assert find(configured(scorer="random")).notes == ("resnet beside 16",)
    assert find(configured(scorer="params", baselines=("random",))).notes == ()
    with pytest.raises(ConfigError, match="not beside this teacher"):
        find(configured(scorer="random"), width=24)


def test_a_scorer_with_parts_is_prepared_once_on_a_sample_under_a_name_of_its_own(monkeypatch, task, make_batch):
    space, keys = ResNetSpace(SPACE), []

    def keep(key, kind, compute):
        keys.append(key)
        return kind.model_validate_json(compute().model_dump_json())

    def evaluator(scorer):
        monkeypatch.setitem(SCORERS, "random", scorer)
        return Evaluator(space, task, ["random"], Conditions(make_batch(task), None, 0, draws=2), Means(keep=keep))

    ask = evaluator(FromMiddle)
    params = {a.key: ask.cost(a).params for a in space.all_architectures()}
    middle = statistics.median(params.values())
    for architecture in space.all_architectures():
        assert ask(architecture).values == {"random": abs(params[architecture.key] - middle)}
    renamed = type("Renamed", (FromMiddle,), {"kept_as": "another/1"})
    evaluator(renamed)
    assert len(keys) == len(set(keys)) == 2
    assert evaluator(Unprepared)(architecture).values == {"random": 2 * params[architecture.key]}
    assert len(keys) == 2


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_has_default_settings_and_names_others_of_the_table(name):
    kind = SCORERS[name]
    assert kind.Config() == kind.Config.model_validate({})
    assert {*kind.beside, *kind.parts} <= set(SCORERS)
    assert not any(SCORERS[part].parts for part in kind.parts)
    assert kind.name == name
