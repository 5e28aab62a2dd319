"""A method's head counts against the budget before anything is trained."""

from distill.config import DistillConfig
from flows.heads import heads, what_ships


def test_only_methods_with_a_head_change_what_ships() -> None:
    assert what_ships(DistillConfig(methods=("kd", "rkd"))) is None
    assert [method.name for method in heads(DistillConfig(methods=("lelp", "rkd")))] == ["lelp"]


def test_a_budget_that_only_the_bare_student_meets_is_refused_at_once_with_the_way_out(
    edgestill, tiny_arguments, tmp_path
) -> None:
    refused = edgestill(
        "run",
        *tiny_arguments(search__budget__max_params="7000", distill__methods="[lelp]"),
        "--out",
        str(tmp_path),
        "--quiet",
    )
    assert refused.returncode == 2
    assert "is above max_params 7,000" in refused.stderr
    assert "the head that method 'lelp' adds to the student is counted in it: set fewer subclasses" in refused.stderr
    assert not list(tmp_path.glob("*/teacher"))
