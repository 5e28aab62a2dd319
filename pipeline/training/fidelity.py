"""Fidelity of a student to its teacher, which is another matter than its accuracy.

After the study of generalisation and fidelity in distillation, ACL Findings 2025, arXiv:2505.15442. There fidelity is
between rationales of language models, here between the answers and logits of classifiers.
"""

# N examples, K classes

from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.stats import rankdata

from edgestill.pipeline.frozen import Count, Frozen, Share
from edgestill.pipeline.training.calibration import calibration, softmax

_TINY = 1e-30  # below it a probability counts as this
Correlation = Annotated[float, Field(ge=-1, le=1)]
Nats = Annotated[float, Field(ge=0, le=1e6)]


class Fidelity(Frozen):
    """Agreement of teacher and student on labelled examples."""

    n: Count
    agreement: Share  # same answers
    agreement_where_teacher_right: Share | None  # None: it is nowhere right
    agreement_where_teacher_wrong: Share | None
    kl: Nats  # mean KL(teacher || student) at temperature 1
    rank_correlation: Correlation  # mean over examples of Spearman's between the logits
    teacher_accuracy: Share
    student_accuracy: Share
    teacher_calibration_error: Share
    student_calibration_error: Share


def fidelity(teacher: np.ndarray, student: np.ndarray, targets: np.ndarray) -> Fidelity:
    """Compare logits [N, K] of both on examples with targets [N]."""
    answers = teacher.argmax(1), student.argmax(1)
    same, right = answers[0] == answers[1], answers[0] == targets
    p, q = softmax(teacher), softmax(student)
    kl = (p * (np.log(np.maximum(p, _TINY)) - np.log(np.maximum(q, _TINY)))).sum(1).mean()
    return Fidelity(
        n=len(targets),
        agreement=float(same.mean()),
        agreement_where_teacher_right=_share(same, right),
        agreement_where_teacher_wrong=_share(same, ~right),
        kl=max(0.0, float(kl)),
        rank_correlation=_rank_correlation(teacher, student),
        teacher_accuracy=float(right.mean()),
        student_accuracy=float((answers[1] == targets).mean()),
        teacher_calibration_error=min(1.0, calibration(teacher, targets)[0]),
        student_calibration_error=min(1.0, calibration(student, targets)[0]),
    )


def _share(same: np.ndarray, where: np.ndarray) -> float | None:
    return float(same[where].mean()) if where.any() else None


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of Spearman's correlation over the rows; 0 of a row whose logits are all equal."""
    centred = [rankdata(logits, axis=1) - (logits.shape[1] + 1) / 2 for logits in (a, b)]
    products = (centred[0] * centred[1]).sum(1)
    sizes = np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    found = float(np.divide(products, sizes, out=np.zeros_like(products), where=sizes > 0).mean())
    return min(1.0, max(-1.0, found))
