"""DisWOT+: DisWOT's two search metrics as losses against the trained teacher.

Dong, Li and Wei 2023, arXiv:2303.15678, section 3.4 ("new distillers"). The paper does not spell the losses out: these
are its metrics' own equations (`pipeline/networks/diswot.py`) on each training batch.
"""

# N examples, C channels, K classes

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot, embedding_width
from edgestill.distill.methods.facts import Facts
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import UNLABELLED, Batch
from edgestill.pipeline.networks.diswot import classifier_gradient, last_relation, relation_distance, semantic_distance
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.teachers.teacher import Part


class DiswotPlusConfig(MethodConfig):
    """Relations between the examples of a batch, and gradients of the classifier."""

    name: Literal["diswot_plus"] = "diswot_plus"
    relation_weight: float = tunable(
        300.0, ge=0, le=1e6, tune=(30.0, 3000.0), log=True, description="relation loss weight (w_r); 0 leaves it out"
    )
    semantic_weight: float = tunable(
        0.1, ge=0, le=1e4, tune=(0.01, 1.0), log=True, description="semantic loss weight (w_s); 0 leaves it out"
    )


class DiswotPlus(Method):
    """Loss w_r ||R_T - R_S||_F^2 / N^2 + w_s sum_k ||E_T[k] - E_S[k]||_F^2 / (K C) = -w_r M_r - w_s M_s.

    The semantic loss compares classifier gradients [K, C], so it applies only if the embeddings of teacher and student
    are equally wide; otherwise only the relation loss is left, and the measure `semantic_applies` is 0.
    """

    name: ClassVar[str] = "diswot_plus"
    paper: ClassVar[str] = "Dong, Li, Wei 2023, arXiv:2303.15678"
    fills: ClassVar[frozenset[Slot]] = frozenset({"feature"})
    facts: ClassVar[Facts | None] = Facts(
        evidence="paper",
        elicitation=("feature",),
        ablation={"relation_weight": 0.0, "semantic_weight": 0.0},
        reduces_to=({"name": "kd"},),
        zero_at_teacher=True,
        invariant_to=frozenset({"shift"}),
        cost=3.0,
    )
    reads_features: ClassVar[bool] = True
    Config: ClassVar[type[MethodConfig]] = DiswotPlusConfig
    _semantic_applies = False

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"features", "embedding"})

    def prepare(self, context: Context) -> None:
        widths = [embedding_width(network, context) for network in (context.teacher, context.student)]
        self._semantic_applies = widths[0] == widths[1]

    def feature(self, teacher: View, student: View, batch: Batch) -> Mapping[str, Tensor]:
        related = relation_distance(last_relation(teacher), last_relation(student))
        terms = {"diswot_relation": self.config.relation_weight * related}
        labelled = batch.targets != UNLABELLED
        if self._semantic_applies and labelled.any():
            t, s = (
                classifier_gradient(View(*(part[labelled] for part in view)), batch.targets[labelled])
                for view in (teacher, student)
            )
            terms["diswot_semantic"] = self.config.semantic_weight * semantic_distance(t, s)
        return terms

    def measures(self) -> dict[str, float]:
        return {"semantic_applies": float(self._semantic_applies)}
