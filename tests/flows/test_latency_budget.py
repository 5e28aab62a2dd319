"""A latency limit for what ships: a format on a target, in which candidates are measured there."""

import random
from types import SimpleNamespace

import pytest
from loopback import Loopback

from edgestill.export.targets import remote
from edgestill.flows.config import load_config
from edgestill.flows.latency import latency_source
from edgestill.flows.stages.context import StageContext
from edgestill.pipeline.errors import ConfigError
from edgestill.search.spaces import make_space

PI = "targets=[{name: pi5, where: 'ssh://tester@pi5'}, {name: old, where: 'ssh://tester@old', formats: [fp32]}]"


def loaded(*settings):
    return load_config(settings=list(settings), check_files=False)


def test_the_short_form_and_the_keys_are_the_same_configuration():
    short = loaded(PI, "search.budget.max_latency_ms={int8@pi5: 5}")
    spelt = ("search.budget.max_latency_ms=5", "search.latency.format=int8", "search.latency.target=pi5")
    assert short == loaded(PI, *spelt)
    assert short.search.budget.max_latency_ms == 5
    assert (short.latency_target.name, short.search.latency.format) == ("pi5", "int8")
    assert load_config(settings=[], check_files=False).search.latency.model_dump().keys().isdisjoint({"target"})


def test_a_limit_for_here_or_without_a_target_is_for_this_machine_or_the_first_target():
    assert loaded(PI, "search.budget.max_latency_ms={int8@here: 5}").latency_target is None
    assert loaded(PI, "search.budget.max_latency_ms={int8: 5}").latency_target.name == "pi5"
    assert loaded("search.budget.max_latency_ms={int8: 5}").latency_target is None


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ([PI, "search.budget.max_latency_ms={int9@pi5: 5}"], "unknown format 'int9'"),
        ([PI, "search.budget.max_latency_ms={int8@pi6: 5}"], "'pi6' is none of the run's targets; did you mean 'pi5'"),
        ([PI, "search.budget.max_latency_ms={int8@old: 5}"], "'int8' is none of the formats of target old: fp32"),
        ([PI, "search.budget.max_latency_ms={int8@pi5: 5, fp32@old: 9}"], "holds 2 limits; give one"),
        (
            [PI, "search.budget.max_latency_ms={int8@pi5: 5}", "search.latency.format=fp16"],
            "is for format 'int8', and latency.format is 'fp16'",
        ),
        (
            ["targets=[{name: usb, where: 'folder:/tmp/usb'}]", "search.budget.max_latency_ms={int8@usb: 5}"],
            "a person carries its profiles",
        ),
    ],
)
def test_a_limit_that_cannot_be_measured_is_refused_in_one_sentence(settings, reason):
    with pytest.raises(ConfigError, match=reason) as refusal:
        loaded(*settings)
    assert len(refusal.value.problems) == 1


@pytest.fixture
def board(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "POLL_S", 0.05)
    made = Loopback(tmp_path / "board")
    made.be(ms={"fp32": 9.0, "int8": 2.0})
    yield made
    made.close()


QUICK = ("search.latency.timing={warmup_s: 0, duration_s: 0.01, min_samples: 30}", "search.space={name: resnet}")


@pytest.mark.parametrize(("form", "ms"), [("int8", 2.0), ("fp32", 9.0)])
def test_a_candidate_is_measured_in_its_format_on_the_target(board, form, ms, make_task):
    config = loaded("targets=[{name: board, where: here}]", *QUICK, f"search.budget.max_latency_ms={{{form}@board: 5}}")
    source = latency_source(config.search, make_task(), 20, board.target(name="board"))
    space = make_space(config.search.space)
    assert source.measure(space.sample(random.Random(0))) == ms
    assert source.learns


def test_a_candidate_is_measured_in_its_format_here(make_task):
    config = loaded(*QUICK, "search.budget.max_latency_ms={int8@here: 5}")
    source = latency_source(config.search, make_task(), 20, config.latency_target)
    assert 0 < source.measure(make_space(config.search.space).sample(random.Random(0))) < 1000


def test_the_limit_is_held_against_files_on_its_own_target_alone():
    config = loaded(PI, "search.budget.max_latency_ms={int8@pi5: 5}")
    context = SimpleNamespace(config=config)
    assert StageContext.limits_on(context, "pi5").max_latency_ms == 5
    assert StageContext.limits_on(context, "old").max_latency_ms is None
