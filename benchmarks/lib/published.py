"""DisWOT's score as the official code computes it: autograd, class-wise matrices, two fresh networks a candidate.

Written from the README of the paper's repository (lliai/DisWOT-CVPR2023) and its ICKDLoss: teacher and student are
initialised with N(0, 1), both run forward and backward on the batch, the gradient of each classifier's weight is
turned into one [C, C] matrix a class, and the matrices' rows are normalised and compared; the relation metric compares
the normalised [B, B] matrices of the last features. `benchmarks/score.py` times it beside ours, which needs no
gradient, one teacher, and no matrix.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.networks.network import initialise


def published_score(teacher: nn.Module, student: nn.Module, batch: Batch, seeds: tuple[int, int]) -> float:
    """M_s + M_r of a teacher and a student that are initialised here, each from its seed."""
    initialise(teacher, "gaussian", seeds[0])
    initialise(student, "gaussian", seeds[1])
    teacher_features, teacher_gradient = _forward_backward(teacher.train(), batch)
    student_features, student_gradient = _forward_backward(student.train(), batch)
    return _semantic(teacher_gradient, student_gradient) + _relation(teacher_features, student_features)


def _forward_backward(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Features [B, C, H, W] and the classifier's gradient [K, C]."""
    network.zero_grad()
    features = network.forward_features(batch.inputs)  # type: ignore[operator]
    logits = network.forward_head(features)  # type: ignore[operator]
    F.cross_entropy(logits, batch.targets).backward()
    gradient = network.get_classifier().weight.grad  # type: ignore[operator]
    return features.detach(), gradient


def _semantic(teacher: Tensor, student: Tensor) -> float:
    matrices = []
    for gradient in (teacher, student):
        rows = gradient.unsqueeze(-1)  # [K, C, 1]
        matrices.append(F.normalize(torch.bmm(rows, rows.transpose(1, 2)), dim=2))  # [K, C, C]
    difference = matrices[0] - matrices[1]
    classes, width = teacher.shape
    return -float((difference * difference).sum() / (classes * width))


def _relation(teacher: Tensor, student: Tensor) -> float:
    relations = []
    for features in (teacher, student):
        flat = features.reshape(len(features), -1)
        relations.append(F.normalize(torch.mm(flat, flat.t()), dim=1))  # [B, B]
    difference = relations[0] - relations[1]
    return -float((difference * difference).sum() / len(teacher) ** 2)
