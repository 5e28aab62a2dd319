"""RKD: the student keeps the distances and angles between a batch's embeddings, whatever their width.

Park, Kim, Lu and Cho, "Relational Knowledge Distillation", CVPR 2019, arXiv:1904.05068. Follows the authors' code where
the paper leaves something open: all pairs and triplets count, those of an example with itself as zeros.
"""

# N examples, D embedding width

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from edgestill.distill.losses import precise
from edgestill.distill.methods.base import Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.teachers.teacher import Part


class RKDConfig(MethodConfig):
    """Distances and angles between embeddings."""

    name: Literal["rkd"] = "rkd"
    distance_weight: float = tunable(
        25.0, ge=0, le=1e5, tune=(1.0, 100.0), log=True, description="distance loss weight (lambda_D); authors use 25"
    )
    angle_weight: float = tunable(
        50.0, ge=0, le=1e5, tune=(1.0, 200.0), log=True, description="angle loss weight (lambda_A); the authors use 50"
    )


class RKD(Method):
    """Loss lambda_D Huber(psi_D(t), psi_D(s)) + lambda_A Huber(psi_A(t), psi_A(s)), equations 4 to 8.

    Angles take N^3 numbers of memory, with N examples in a batch.
    """

    name: ClassVar[str] = "rkd"
    paper: ClassVar[str] = "Park, Kim, Lu, Cho 2019, arXiv:1904.05068"
    fills: ClassVar[frozenset[Slot]] = frozenset({"feature"})
    facts: ClassVar[Facts | None] = Facts(
        evidence="code",
        elicitation=("feature",),
        ablation={"distance_weight": 0.0, "angle_weight": 0.0},
        reduces_to=({"name": "kd"},),
        zero_at_teacher=True,
        invariant_to=frozenset({"shift"}),
        cost=3.0,
    )
    Config: ClassVar[type[MethodConfig]] = RKDConfig

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"embedding"})

    def feature(self, teacher: View, student: View, batch: Batch) -> Mapping[str, Tensor]:
        t, s = precise(teacher.embedding.detach()), precise(student.embedding)
        terms = {}
        if self.config.distance_weight:
            terms["rkd_distance"] = self.config.distance_weight * F.smooth_l1_loss(distances(s), distances(t))
        if self.config.angle_weight:
            terms["rkd_angle"] = self.config.angle_weight * F.smooth_l1_loss(angles(s), angles(t))
        return terms


def distances(embedding: Tensor) -> Tensor:
    """Return psi_D: Euclidean distances [N, N] divided by the mean of those above 0 (equations 4 and 5)."""
    _, squared = _products_and_squares(embedding)
    found = squared.clamp_min(1e-12).sqrt() * (1 - torch.eye(len(embedding), device=embedding.device))
    mean = found.sum() / (found > 0).sum().clamp_min(1)
    return found / mean.clamp_min(1e-12)


def angles(embedding: Tensor) -> Tensor:
    """Return psi_A: cosines [N, N, N] of the angle at the first example between the other two (equation 7).

    Computed from inner products, (e_j - e_i)(e_k - e_i) = e_j e_k - e_i e_j - e_i e_k + e_i e_i, with a tenth of the
    arithmetic of the differences. Two examples nearer to each other than a thousandth of their distance from the
    batch's mean count as one, as float32 no longer knows the direction between them.
    """
    products, squared = _products_and_squares(embedding)
    norms = products.diagonal()
    apart = squared > 1e-6 * (norms[:, None] + norms[None, :])
    scale = torch.where(apart, squared, torch.inf).rsqrt()  # 0 where there is no direction
    share = norms[:, None] / 2 - products  # [i, j]: e_i e_i / 2 - e_i e_j
    return (products[None] + share[:, :, None] + share[:, None, :]) * scale[:, :, None] * scale[:, None, :]


def _products_and_squares(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Inner products and squared distances [N, N] of the embeddings around their mean, where cancellation is least."""
    around = embedding - embedding.mean(0)
    products = around @ around.T
    norms = products.diagonal()
    return products, norms[:, None] + norms[None, :] - 2 * products
