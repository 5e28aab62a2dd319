"""Latency models: laws that are known are recovered, files are read back, and strange files are refused."""

import json
import random

import numpy as np
import pytest
import torch
from torch import nn

from edgestill.pipeline.errors import DataError
from edgestill.pipeline.networks.trace import trace_network
from edgestill.pipeline.task import Task
from edgestill.search.latency.features import operation_features
from edgestill.search.latency.fit import kendall_tau
from edgestill.search.latency.model import LatencyModel, fit_latency_model, read_latency_model, trace_student
from edgestill.search.space import SearchSpace
from edgestill.search.spaces import Nb201Config, Nb201Space, ResNetConfig, ResNetSpace

RESNETS = ResNetSpace(ResNetConfig(blocks=((1, 2, 3),) * 3, widths=((4, 6, 8), (6, 8), (8, 12))))
CELLS = Nb201Space(Nb201Config(channels=2, cells=1))


@pytest.fixture
def task(make_task) -> Task:
    return make_task()


def true_latency(space: SearchSpace, architecture, task: Task) -> float:
    """A device on which a convolution takes 0.01 ms and a nanosecond an eight multiply-accumulates, a sum 0.002 ms."""
    steps = trace_student(space, architecture, task).operations
    convolutions = [o for o in steps if o.kind == "conv"]
    sums = sum(o.name == "add" for o in steps)
    return 0.05 + 0.01 * len(convolutions) + sum(o.macs for o in convolutions) / 8e6 + 0.002 * sums


def sampled(space: SearchSpace, count: int, seed: int):
    rng = random.Random(seed)
    return list({(a := space.sample(rng)).key: a for _ in range(3 * count)}.values())[:count]


def fitted(space: SearchSpace, task: Task, count: int = 40, noise: float = 0.0, **options) -> LatencyModel:
    generator = np.random.default_rng(0)
    samples = [
        (a, true_latency(space, a, task) * float(np.exp(noise * generator.standard_normal())))
        for a in sampled(space, count, seed=1)
    ]
    return fit_latency_model(space, {}, task, samples, device="a law", **options)


def errors(model: LatencyModel, space: SearchSpace, task: Task) -> np.ndarray:
    new = sampled(space, 60, seed=2)
    found = np.array([model.predict(trace_student(space, a, task)).latency_ms for a in new])
    return np.abs(found / [true_latency(space, a, task) for a in new] - 1)


@pytest.mark.parametrize("space", [RESNETS, CELLS], ids=["resnet", "nb201"])
def test_a_law_in_counts_and_multiply_accumulates_is_recovered(space: SearchSpace, task: Task) -> None:
    model = fitted(space, task)
    assert np.median(errors(model, space, task)) < 0.005
    assert model.cross_validation.median_error < 0.01
    assert model.cross_validation.kendall_tau > 0.95


def test_noise_is_not_learnt_and_is_told_of(task: Task) -> None:
    model = fitted(RESNETS, task, count=60, noise=0.1)
    assert np.median(errors(model, RESNETS, task)) < 0.05
    assert 0.03 < model.cross_validation.median_error < 0.15
    prediction = model.predict(trace_student(RESNETS, sampled(RESNETS, 1, 5)[0], task))
    low, high = prediction.interval_ms
    assert low < prediction.latency_ms < high
    assert prediction.error == model.cross_validation.p90_error


def test_one_wild_measurement_does_not_bend_the_model(task: Task) -> None:
    samples = [(a, true_latency(RESNETS, a, task)) for a in sampled(RESNETS, 40, seed=1)]
    samples[7] = (samples[7][0], 50 * samples[7][1])
    model = fit_latency_model(RESNETS, {}, task, samples, device="a law")
    assert np.median(errors(model, RESNETS, task)) < 0.01


def test_what_a_device_executes_is_found_by_cross_validation(task: Task) -> None:
    """The same cells on a device that drops dead edges, and on one that runs them."""
    architectures = sampled(CELLS, 60, seed=1)
    for runs in ("needed", "executed"):
        latency = [
            0.05 + operation_features(trace_student(CELLS, a, task), runs).get("conv3 count", 0) for a in architectures
        ]
        model = fit_latency_model(CELLS, {}, task, list(zip(architectures, latency, strict=True)), device="a law")
        assert model.runs == runs
        assert model.cross_validation.median_error < 1e-3


class _Cell(nn.Module):
    """A convolution whose result is dropped, alone or behind a sum."""

    def __init__(self, summed: bool) -> None:
        super().__init__()
        self.summed = summed
        self.kept, self.dropped = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3)

    def forward(self, inputs):
        dead = self.dropped(inputs)
        if self.summed:
            dead = dead + 1
        return self.kept(inputs)


@pytest.mark.parametrize(("summed", "expected"), [(False, 1), (True, 0)])
def test_a_dead_branch_counts_as_weighted_only_where_it_ends_in_weights(summed: bool, expected: int) -> None:
    trace = trace_network(lambda: _Cell(summed), torch.zeros(1, 2, 8, 8))
    assert operation_features(trace, "needed").get("conv3 count", 0) == 0
    assert operation_features(trace, "needed_or_weighted").get("conv3 count", 0) == expected
    assert operation_features(trace, "executed")["conv3 count"] == 1


def test_parallel_branches_share_the_longest_path(task: Task) -> None:
    both = "|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|nor_conv_3x3~1|none~2|"
    one = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|"
    features = [operation_features(trace_student(CELLS, CELLS.parse(text), task), "needed") for text in (both, one)]
    assert features[0]["conv3 count"] == features[1]["conv3 count"] + 3
    assert features[0]["path macs"] == pytest.approx(features[1]["path macs"])


def test_a_model_is_read_back_and_predicts_the_same(task: Task, tmp_path) -> None:
    model = fitted(RESNETS, task, count=60, noise=0.1, threads=2, machine={"cpu": "one", "cores": 2})
    path = tmp_path / "device.json"
    path.write_text(model.to_json(), encoding="utf-8")
    assert read_latency_model(path) == model
    trace = trace_student(RESNETS, sampled(RESNETS, 1, 9)[0], task)
    assert read_latency_model(path).predict(trace) == model.predict(trace)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[1, 2]", "its schema is 'None'"),
        ('{"schema": "edgestill.latency/99"}', "'edgestill.latency/99' and not 'edgestill.latency/1'"),
        ('{"schema": "edgestill.latency/1"}', "a damaged latency model"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_file_that_is_no_model_is_refused_in_one_sentence(text: str, reason: str, tmp_path) -> None:
    path = tmp_path / "device.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=reason) as refusal:
        read_latency_model(path)
    assert str(path) in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("costs", [1.0]),
        ("costs", "all"),
        ("runs", "__import__('os')"),
        ("n", 0),
        ("unit", "s"),
        ("surprise", 1),
        ("cross_validation", {"median_error": float("nan"), "p90_error": 0, "kendall_tau": 1}),
    ],
)
def test_a_model_with_a_wrong_part_is_refused_by_name(key: str, value: object, task: Task, tmp_path) -> None:
    written = json.loads(fitted(CELLS, task, count=20).to_json())
    path = tmp_path / "device.json"
    path.write_text(json.dumps(written | {key: value}), encoding="utf-8")
    with pytest.raises(DataError, match="a damaged latency model"):
        read_latency_model(path)


def test_a_missing_file_is_one_sentence(tmp_path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_latency_model(tmp_path / "none.json")


def test_a_model_refuses_another_space_and_another_shape(task: Task, make_task) -> None:
    model = fitted(CELLS, task, count=20)
    model.require_space(CELLS, "it")
    model.require_input(task, "it")
    with pytest.raises(DataError, match=r"space 'nb201', not of 'resnet'.*calibrate"):
        model.require_space(RESNETS, "it")
    with pytest.raises(DataError, match="inputs of 1x8x8, and the data's are 3x16x16"):
        model.require_input(make_task(channels=3, side=16), "it")


def test_too_few_samples_are_refused(task: Task) -> None:
    with pytest.raises(DataError, match="3 measured students are too few"):
        fitted(CELLS, task, count=3)


def test_kendalls_tau_agrees_with_scipy() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    for _ in range(20):
        a, b = generator.integers(0, 6, (2, 30)).astype(float)
        assert kendall_tau(a, b) == pytest.approx(scipy_stats.kendalltau(a, b)[0])


@pytest.mark.data
@pytest.mark.engines
def test_sixty_measured_cells_predict_others_on_two_real_devices(development_data) -> None:
    """One draw, and fewer cells to predict than benchmarks/latency.py takes."""
    lines = (development_data / "nb201" / "latency_ms.csv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [(text, float(pi), float(fpga)) for text, pi, fpga in (line.rsplit(",", 2) for line in lines)]
    drawn = random.Random(77).sample([row for row in rows if row[1] >= 0.1], 260)
    space, labels = Nb201Space(), tuple("0123456789")
    task = Task(labels=labels, input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
    traces = [trace_student(space, space.parse(text), task) for text, _, _ in drawn[60:]]
    for device, most, least in ((1, 0.08, 0.82), (2, 0.01, 0.98)):
        samples = [(space.parse(row[0]), row[device]) for row in drawn[:60]]
        model = fit_latency_model(space, {}, task, samples, device="real")
        found = np.array([model.predict(trace).latency_ms for trace in traces])
        true = np.array([row[device] for row in drawn[60:]])
        assert np.median(np.abs(found / true - 1)) <= most
        assert kendall_tau(found, true) >= least
