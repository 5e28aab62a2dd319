"""Answers by class, against another library and by hand."""

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_score, recall_score

from edgestill.pipeline.training.confusion import Confusion, useless, weak_classes


def of_matrix(*rows):
    cells = [(t, a, count) for t, row in enumerate(rows) for a, count in enumerate(row) if count]
    return Confusion(num_classes=len(rows), cells=tuple(cells))


def test_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    answers, targets = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    found = Confusion.of(answers, targets, 4)
    assert [found.precision(k) for k in range(4)] == pytest.approx(precision_score(targets, answers, average=None))
    assert [found.recall(k) for k in range(4)] == pytest.approx(recall_score(targets, answers, average=None))
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(targets, answers))
    matrix = confusion_matrix(targets, answers)
    assert found == of_matrix(*matrix.tolist())
    assert found.counts.tolist() == matrix.sum(1).tolist()
    assert found.answered.tolist() == matrix.sum(0).tolist()
    assert found.n == 300
    assert found.accuracy == pytest.approx((answers == targets).mean())


def test_a_class_that_is_never_answered_or_never_there_has_no_figure_rather_than_zero():
    found = Confusion.of(np.array([0, 0]), np.array([0, 1]), 3)
    assert (found.precision(1), found.recall(1)) == (None, 0.0)
    assert (found.precision(2), found.recall(2)) == (None, None)
    assert found.balanced_accuracy == 0.5


def test_the_majority_is_beaten_by_more_than_chance_or_not_at_all():
    always = of_matrix([300, 0, 0], [300, 0, 0], [59, 0, 0])
    assert always.majority == always.accuracy == 300 / 659
    assert not always.beats_majority
    assert not always.beats_chance
    assert of_matrix([280, 20, 0], [20, 280, 0], [30, 29, 0]).beats_majority
    assert not of_matrix([3, 1], [1, 3]).beats_majority  # 3 against 1 examples are a coin's


def test_a_rare_class_found_at_a_cost_beats_chance_and_not_the_majority():
    found = of_matrix([9800, 100], [40, 60])
    assert found.accuracy < found.majority
    assert not found.beats_majority
    assert found.beats_chance


def test_weak_are_the_classes_with_recall_0_or_surely_below_half_of_the_mean():
    found = of_matrix([90, 10, 0, 0], [5, 95, 0, 0], [6, 6, 0, 0], [50, 20, 0, 30])
    assert found.weak == (2,)  # the mean recall is 0.54, and 0.3 of 100 is not surely below its half
    assert of_matrix([90, 10, 0], [5, 95, 0], [60, 20, 20]).weak == (2,)
    assert of_matrix([9, 1], [2, 8]).weak == ()


def test_weak_classes_are_named_with_their_recall_and_examples():
    said = weak_classes(of_matrix([90, 10, 0], [5, 95, 0], [6, 6, 0]), ("a", "b", "c"), "the file", "test")
    assert said == "the file hardly recognises 1 of 3 classes; recall on test: 'c' 0.0% of 12; mean recall 61.7%"
    assert weak_classes(of_matrix([9, 1], [2, 8]), ("a", "b"), "the file", "test") == ""
    many = of_matrix(*([9, *[0] * 7] for _ in range(8)))
    assert "'f' 0.0% of 9 and 2 more; mean" in weak_classes(many, "abcdefgh", "the file", "test")


@pytest.mark.parametrize("cell", [(2, 0, 1), (0, 2, 1), (0, 0, 0), (-1, 0, 1)])
def test_a_cell_of_no_class_is_refused(cell):
    with pytest.raises(ValidationError):
        Confusion(num_classes=2, cells=(cell,))


def test_tokens_are_told_as_tokens_and_a_result_of_classes_reads_as_before():
    answers, targets = np.array([0, 0, 1]), np.array([0, 1, 1])
    tokens, classes = Confusion.of(answers, targets, 3, "token"), Confusion.of(answers, targets, 3)
    assert "the most frequent token (" in useless(tokens, "the teacher", "test")
    assert (tokens.most_frequent, classes.most_frequent) == ("most frequent token", "majority class")
    assert "unit" not in classes.model_dump()
    assert Confusion.model_validate_json(tokens.model_dump_json()) == tokens
    assert Confusion.model_validate_json(classes.model_dump_json()) == classes
