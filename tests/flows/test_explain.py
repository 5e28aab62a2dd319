"""`edgestill explain` and the tags of `edgestill list methods`."""

import pytest

from edgestill.distill.acquisition import ACQUISITIONS
from edgestill.distill.drivers import DRIVERS
from edgestill.distill.methods import METHODS
from edgestill.flows.plan import explain
from edgestill.flows.plan.listing import listed
from edgestill.pipeline.errors import ConfigError


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_explained_with_source_loss_needs_cost_and_settings(name):
    text = explain.explained(name)
    method = METHODS[name]
    assert text.startswith(f"{name}: {method.paper}")
    for words in ("Fills: ", "Needs of the teacher: logits", "Formulas from: ", "Tags: ", "Cost: ", "Results here"):
        assert words in text
    for field in method.Config.model_fields:
        assert field == "name" or f"  {field} = " in text


@pytest.mark.parametrize("name", DRIVERS)
def test_a_driver_is_explained_with_source_and_settings(name):
    text = explain.explained(name)
    assert text.startswith(f"{name}: {DRIVERS[name].paper}")
    assert "distill.driver" in text
    for field in DRIVERS[name].Config.model_fields:
        assert field == "name" or f"  {field} = " in text


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_an_acquisition_function_is_explained_with_its_source_and_where_it_was_read(name):
    text = explain.explained(name)
    assert text.startswith(f"{name}: {ACQUISITIONS[name].paper}")
    assert "Formulas from: " in text


def test_one_name_is_one_thing():
    assert len({*METHODS, *DRIVERS, *ACQUISITIONS}) == len(METHODS) + len(DRIVERS) + len(ACQUISITIONS)


def test_results_are_told_as_won_lost_or_no_difference(monkeypatch, tmp_path):
    path = tmp_path / "zoo.csv"
    path.write_text(
        "task,method,difference,low,high,n\nm1k,pld,0.5,0.1,0.9,5\nc5k,pld,-0.5,-0.9,-0.1,5\nsst2,pld,0.1,-0.3,0.5,5\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(explain, "RESULTS", path)
    text = explain.explained("pld")
    assert "m1k: +0.50 [+0.10, +0.90], 5 seeds: won" in text
    assert "c5k: -0.50 [-0.90, -0.10], 5 seeds: lost" in text
    assert "sst2: +0.10 [-0.30, +0.50], 5 seeds: no difference" in text


def test_an_unknown_method_or_tag_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match="pld"):
        explain.explained("pdl")
    with pytest.raises(ConfigError, match="did you mean 'pcoreset'"):
        explain.explained("pcorset")
    with pytest.raises(ConfigError, match=r"tags: .*ranking"):
        listed("methods", "rankings")
    with pytest.raises(ConfigError, match="only methods"):
        listed("formats", "ranking")


def test_a_tag_lists_its_methods():
    lines = listed("methods", "ranking").splitlines()
    assert [line.split()[0] for line in lines] == ["pld", "dbild"]
