"""Fidelity of a student to its teacher."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from edgestill.pipeline.training.fidelity import fidelity


@pytest.fixture
def logits():
    rng = np.random.default_rng(0)
    return rng.normal(size=(200, 5)), rng.normal(size=(200, 5)), rng.integers(5, size=200)


def test_a_teacher_is_wholly_faithful_to_itself(logits):
    teacher, _, targets = logits
    found = fidelity(teacher, teacher, targets)
    assert (found.agreement, found.kl, found.rank_correlation) == (1.0, 0.0, pytest.approx(1.0))
    assert found.agreement_where_teacher_right == found.agreement_where_teacher_wrong == 1.0


def test_accuracy_is_agreement_where_the_teacher_is_right_and_disagreement_where_the_student_is(logits):
    teacher, student, targets = logits
    found = fidelity(teacher, student, targets)
    differ = teacher.argmax(1) != student.argmax(1)
    alone = float((differ & (student.argmax(1) == targets)).mean())
    with_teacher = found.agreement_where_teacher_right * found.teacher_accuracy
    assert found.student_accuracy == pytest.approx(with_teacher + alone, abs=1e-12)


def test_rank_correlation_and_kl_are_their_definitions(logits):
    teacher, student, targets = logits
    found = fidelity(teacher, student, targets)
    assert found.rank_correlation == pytest.approx(
        np.mean([spearmanr(a, b).statistic for a, b in zip(teacher, student, strict=True)])
    )
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (teacher, student))
    assert found.kl == pytest.approx((p * np.log(p / q)).sum(1).mean())


def test_a_teacher_that_is_never_right_or_says_nothing_is_told_so():
    flat, targets = np.zeros((4, 3)), np.array([1, 2, 1, 2])
    found = fidelity(flat, np.eye(3)[[0, 0, 1, 1]], targets)
    assert found.agreement_where_teacher_right is None
    assert found.agreement_where_teacher_wrong == 0.5
    assert found.rank_correlation == 0.0
