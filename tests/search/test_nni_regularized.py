"""NNI's regularized evolution on synthetic scores, and what importing NNI leaves behind."""

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError

from edgestill.pipeline import nni_compat
from edgestill.pipeline.errors import BudgetError, MissingDependencyError
from edgestill.pipeline.networks.cost import Cost
from edgestill.search.budget import Budget
from edgestill.search.config import SearchConfig
from edgestill.search.conformance import strategies
from edgestill.search.conformance.strategies import Scored
from edgestill.search.search import find_student
from edgestill.search.spaces import NniHubConfig, make_space
from edgestill.search.strategies import NniRegularizedConfig, Search
from edgestill.search.strategies.nni_regularized import regularized_evolution

SMALL = NniRegularizedConfig(population=15, sample=5)


class Grid(strategies.Grid):
    """Genes whose names hold what NNI forbids in its labels."""

    spelt = "cell/{}_x"

    def __init__(self, genes=5, choices=6):
        super().__init__(genes, choices)


def cost_of(architecture):
    return Cost(params=10 + sum((i + 1) * v for i, v in enumerate(architecture.choices.values())), flops=1)


def towards(*target):
    return lambda architecture: -sum(abs(v - t) for v, t in zip(architecture.choices.values(), target, strict=True))


def run(value, space=None, budget=None, config=SMALL, seed=0, evaluations=150, fails=lambda a: False, rank=None):
    def score(architectures):
        return [None if fails(a) else Scored(a, value(a), cost_of(a)) for a in architectures]

    search = Search(
        space or Grid(),
        cost_of,
        budget or Budget(),
        score=score,
        rank=rank or (lambda scored: [s.value for s in scored]),
        evaluations=evaluations,
        rng=random.Random(seed),
    )
    return regularized_evolution(search, config)


def test_it_finds_better_candidates_than_chance():
    value = towards(1, 4, 2, 0, 5)
    best = [max(s.value for s in run(value, seed=seed)) for seed in range(3)]
    rng, space = random.Random(0), Grid()
    by_chance = [max(value(space.sample(rng)) for _ in range(150)) for _ in range(3)]
    assert sum(best) / 3 >= sum(by_chance) / 3 + 1


def test_a_seed_gives_one_result_and_another_seed_another():
    value = towards(1, 4, 2, 0, 5)
    assert run(value, seed=1) == run(value, seed=1) != run(value, seed=2)


@pytest.mark.parametrize("seed", range(3))
def test_only_feasible_candidates_are_scored_and_none_twice(seed):
    scored = run(towards(5, 5, 5, 5, 5), budget=Budget(max_params=30), seed=seed)
    keys = [s.architecture.key for s in scored]
    assert len(set(keys)) == len(keys) == 150
    assert all(s.cost.params <= 30 for s in scored)


def test_rare_feasible_members_are_found_by_descent():
    config = NniRegularizedConfig(population=2, sample=1)
    scored = run(towards(*[5] * 8), Grid(8, 6), Budget(max_params=11), config, evaluations=10)
    assert {Grid().format(s.architecture) for s in scored} <= {"0-0-0-0-0-0-0-0", "1-0-0-0-0-0-0-0"}
    assert scored


def test_an_unreachable_budget_is_an_error():
    with pytest.raises(BudgetError, match="params 10 is above max_params 9"):
        run(towards(5, 5, 5, 5, 5), budget=Budget(max_params=9))


def test_a_failed_candidate_is_no_parent_and_uses_up_an_evaluation(monkeypatch):
    evolution, parents, failed = nni_compat.load("nni.nas.strategy").RegularizedEvolution, [], []
    tournament = evolution.best_parent

    def best_parent(self):
        parents.append(tuple(tournament(self).values()))
        return tournament(self)

    def fails(architecture):
        found = tuple(architecture.choices.values())
        if sum(found) % 3 == 0:
            failed.append(found)
        return sum(found) % 3 == 0

    monkeypatch.setattr(evolution, "best_parent", best_parent)
    scored = run(towards(5, 5, 5, 5, 5), fails=fails)
    assert len(failed) > 20
    assert len(scored) + len(failed) == 150
    assert len(parents) > 50
    assert not set(parents) & set(failed)


def test_all_candidates_failing_gives_none():
    assert run(towards(5, 5, 5, 5, 5), fails=lambda a: True, evaluations=30) == []


def test_a_space_that_is_used_up_ends_the_search():
    scored = run(towards(0, 0), Grid(2, 3), config=NniRegularizedConfig(population=50, sample=5))
    assert len(scored) == 9


def test_fitness_that_depends_on_all_candidates_breeds_the_same_as_the_values_it_orders():
    def ranks(scored):
        order = sorted({s.value for s in scored})
        return [order.index(s.value) for s in scored]

    value = towards(1, 4, 2, 0, 5)
    assert run(value, rank=ranks) == run(value)


def test_our_own_mistake_in_a_score_is_not_hidden():
    def value(architecture):
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours"):
        run(value)
    assert len(run(towards(1, 1, 1, 1, 1))) == 150


def test_searches_in_threads_take_turns_and_find_what_they_find_alone():
    value = towards(1, 4, 2, 0, 5)
    alone = [run(value, seed=seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda seed: run(value, seed=seed), range(3))) == alone


def test_a_tournament_larger_than_the_population_is_refused():
    with pytest.raises(ValidationError, match="a tournament of 20 cannot be held in a population of 10"):
        NniRegularizedConfig(population=10, sample=20)


def test_it_is_a_strategy_of_a_whole_search_of_nnis_own_space(make_task, make_batch, small_space):
    task = make_task()
    hub = NniHubConfig(space="DARTS", options={"width": [2, 4], "num_cells": 3})
    config = SearchConfig(
        space=hub,
        scorer="nwot",
        baselines=("params",),
        strategy={"name": "nni_regularized", "population": 3, "sample": 2},
        evaluations=5,
        draws=1,
        batch_size=8,
        budget={"max_params": 9000},
    )
    teacher = small_space("resnet")
    teacher = teacher.build(next(teacher.all_architectures()), task)
    found = [find_student(config, task, make_batch(task, 8), teacher, seed=1) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].evaluated == 5
    assert found[0].winner.cost.params <= 9000
    assert make_space(hub).parse(found[0].winner.architecture).space == "nni:DARTS"


# What NNI leaves behind


LEFT_BEHIND = """
import logging, os, signal, sys, warnings
import torch
def loggers():
    known = [logging.getLogger(n) for n in ("nni", "pytorch_lightning", "lightning_fabric", "torchmetrics")]
    return [(l.level, l.propagate, list(l.handlers)) for l in [logging.getLogger(), *known]]
def state():
    return [loggers(), dict(os.environ), list(warnings.filters), torch.get_default_dtype(), sys.excepthook, sys.stdout,
            [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)], torch.get_rng_state().sum().item()]
from edgestill.pipeline import nni_compat
import torch._dynamo, sympy.utilities.exceptions  # what torch itself does to the environment and to warnings
sys.path.insert(0, sys.argv[1])
import test_nni_regularized as tests
before = state()
value = tests.towards(1, 4, 2, 0, 5)
first = tests.run(value, evaluations=40)
assert tests.run(value, evaluations=40) == first
after = state()
for one, other in zip(before, after):
    assert one == other, (one, other)
assert nni_compat.load("nni.trial")._params is None
assert nni_compat.load("nni.runtime.trial_command_channel")._channel is None
"""


def python(code, tmp_path, *arguments):
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_two_searches_leave_nothing_of_nni_behind(tmp_path):
    done = python(LEFT_BEHIND, tmp_path, os.path.dirname(__file__))  # noqa: PTH120
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in tmp_path.rglob("*nni*")] == []


def test_nni_is_not_imported_before_it_is_used(tmp_path):
    code = """
import sys
import edgestill
import edgestill.flows.chain, edgestill.flows.score, edgestill.search.search
from edgestill.search.spaces import NniHubConfig, make_space, ResNetConfig
from edgestill.search.config import SearchConfig
SearchConfig(space="nni:DARTS", strategy="nni_regularized")
make_space(ResNetConfig())
from edgestill.flows.cli.main import execute
assert execute(["--help"]) == 0
assert not {"nni", "pytorch_lightning"} & set(sys.modules)
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_without_nni_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "nni.nas.hub.pytorch", None)
    monkeypatch.delitem(sys.modules, "nni.nas.hub.pytorch")
    monkeypatch.setitem(sys.modules, "nni.nas.hub", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'nni==3\.0' 'pytorch-lightning>=2\.6,<3'"):
        nni_compat.load("nni.nas.hub.pytorch")
