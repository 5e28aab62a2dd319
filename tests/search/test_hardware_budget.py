"""Budgets on size, memory and latency: what is counted when, and a search that keeps them."""

import random
from collections import Counter

import pytest

from edgestill.pipeline.errors import BudgetError, CandidateError, ExportError
from edgestill.pipeline.networks.cost import Cost
from edgestill.search.budget import Budget
from edgestill.search.config import LatencyConfig, SearchConfig
from edgestill.search.hardware_costs import HardwareCosts, Latency, LatencySource
from edgestill.search.latency.confirm import confirm_winner
from edgestill.search.result import Candidate, SearchResult
from edgestill.search.scoring.cost_table import CostTable
from edgestill.search.search import find_student, require_feasible
from edgestill.search.space import Architecture
from edgestill.search.spaces import ResNetConfig, ResNetSpace
from edgestill.search.strategies import EvolutionConfig

SPACE = ResNetConfig(blocks=((1, 2), (1, 2), (1, 2)), widths=((4, 6), (6, 8), (16,)))


class Probe:
    """A deterministic device: a millisecond a block; remembers what it was asked."""

    def __init__(self, failing: str = "", real: float = 1.0) -> None:
        self.asked: Counter[str] = Counter()
        self.failing, self.real = failing, real

    def find(self, architecture, trace) -> Latency:
        text = ResNetSpace().format(architecture)
        self.asked[text] += 1
        if text == self.failing:
            raise ExportError("no ONNX form")
        return Latency(float(blocks(text)), None)

    def measure(self, architecture) -> float:
        text = ResNetSpace().format(architecture)
        self.asked[text] += 1
        return self.real * blocks(text)

    def source(self) -> LatencySource:
        return LatencySource(self.find, self.measure, True)


def blocks(text: str) -> int:
    return sum(map(int, text.split("/")[0].split("-")))


@pytest.fixture
def task(make_task):
    return make_task(channels=1, side=8, classes=4)


@pytest.fixture
def find(task, make_batch):
    def run(budget, probe, **options):
        config = SearchConfig(
            space=SPACE,
            baselines=("params",),
            strategy=EvolutionConfig(population=6, parents=3),
            evaluations=12,
            draws=1,
            budget=budget,
        )
        teacher = ResNetSpace().build(ResNetSpace().parse("2-2-2/4-8-16"), task)
        batch = make_batch(task, 16)
        return find_student(config, task, batch, teacher, seed=0, latency=probe.source(), **options)

    return run


def test_only_what_the_budget_limits_is_counted(task):
    architecture = ResNetSpace(SPACE).sample(random.Random(0))

    def counted(budget):
        space = ResNetSpace(SPACE)
        cost = HardwareCosts(CostTable(space, task), space, task, budget, Probe().source())(architecture)
        return {name for name, value in cost.model_dump().items() if value is not None}

    assert counted(Budget()) == {"params", "flops"}
    assert counted(Budget(max_size_bytes=10**9)) == {"params", "flops", "size_bytes", "peak_activation_bytes"}
    assert counted(Budget(max_latency_ms=100)) == {"params", "flops", "latency_ms"}
    assert counted(Budget(max_params=1, max_latency_ms=100)) == {"params", "flops"}
    assert counted(Budget(max_size_bytes=1, max_latency_ms=100)) == counted(Budget(max_size_bytes=1))


def test_the_peak_is_the_closed_form_of_a_residual_block(task):
    """In the widest block, before its sum: the shortcut's source, and the normalised copy of a convolution's output."""
    space = ResNetSpace(SPACE)
    budget = Budget(max_peak_activation_bytes=10**9)
    found = HardwareCosts(CostTable(space, task), space, task, budget)(space.parse("1-1-1/6-6-16"))
    assert found.peak_activation_bytes == 3 * 6 * 8 * 8 * 4


def test_every_limit_has_a_clause_with_both_figures():
    limits = {"params": 1, "flops": 1, "size_bytes": 1, "peak_activation_bytes": 1, "latency_ms": 0.5}
    budget = Budget(**{f"max_{name}": limit for name, limit in limits.items()})
    cost = Cost(params=1200, flops=2, size_bytes=3, peak_activation_bytes=4, latency_ms=0.51234567)
    assert budget.violations(cost) == [
        "params 1,200 is above max_params 1",
        "flops 2 is above max_flops 1",
        "size_bytes 3 is above max_size_bytes 1",
        "peak_activation_bytes 4 is above max_peak_activation_bytes 1",
        "latency_ms 0.5123 is above max_latency_ms 0.5",
    ]
    assert Budget(max_latency_ms=1).violations(cost) == []


def test_an_unknown_figure_is_never_feasible():
    assert Budget(max_latency_ms=1).violations(Cost(params=1, flops=1)) == ["its latency_ms is not known"]


def test_exceeding_a_cheap_limit_is_worse_than_any_excess_of_a_dear_one():
    budget = Budget(max_params=10, max_latency_ms=1)
    slow = Cost(params=10, flops=1, latency_ms=10_000)
    large = Cost(params=11, flops=1)
    assert 0 < budget.excess(slow) < budget.excess(large) < budget.excess(Cost(params=12, flops=1))


def test_costs_of_earlier_results_still_load():
    assert Cost.model_validate_json('{"params": 3, "flops": 4}') == Cost(params=3, flops=4)
    assert Budget.model_validate_json('{"max_params": 3, "max_flops": null}') == Budget(max_params=3)


def test_a_search_under_a_latency_budget_returns_only_feasible_students(find):
    probe = Probe()
    result = find(Budget(max_latency_ms=4), probe)
    assert {blocks(c.architecture) for c in result.candidates} == {3, 4}
    assert result.winner.cost.latency_ms == blocks(result.winner.architecture)
    assert result.latency is not None
    assert result.latency.measured_ms == result.winner.cost.latency_ms
    assert set(probe.asked.values()) == {1}
    assert SearchResult.model_validate_json(result.model_dump_json()) == result


def test_a_resumed_search_asks_the_probe_no_architecture_twice(find):
    first, second, entries = Probe(), Probe(), []
    whole = find(Budget(max_latency_ms=4), first, record=entries.append)
    half = entries[: len(entries) // 2]
    assert find(Budget(max_latency_ms=4), second, known=half) == whole
    assert set((first.asked + second.asked).values()) == {1, 2}
    known = {e["architecture"] for e in half if e["scorer"] == "latency"}
    assert known
    assert not known & set(second.asked)
    third = Probe()
    assert find(Budget(max_latency_ms=4), third, known=entries) == whole
    assert not third.asked


def test_a_student_that_does_not_export_is_a_failure_and_not_a_winner(find):
    best = find(Budget(max_latency_ms=4), Probe()).winner.architecture
    result = find(Budget(max_latency_ms=4), Probe(failing=best))
    assert result.winner.architecture != best
    failures = [f for f in result.failures if f.scorer == "latency"]
    assert [(f.architecture, f.type, f.reason) for f in failures] == [(best, "export", "ExportError: no ONNX form")]


def test_a_latency_that_nothing_meets_is_said_with_the_nearest(find):
    with pytest.raises(BudgetError, match=r"latency_ms 3 is above max_latency_ms 2.5"):
        find(Budget(max_latency_ms=2.5), Probe())


def test_feasibility_is_checked_beforehand_by_a_model_but_not_by_measuring(task):
    config = SearchConfig(space=SPACE, budget=Budget(max_latency_ms=0.5))
    probe = Probe()
    require_feasible(config, task, 0, probe.source())
    assert not probe.asked
    with pytest.raises(BudgetError, match="latency_ms"):
        require_feasible(config, task, 0, LatencySource(probe.find, None, False))


def candidate(text: str, predicted: float) -> Candidate:
    cost = Cost(params=1, flops=1, latency_ms=predicted, latency_error=0.2)
    return Candidate(architecture=text, cost=cost, scores={}, std={})


RANKED = [candidate("2-2-2/4-8-16", 3.5), candidate("1-2-1/4-8-16", 3.4), candidate("1-1-1/4-8-16", 3.3)]


def architecture_of(candidate: Candidate) -> Architecture:
    return ResNetSpace().parse(candidate.architecture)


def confirm(probe: Probe, limit: float = 3.6, **options):
    source = LatencySource(probe.find, probe.measure, False)
    return confirm_winner(RANKED, architecture_of, Budget(max_latency_ms=limit), source, **options)


def test_a_winner_that_is_too_slow_when_measured_gives_way_to_the_next_with_a_note():
    confirmed = confirm(Probe())
    assert confirmed.winner.architecture == "1-1-1/4-8-16"
    assert confirmed.winner.cost.latency_ms == 3
    assert confirmed.latency is not None
    assert (confirmed.latency.predicted_ms, confirmed.latency.measured_ms) == (3.3, 3)
    assert "2-2-2/4-8-16 (6 ms), 1-2-1/4-8-16 (4 ms)" in confirmed.notes[0]


def test_a_confirmed_winner_is_not_measured_again_after_an_interruption():
    entries, probe = [], Probe()
    whole = confirm(Probe(), record=entries.append)
    assert confirm(probe, known=entries) == whole
    assert not probe.asked


def test_a_search_hands_on_architectures_and_reads_none_from_its_string(find, monkeypatch):
    class Predicting(Probe):
        def source(self) -> LatencySource:
            return LatencySource(self.find, self.measure, False)

    parsed, parse = [], ResNetSpace.parse
    monkeypatch.setattr(ResNetSpace, "parse", lambda self, text: parsed.append(text) or parse(self, text))
    found = find(Budget(max_latency_ms=20), Predicting())
    assert found.latency is not None
    assert found.latency.measured_ms == blocks(found.winner.architecture)
    assert parsed == ["2-2-2/4-8-16"]  # the teacher


def test_no_candidate_within_the_limit_when_measured_is_an_error_with_the_nearest():
    with pytest.raises(BudgetError, match=r"all 3 candidates .* nearest is 1-1-1/4-8-16 \(30 ms\)"):
        confirm(Probe(real=10))


def test_a_winner_that_cannot_be_measured_is_passed_over():
    class Failing(Probe):
        def measure(self, architecture):
            if ResNetSpace().format(architecture) == RANKED[0].architecture:
                raise CandidateError("broken")
            return super().measure(architecture)

    assert confirm(Failing(), limit=4.5).winner.architecture == "1-2-1/4-8-16"


def test_a_prediction_for_another_machine_is_left_as_it_is():
    source = LatencySource(Probe().find, None, False)
    confirmed = confirm_winner(RANKED, architecture_of, Budget(max_latency_ms=3.6), source)
    assert confirmed.winner == RANKED[0]
    assert confirmed.latency is not None
    assert (confirmed.latency.predicted_ms, confirmed.latency.measured_ms) == (3.5, None)


@pytest.mark.parametrize(
    ("given", "reason"),
    [({"source": "model"}, "needs model"), ({"model": "device.json"}, "source is 'measured'")],
)
def test_a_source_and_a_model_that_do_not_agree_are_refused(given, reason):
    with pytest.raises(ValueError, match=reason):
        LatencyConfig.model_validate(given)
