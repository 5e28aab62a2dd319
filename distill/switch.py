"""Switch-KD: what the student sees, told by the teacher.

After Switch-KD, CVPR Findings 2026, arXiv:2604.14629, whose text could not be had; the equations are those of a
transcription. A captioner has eyes V, a projector P and a mouth L. With the same images and texts,

    z_T = L_T(P_T(V_T(x)))      z_S = L_S(P_S(V_S(x)))      z_switch = L_T(P_T(V_S(x)))
    L = CE(z_S) + w DBiLD(z_T, z_S) + v DBiLD(z_T, z_switch)

at temperature 3, with both weights 1. The switch's gradient reaches the student's eyes alone: projector and mouth are
the frozen teacher's. The eyes of both must give tensors of one shape. No kind of data of a run has images and texts, so
this is for captioners of one's own, from Python; `dbild` is the loss for classifiers and language models.
"""

# B images, S tokens seen, D their width, T tokens of a text, V token ids, R rows

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.distill.losses import softened
from edgestill.distill.methods.targets.dbild import DBiLD, DBiLDConfig
from edgestill.pipeline.input_kind.lm import answered
from edgestill.pipeline.networks.network import View

TEMPERATURE = 3.0


class Captioner(Protocol):
    """A network of two parts that meet in a tensor."""

    def see(self, images: Tensor) -> Tensor: ...  # V: [B, C, H, W] to [B, S, D]
    def say(self, seen: Tensor, texts: Tensor) -> Tensor: ...  # L(P(.)): [B, S, D] and ids [B, T] to logits [B, T, V]


def switch_terms(
    teacher: Captioner,
    student: Captioner,
    images: Tensor,
    texts: Tensor,
    *,
    distill_weight: float = 1.0,
    switch_weight: float = 1.0,
) -> dict[str, Tensor]:
    """Return the terms of the loss on texts [B, T], each a mean over the tokens of their answers.

    Raises:
        ValueError: the teacher is not frozen, or the eyes do not give tensors of one shape.
    """
    if isinstance(teacher, nn.Module) and any(parameter.requires_grad for parameter in teacher.parameters()):
        raise ValueError("the teacher of a switch must be frozen; call requires_grad_(False) on it")
    with torch.no_grad():
        seen = teacher.see(images)
        told = _rows(teacher.say(seen, texts), texts)
    own = student.see(images)
    if own.shape != seen.shape:
        raise ValueError(f"the student sees {list(own.shape)} and the teacher {list(seen.shape)}; make them equal")
    said = _rows(student.say(own, texts), texts)
    terms = {"cross_entropy": F.cross_entropy(said, texts[:, 1:][answered(texts)])}
    if distill_weight:
        terms["distillation"] = distill_weight * dbild(told, said)
    if switch_weight:
        terms["switch"] = switch_weight * dbild(told, _rows(teacher.say(own, texts), texts))
    return terms


def dbild(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """Mean DBiLD of rows [R, V]."""
    method = DBiLD(DBiLDConfig(temperature=TEMPERATURE))
    nothing = student_logits[:0]
    return method.divergence(softened(teacher_logits, TEMPERATURE), View(nothing, nothing, student_logits)).mean()


def _rows(logits: Tensor, texts: Tensor) -> Tensor:
    """Logits of the tokens that an answer goes on with, [B, T, V] to [R, V]."""
    return logits[:, :-1][answered(texts)]
