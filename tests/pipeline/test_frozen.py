"""Frozen values, their digests, and the seeds derived from them."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from edgestill.pipeline.errors import ConfigError, EdgestillError, UserError, nearest
from edgestill.pipeline.frozen import Frozen, canonical_json, derive_seed, digest
from edgestill.pipeline.task import Task


class Point(Frozen):
    x: int
    y: int = 0


def test_a_misspelt_key_is_an_error_and_a_value_cannot_be_changed():
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Point.model_validate({"x": 1, "z": 2})
    with pytest.raises(ValidationError, match="frozen"):
        Point(x=1).x = 2


def test_equal_values_have_one_digest_however_they_were_written():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest(Point(x=1)) == digest(Point(x=1, y=0)) == digest({"y": 0, "x": 1})
    assert digest(Path("a/b")) == digest("a/b")


def test_different_values_have_different_digests():
    values = [(), ("",), (1,), ("1",), (1.5,), (1, 2), ((1, 2),), (12,), ({"a": 1},), (None,), (True,)]
    assert len({digest(*value) for value in values}) == len(values)


def test_what_has_no_canonical_form_is_refused():
    with pytest.raises(TypeError, match="set has no canonical JSON form"):
        canonical_json({1, 2})


def test_derived_seeds_are_spread_over_63_bits_and_depend_on_every_part():
    seeds = np.array([derive_seed(0, "epoch", n) for n in range(2000)], dtype=np.uint64)
    assert len(set(seeds.tolist())) == 2000
    assert seeds.max() < 2**63
    for bit in range(63):
        share = ((seeds >> np.uint64(bit)) & np.uint64(1)).mean()
        assert 0.44 < share < 0.56  # standard deviation 0.011
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert derive_seed(0, "a") == derive_seed(0, "a")


def test_an_unknown_name_is_answered_with_the_nearest():
    assert nearest("resnett", ["resnet", "nb201"]) == "did you mean 'resnet'? known: nb201, resnet"
    assert nearest("zzz", ["resnet", "nb201"]) == "known: nb201, resnet"


def test_a_configuration_error_carries_all_problems_and_user_errors_exit_with_two():
    error = ConfigError(["one", "two"])
    assert error.problems == ("one", "two")
    assert str(error) == "one\ntwo"
    assert isinstance(error, UserError)
    assert isinstance(error, ValueError)
    assert error.exit_code == 2
    assert EdgestillError.exit_code == 1


def test_a_task_needs_a_statistic_a_channel_and_two_classes():
    given = {"labels": ("a", "b"), "input_shape": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert Task(**given).num_classes == 2
    with pytest.raises(ValidationError, match="3 channels need as many means and stds"):
        Task(**given | {"mean": (0.5,)})
    with pytest.raises(ValidationError, match="at least 2"):
        Task(**given | {"labels": ("a",)})
