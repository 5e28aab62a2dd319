"""Every method of the table keeps the contract of `distill.methods.base.Method`: it passes `distill.conformance`."""

import re
from pathlib import Path

import pytest
import torch

from edgestill.distill.config import StudentTrainingConfig
from edgestill.distill.conformance.contract import CONTRACT, outside_bounds, plain_and_shipped
from edgestill.distill.conformance.facts import FACTS
from edgestill.distill.methods import METHODS
from edgestill.distill.tunable import tuning_ranges
from edgestill.export.conformance import require_same_graph
from edgestill.pipeline.conformance.suite import NotHereError


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("check", [*CONTRACT, *FACTS], ids=lambda check: check.__name__)
def test_every_method_passes(check, name):
    try:
        check(METHODS[name])
    except NotHereError as reason:
        pytest.skip(str(reason))


def test_every_method_of_ours_states_its_facts():
    assert [name for name, method in METHODS.items() if method.facts is None] == []


def test_the_page_on_methods_names_the_slots_that_each_fills():
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "methods.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|$", page, flags=re.MULTILINE)
    told = {name: set(re.findall(r"\w+", slots)) for name, slots in rows}
    assert told == {name: set(method.fills) for name, method in METHODS.items()}


def test_the_training_ranges_that_are_tuned_are_legal_too():
    ranges = tuning_ranges(StudentTrainingConfig)
    assert set(ranges) == {"learning_rate", "weight_decay"}
    for field, found in ranges.items():
        assert found.low <= StudentTrainingConfig.model_fields[field].default <= found.high
        assert list(outside_bounds(StudentTrainingConfig, field))


@pytest.mark.parametrize("name", [n for n in METHODS if not METHODS[n].facts.changes_graph])
def test_what_ships_is_the_plain_student_with_other_weights(name):
    """The same modules without hooks, so that an exporter sees the same graph; the one of plain KD is exported."""
    plain, shipped, task = plain_and_shipped(METHODS[name])
    assert repr(shipped) == repr(plain)
    assert type(shipped) is type(plain)
    for module in shipped.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
        assert not any(hooks)
        assert not hasattr(module, "parametrizations")
    if name == "kd":
        require_same_graph(shipped, plain, task)
    others = shipped.state_dict()
    is_same = all(torch.equal(value, others[key]) for key, value in plain.state_dict().items())
    assert is_same == (name == "none")  # other weights, but for the labels alone
