"""A latency model that learns during a search: the same winner for fewer measurements, and repeatable."""

import random

import numpy as np
import pytest

from edgestill.pipeline.frozen import derive_seed
from edgestill.search import hardware_costs
from edgestill.search.budget import Budget
from edgestill.search.config import LatencyConfig, SearchConfig
from edgestill.search.hardware_costs import Latency, LatencySource
from edgestill.search.latency.confirm import confirm_winner
from edgestill.search.latency.features import operation_features
from edgestill.search.latency.learn import FIRST, LatencyLearner
from edgestill.search.latency.model import trace_student
from edgestill.search.result import Candidate
from edgestill.search.scoring.workshop import Workshop
from edgestill.search.search import find_student
from edgestill.search.spaces import SPACES, make_space

LIMITS = {"mobile": 0.9, "resnet": 1.5}  # ms, within reach of a third or so of the spaces


class NoisyDevice:
    """A roofline with 3 % of noise by the student's name; remembers what it was asked."""

    def __init__(self, space, task) -> None:
        self._space, self._task = space, task
        self.asked: list[str] = []

    def latency_ms(self, trace, text: str) -> float:
        found = 0.02
        for o in trace.operations:
            moved = sum(trace.values[v].bytes for v in (*o.reads, *o.writes))
            found += 0.001 + max(o.macs / (1.5e6 if o.kind == "depthwise" else 8e6), moved / 6e6)
        return found * float(np.exp(0.03 * np.random.default_rng(derive_seed(0, text)).standard_normal()))

    def measure(self, architecture, trace=None) -> float:
        text = self._space.format(architecture)
        self.asked.append(text)
        return self.latency_ms(trace or trace_student(self._space, architecture, self._task), text)

    def source(self, learns: bool) -> LatencySource:
        return LatencySource(lambda a, trace: Latency(self.measure(a, trace), None), self.measure, True, learns)


@pytest.fixture(scope="module")
def traced_once():
    """Traces are counted in this process, and once: several searches meet the same students."""
    known, trace = {}, hardware_costs._traced

    def traced(space, task, shipped, wants, architecture):
        key = space.name, architecture.key
        if key not in known:
            known[key] = trace(space, task, shipped, wants, architecture)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware_costs, "_traced", traced)
        patch.setattr(Workshop, "apart", lambda self, function: function)
        yield


@pytest.fixture
def task(make_task):
    return make_task(channels=3, side=16, classes=4)


@pytest.fixture
def find(task, make_batch, traced_once):
    def run(name, seed, learns, evaluations=80, **options):
        space = make_space(SPACES[name][0]())
        device = NoisyDevice(space, task)
        config = SearchConfig(
            space={"name": name}, scorer="params", baselines=(), evaluations=evaluations, draws=1, workers=1,
            budget=Budget(max_latency_ms=LIMITS[name]),
        )  # fmt: skip
        found = find_student(
            config, task, make_batch(task, 4), None, seed=seed, latency=device.source(learns), **options
        )
        return found, device

    return run


LONGER = [("mobile", 0), ("mobile", 1), ("mobile", 2), ("resnet", 1), ("resnet", 2)]


@pytest.mark.parametrize(
    ("name", "seed"), [("resnet", 0), *(pytest.param(*case, marks=pytest.mark.engines) for case in LONGER)]
)
def test_a_third_of_the_measurements_finds_the_winner_that_all_find(find, name, seed):
    every, all_asked = find(name, seed, learns=False)
    learnt, asked = find(name, seed, learns=True)
    assert learnt.winner.architecture == every.winner.architecture
    assert len(set(asked.asked)) == len(asked.asked) <= len(all_asked.asked) / 3
    assert learnt.latency.measured_ms == every.latency.measured_ms <= LIMITS[name]
    assert any(note.startswith("latencies: ") for note in learnt.notes)
    predicted = [c for c in learnt.candidates if c.cost.latency_error is not None]
    assert predicted
    assert all(c.cost.latency_ms * (1 + c.cost.latency_error) < LIMITS[name] for c in predicted)


def test_a_resumed_search_measures_nothing_twice_and_ends_the_same(find):
    entries = []
    whole, first = find("resnet", 0, learns=True, evaluations=30, record=entries.append)
    half = entries[: 2 * len(entries) // 3]
    again, second = find("resnet", 0, learns=True, evaluations=30, known=half)
    assert again == whole
    known = {entry["architecture"] for entry in half if entry["scorer"].startswith("latency")}
    assert len(known) > FIRST
    assert not known & set(second.asked)
    assert known | set(second.asked) == set(first.asked)


def test_intervals_hold_for_students_that_were_not_measured(task):
    """Of 60 new students, nine in ten at least lie within their intervals, which are narrower than a factor of two."""
    space = make_space(SPACES["resnet"][0]())
    device = NoisyDevice(space, task)
    traces = [(space.format(a), trace_student(space, a, task)) for a in space.sample_different(100, _rng(0))]
    learner = LatencyLearner(1.0)
    for text, trace in traces[:40]:
        learner.learn(trace, device.latency_ms(trace, text))
    ends = [(learner.predict(trace).interval_ms, device.latency_ms(trace, text)) for text, trace in traces[40:]]
    assert np.mean([low <= true <= high for (low, high), true in ends]) >= 0.9
    assert max(high / low for (low, high), _ in ends) < 2


def test_a_student_is_measured_where_the_limit_lies_within_its_interval(task):
    space = make_space(SPACES["resnet"][0]())
    device = NoisyDevice(space, task)
    *known, new = [(space.format(a), trace_student(space, a, task)) for a in space.sample_different(30, _rng(1))]

    def learnt(limit_ms):
        learner = LatencyLearner(limit_ms)
        for text, trace in known:
            learner.learn(trace, device.latency_ms(trace, text))
        return learner

    found = learnt(1.0).predict(new[1])
    low, high = found.interval_ms
    assert learnt(0.99 * low)(new[1]) == learnt(1.01 * high)(new[1]) == found
    assert learnt(1.01 * low)(new[1]) is None
    assert learnt(0.99 * high)(new[1]) is None


def test_too_few_students_and_unknown_operations_are_no_ground_for_a_prediction(task):
    space, other = (make_space(SPACES[name][0]()) for name in ("resnet", "mobile"))
    device, learner = NoisyDevice(space, task), LatencyLearner(100.0)
    trace = None
    for architecture in space.sample_different(FIRST, _rng(2)):
        assert trace is None or learner(trace) is None
        trace = trace_student(space, architecture, task)
        learner.learn(trace, device.latency_ms(trace, space.format(architecture)))
    assert learner(trace) is not None
    strange = trace_student(other, other.sample(_rng(3)), task)
    assert any(name.startswith("depthwise") for name in operation_features(strange, "needed"))
    assert learner.predict(strange) is None


def test_a_predicted_winner_is_measured_and_a_measured_one_is_not_again(task):
    space = make_space(SPACES["resnet"][0]())
    text = space.format(space.sample(_rng(4)))

    def confirmed(error):
        cost = {"params": 1, "flops": 1, "latency_ms": 0.5, "latency_error": error}
        device = NoisyDevice(space, task)
        ranked = [Candidate(architecture=text, cost=cost, scores={}, std={})]
        budget = Budget(max_latency_ms=100)
        return confirm_winner(ranked, lambda c: space.parse(c.architecture), budget, device.source(True)), device

    found, device = confirmed(0.1)
    assert device.asked == [text]
    assert found.latency.predicted_ms == 0.5
    assert found.latency.measured_ms == found.winner.cost.latency_ms != 0.5
    found, device = confirmed(None)
    assert not device.asked
    assert (found.latency.predicted_ms, found.latency.measured_ms) == (None, 0.5)


def test_configurations_without_the_key_keep_their_digests():
    assert "every" not in LatencyConfig().model_dump(mode="json")
    assert LatencyConfig(every=True).model_dump(mode="json")["every"] is True


def _rng(seed):
    return random.Random(seed)
