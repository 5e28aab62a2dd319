"""`find_student`: the winner, the baselines beside it, failures, and going on after an interruption."""

import math
import random

import pytest
import scipy.stats
import torch

from edgestill.pipeline.errors import BudgetError, CandidateError, FailedError
from edgestill.pipeline.networks.cost import Cost
from edgestill.search.budget import Budget
from edgestill.search.config import SearchConfig
from edgestill.search.fitness import fitness
from edgestill.search.result import Candidate
from edgestill.search.scorers import SCORERS
from edgestill.search.scorers.diswot import DiswotConfig
from edgestill.search.search import find_student, require_feasible
from edgestill.search.spaces import SPACES, ResNetConfig, ResNetSpace
from edgestill.search.strategies import STRATEGIES, EvolutionConfig

SPACE = ResNetConfig(blocks=((1, 2), (1, 2), (1, 2)), widths=((4, 6), (6, 8), (16,)))


def make_config(**changes):
    given = {
        "space": SPACE,
        "scorer": "diswot",
        "baselines": ("params", "nwot", "random"),
        "strategy": EvolutionConfig(population=6, parents=3, offspring=2),
        "evaluations": 12,
        "draws": 1,
    }
    return SearchConfig(**given | changes)


@pytest.fixture
def find(make_task, make_batch):
    """A configuration (and options) to the result; the teacher's embedding is `width` wide."""
    task = make_task(channels=1, side=8, classes=4)
    batch = make_batch(task, 16)

    def run(config, width=16, seed=0, **options):
        teacher = ResNetSpace().build(ResNetSpace().parse(f"2-2-2/4-8-{width}"), task)
        return find_student(config, task, batch, teacher, seed=seed, **options)

    return run


def scores_of(result):
    return {c.architecture: c.scores for c in result.candidates}


def test_the_winner_has_the_highest_score_of_all_candidates(find):
    result = find(make_config())
    assert result.winner.scores["diswot"] == max(c.scores["diswot"] for c in result.candidates)
    assert result.evaluated == len(result.candidates) == 12
    assert not result.exhaustive
    for candidate in result.candidates:
        terms = candidate.scores
        assert terms["diswot"] == pytest.approx(terms["diswot_semantic"] + terms["diswot_relation"], rel=1e-9)


def test_every_baseline_is_searched_with_the_same_effort(find):
    entries = []
    result = find(make_config(), record=entries.append)
    assert set(result.picks) == {"params", "nwot", "random"}
    for scorer in ("diswot", "params", "nwot", "random"):
        assert sum(entry["scorer"] == scorer for entry in entries) == 12
    for name, pick in result.picks.items():
        assert pick.scores[name] == max(e["scores"][name] for e in entries if e["scorer"] == name)


def test_a_baseline_equal_to_the_scorer_is_not_computed_again(find):
    entries = []
    result = find(make_config(scorer="nwot", baselines=("nwot", "params")), record=entries.append)
    met = [(entry["scorer"], entry["architecture"]) for entry in entries]
    assert len(met) == len(set(met)) == 24
    assert result.picks["nwot"] == result.winner
    assert result.evaluated == 12


def test_a_small_space_is_searched_exhaustively(find):
    result = find(make_config(evaluations=32))
    assert result.exhaustive
    assert result.evaluated == result.space_size == 32
    params = {c.architecture: c.cost.params for c in result.candidates}
    assert result.picks["params"].architecture == max(params, key=params.get)


def test_the_budget_holds_for_the_winner_and_for_every_pick(find):
    limit = 9_000
    result = find(make_config(budget=Budget(max_params=limit), evaluations=32))
    assert 0 < len(result.candidates) < 32
    assert all(c.cost.params <= limit for c in (*result.candidates, *result.picks.values()))
    with pytest.raises(BudgetError, match="above max_params 100"):
        find(make_config(budget=Budget(max_params=100)))


def test_the_same_seed_finds_the_same_and_another_seed_scores_otherwise(find):
    assert find(make_config()) == find(make_config())
    assert scores_of(find(make_config())) != scores_of(find(make_config(), seed=1))


@pytest.mark.parametrize("done", [1, 7, 20, 47])
def test_an_interrupted_search_goes_on_and_ends_as_an_undisturbed_one(find, done):
    undisturbed = []
    expected = find(make_config(), record=undisturbed.append)

    class KilledError(Exception):
        pass

    journal = []

    def record(entry):
        journal.append(entry)
        if len(journal) == done:
            raise KilledError

    with pytest.raises(KilledError):
        find(make_config(), record=record)
    again = []
    result = find(make_config(), known=list(journal), record=again.append)
    assert result == expected
    met = [(entry["scorer"], entry["architecture"]) for entry in journal + again]
    assert len(met) == len(set(met)) == len(undisturbed) == 48


class Unlucky(ResNetSpace):
    """Three candidates of ten fail on more than the one image that their cost is counted on."""

    @staticmethod
    def fails(architecture):
        return random.Random(architecture.key).random() < 0.3

    def build(self, architecture, task):
        network = super().build(architecture, task)
        if self.fails(architecture):
            trunk = network.trunk

            def failing(inputs):
                if len(inputs) > 1:
                    raise RuntimeError("no memory left on the moon")
                return trunk(inputs)

            network.trunk = failing
        return network


def test_failing_candidates_are_recorded_and_the_best_of_the_rest_still_wins(find, monkeypatch):
    config = make_config(evaluations=32)
    healthy = find(config)
    monkeypatch.setitem(SPACES, "resnet", (ResNetConfig, Unlucky))
    result = find(config)
    space = ResNetSpace(SPACE)
    failing = {space.format(a) for a in space.all_architectures() if Unlucky.fails(a)}
    assert 3 < len(failing) < 20
    for scorer in ("diswot", "nwot"):
        recorded = [f for f in result.failures if f.scorer == scorer]
        assert {f.architecture for f in recorded} == failing
        assert {f.reason for f in recorded} == {"RuntimeError: no memory left on the moon"}
        assert {f.type for f in recorded} == {"error:RuntimeError"}
    rest = {a: s for a, s in scores_of(healthy).items() if a not in failing}
    assert scores_of(result) == rest
    assert result.winner.architecture == max(rest, key=lambda a: rest[a]["diswot"])
    assert result.evaluated == 32


@pytest.mark.parametrize(
    ("raised", "type", "reason"),
    [
        (MemoryError(), "out_of_memory", "MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory", "OutOfMemoryError: CUDA out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory", "RuntimeError: DefaultCPU"),
        (ValueError("more than 1 value per channel"), "error:ValueError", "ValueError: more than 1 value"),
        (CandidateError("has an op that does not export", "export"), "export", "has an op that does not export"),
    ],
)
def test_a_failure_has_a_type_and_is_in_the_journal(find, monkeypatch, raised, type, reason):
    bad = "1-1-1/4-6-16"
    original = ResNetSpace.build

    def build(self, architecture, task):
        network = original(self, architecture, task)
        trunk = network.trunk

        def failing(inputs):
            if len(inputs) > 1 and self.format(architecture) == bad:
                raise raised
            return trunk(inputs)

        network.trunk = failing
        return network

    monkeypatch.setattr(ResNetSpace, "build", build)
    journal = []
    result = find(make_config(scorer="nwot", baselines=(), strategy="exhaustive"), record=journal.append)
    assert [(f.architecture, f.type) for f in result.failures] == [(bad, type)]
    assert result.failures[0].reason.startswith(reason)
    assert [e["type"] for e in journal if e["architecture"] == bad] == [type]
    assert bad not in scores_of(result)
    assert result.evaluated == 32


def test_scores_that_are_not_finite_and_dead_networks_have_types_of_their_own(find, monkeypatch):
    values = iter([math.nan, math.inf, *range(30)])
    monkeypatch.setattr(SCORERS["random"], "__call__", lambda self, student: float(next(values)))
    result = find(make_config(scorer="random", baselines=(), evaluations=32))
    assert [f.type for f in result.failures] == ["not_finite", "not_finite"]
    assert len(result.candidates) == 30

    class Dead(ResNetSpace):
        def build(self, architecture, task):
            network = super().build(architecture, task)
            trunk = network.trunk
            network.trunk = lambda inputs: torch.ones_like(trunk(inputs))
            return network

    monkeypatch.setitem(SPACES, "resnet", (ResNetConfig, Dead))
    with pytest.raises(FailedError, match="dead: its last features are the same for every input"):
        find(make_config())


def test_a_candidate_whose_cost_cannot_be_had_is_a_failure_of_its_own(find, monkeypatch):
    bad = "1-1-1/4-6-16"
    original = ResNetSpace.build

    def build(self, architecture, task):
        if self.format(architecture) == bad:
            raise CandidateError("has an op that does not export", "export")
        return original(self, architecture, task)

    healthy = find(make_config(strategy="exhaustive"))
    monkeypatch.setattr(ResNetSpace, "build", build)
    result = find(make_config(strategy="exhaustive"))
    assert [(f.scorer, f.architecture, f.type) for f in result.failures] == [("cost", bad, "export")]
    assert list(result.candidates) == [c for c in healthy.candidates if c.architecture != bad]


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_the_front_holds_all_and_only_those_that_none_beats(find, strategy):
    result = find(make_config(strategy=strategy, baselines=()))
    assert result.strategy == strategy

    def beats(one, other):
        pairs = [
            (-one.scores["diswot"], -other.scores["diswot"]),
            (one.cost.params, other.cost.params),
            (one.cost.flops, other.cost.flops),
        ]
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    expected = {c.architecture for c in result.candidates if not any(beats(o, c) for o in result.candidates)}
    assert {c.architecture for c in result.front} == expected
    assert result.front[0].scores == result.winner.scores
    assert len(expected) > 1


def test_a_search_in_which_every_candidate_fails_says_why(find, monkeypatch):
    monkeypatch.setattr(Unlucky, "fails", staticmethod(lambda architecture: True))
    monkeypatch.setitem(SPACES, "resnet", (ResNetConfig, Unlucky))
    with pytest.raises(FailedError, match="all 12 candidates failed: RuntimeError: no memory left on the moon"):
        find(make_config())


def test_a_baseline_that_scores_nothing_is_noted_and_left_out(find, monkeypatch):
    monkeypatch.setattr(Unlucky, "fails", staticmethod(lambda architecture: True))
    monkeypatch.setitem(SPACES, "resnet", (ResNetConfig, Unlucky))
    result = find(make_config(scorer="params", baselines=("nwot", "flops")))
    assert set(result.picks) == {"flops"}
    assert "baseline nwot scored no candidate" in result.notes


def test_widths_other_than_the_teachers_are_noted_and_scored_by_relation(find):
    result = find(make_config(), width=24)
    assert len(result.notes) == 1
    assert "16 wide and the teacher's is 24" in result.notes[0]
    for candidate in result.candidates:
        assert candidate.scores["diswot"] == candidate.scores["diswot_relation"]
        assert "diswot_semantic" not in candidate.scores
    assert find(make_config()).notes == ()
    assert find(make_config(scorer="params"), width=24).notes == ()


@pytest.mark.parametrize("combine", ["zscore", "rank_sum"])
def test_a_search_may_weigh_both_metrics_alike(find, combine):
    result = find(make_config(combine=combine, evaluations=32))
    terms = [[c.scores[name] for c in result.candidates] for name in ("diswot_semantic", "diswot_relation")]
    scale = scipy.stats.zscore if combine == "zscore" else scipy.stats.rankdata
    joined = scale(terms[0]) + scale(terms[1])
    assert joined[result.candidates.index(result.winner)] == pytest.approx(joined.max())


def candidates(pairs, params=None):
    params = params or [1] * len(pairs)
    return [
        Candidate(
            architecture=str(i),
            cost=Cost(params=n, flops=1),
            scores={"diswot": s + r, "diswot_semantic": s, "diswot_relation": r},
            std={},
        )
        for i, ((s, r), n) in enumerate(zip(pairs, params, strict=True))
    ]


def test_ways_to_combine_equal_scipys():
    pairs = [(-0.3, -0.001), (-0.2, -0.004), (-0.2, -0.002), (-0.9, -0.003), (-0.25, -0.002), (-0.2, -0.002)]
    semantic, relation = zip(*pairs, strict=True)
    given = candidates(pairs)
    assert fitness(given, "diswot", DiswotConfig(combine="sum")) == [s + r for s, r in pairs]
    zscores = scipy.stats.zscore(semantic) + scipy.stats.zscore(relation)
    assert fitness(given, "diswot", DiswotConfig(combine="zscore")) == pytest.approx(list(zscores))
    ranks = scipy.stats.rankdata(semantic) + scipy.stats.rankdata(relation)
    differences = torch.tensor(fitness(given, "diswot", DiswotConfig(combine="rank_sum"))) - torch.from_numpy(ranks)
    assert differences.unique().numel() == 1  # the same but for where counting starts


def test_equal_terms_do_not_divide_by_zero():
    given = candidates([(-0.5, -0.001), (-0.5, -0.002)])
    assert fitness(given, "diswot", DiswotConfig(combine="zscore")) == pytest.approx([1, -1])


def test_of_equal_scores_the_smaller_student_wins(find, monkeypatch):
    monkeypatch.setattr(SCORERS["random"], "__call__", lambda self, student: 0.5)
    result = find(make_config(scorer="random", baselines=(), evaluations=32))
    assert result.picks == {}
    assert result.winner.cost.params == min(c.cost.params for c in result.candidates)


def test_whether_a_budget_can_be_met_is_known_before_anything_is_scored(make_task):
    task = make_task()
    require_feasible(make_config(budget=Budget(max_params=9_000)), task, 0)
    with pytest.raises(BudgetError, match="above max_params 100"):
        require_feasible(make_config(budget=Budget(max_params=100)), task, 0)


def test_progress_names_the_part_of_the_search(find):
    told = []
    find(make_config(baselines=("params",)), tick=lambda *what: told.append(what))
    assert told[0] == (1, 12, "scoring by diswot")
    assert told[-1] == (12, 12, "baseline params")
    assert len(told) == 24


class Headed(torch.nn.Module):
    """A student with 500 weights of a method's own, as it would ship."""

    def __init__(self, student):
        super().__init__()
        self.student, self.head = student, torch.nn.Linear(50, 10, bias=False)

    def forward(self, inputs):
        return self.student(inputs)


def test_the_budget_is_held_against_what_ships(find, make_task):
    free = find(make_config(scorer="params", evaluations=32, baselines=()))
    limit = free.winner.cost.params
    bound = make_config(scorer="params", evaluations=32, baselines=(), budget=Budget(max_params=limit))
    assert find(bound).winner.architecture == free.winner.architecture
    held = find(bound, shipped=Headed)
    assert held.winner.architecture != free.winner.architecture
    assert all(candidate.cost.params <= limit for candidate in held.candidates)
    plain = {c.architecture: c.cost.params for c in free.candidates}
    assert {c.cost.params - plain[c.architecture] for c in held.candidates} == {500}
    smallest = min(plain.values())
    small = make_config(budget=Budget(max_params=smallest))
    require_feasible(small, make_task(), 0)
    with pytest.raises(BudgetError, match=f"max_params {smallest:,}"):
        require_feasible(small, make_task(), 0, shipped=Headed)


def test_the_size_that_the_budget_limits_is_of_what_ships(find):
    limit = Budget(max_size_bytes=10_000_000)
    config = make_config(scorer="params", evaluations=32, baselines=(), budget=limit)
    plain, held = find(config), find(config, shipped=Headed)
    sizes = {c.architecture: c.cost.size_bytes for c in plain.candidates}
    assert {c.cost.size_bytes - sizes[c.architecture] for c in held.candidates} == {2000}
