"""The benchmarks of methods: their statistics, and what names a training that is kept."""

import importlib
import sys
from pathlib import Path

import pytest
from scipy.stats import ttest_rel

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def load():
    """Imports a benchmark as Python does that runs it."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")) or name in ("tasks", "lib"):
            del sys.modules[name]


def test_a_paired_difference_has_scipys_interval(load):
    one, other = [92.1, 93.4, 91.0, 94.2], [90.0, 92.9, 90.1, 93.0]
    interval = ttest_rel(one, other).confidence_interval(0.95)
    mean, half = load("lib.bench").paired_difference(one, other)
    assert (mean - half, mean + half) == pytest.approx((interval.low, interval.high))


def test_the_command_that_is_shown_leaves_out_nothing_but_the_folders(load, monkeypatch):
    words = ["--regimes", "clean", "--set", "sharpness=20", "--data", "/home/me/data", "--out", "/home/me/out"]
    monkeypatch.setattr(sys, "argv", ["/home/me/benchmarks/influence.py", *words])
    expected = "python benchmarks/influence.py --regimes clean --set sharpness=20 --data DATA --out OUT"
    assert load("lib.bench").shown_command() == expected


def test_what_is_set_for_kd_aif_reaches_it_and_its_controls_and_not_plain_kd(load):
    influence = load("influence")
    told = dict([influence._setting("sharpness=20")])
    for kind in ("kd_aif", "small loss", "oracle"):
        assert influence.config_of("clean", kind, {"distill_weight": 0.5}, told).sharpness == 20
    assert influence.config_of("clean", "kd", {"distill_weight": 0.5}, told).name == "kd"
    assert influence.config_of("clean", "teacher", {}, told) is None


def test_a_default_or_a_training_that_changes_is_another_training(load, monkeypatch):
    influence = load("influence")
    config = influence.config_of("noisy", "kd_aif", {}, {})
    before = influence.key_of("noisy", "kd_aif", config, 0)
    assert influence.key_of("noisy", "kd_aif", config, 0) == before
    assert influence.key_of("noisy", "kd_aif", config.model_copy(update={"damping": 2.0}), 0) != before
    assert influence.key_of("noisy", "kd_aif", config, 1) != before
    assert influence.key_of("good", "kd_aif", config, 0) != before
    monkeypatch.setattr(influence, "TRAINING", influence.TRAINING.model_copy(update={"epochs": 31}))
    assert influence.key_of("noisy", "kd_aif", config, 0) != before


def test_settings_that_were_tuned_on_another_seed_are_other_settings(load):
    methods, training = load("methods"), load("influence").TRAINING
    told = {"task": "digits", "methods": [{"name": "kd"}], "trials": 5, "seed": 99, "training": training}
    key = methods.tuning_key(**told)
    assert methods.tuning_key(**told) == key
    longer = training.model_copy(update={"epochs": 31})
    changes = {"task": "sst2", "methods": [{"name": "none"}], "trials": 6, "seed": 100, "training": longer}
    for name, value in changes.items():
        assert methods.tuning_key(**told | {name: value}) != key


def test_every_task_has_a_name_and_a_function_of_its_own(load):
    bench = load("lib.bench")
    names = bench.task_names()
    assert {"digits", "mnist_shift", "mnist_shift_cnn", "mnist_shift_4px", "mnist_noisy_good"} <= set(names)
    assert "mnist_noisy" not in names
    assert len({bench.load_task(name) for name in names}) == len(names)
