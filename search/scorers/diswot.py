"""DisWOT: a student is good if, untrained, its input relations and classifier gradients resemble its teacher's.

Dong, Li and Wei, "DisWOT: Student Architecture Search for Distillation WithOut Training", CVPR 2023,
arXiv:2303.15678. The paper's official code is followed where it is sound: N(0, 1) weights, training-mode batch
norm, one batch, float32 gradients and an epsilon of 1e-12. Elsewhere this file departs from it
(docs/explanation/scores.md): the teacher's gradient is not accumulated over candidates, relations are between the
inputs of the batch, and teacher and student see the same batch.

The score is M_s + M_r, both at most 0, higher is better, and 0 for the teacher itself.
"""

# B batch, C channels, H W height and width, K classes

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.diswot import (
    EPS,
    classifier_gradient,
    last_relation,
    relation,
    relation_distance,
    semantic_distance,
)
from edgestill.pipeline.networks.network import Initialisation, View
from edgestill.search.scorers.base import Scorer, ScoringContext, Student
from edgestill.search.space import SearchSpace

Combine = Literal["sum", "zscore", "rank_sum"]
_JOINED: dict[Combine, str] = {"sum": "", "zscore": ", its metrics as z-scores", "rank_sum": ", its metrics as ranks"}


class DiswotConfig(Frozen):
    combine: Combine = Field("sum", description="combination of DisWOT's two metrics; sum is the paper's")


def relation_similarity(teacher: Tensor, student: Tensor) -> float:
    """M_r = -||R_T - R_S||_F^2 / B^2, in [-2 / B, 0] for non-negative features. Its scale depends on B."""
    return -float(relation_distance(teacher.double(), student.double()))


def semantic_similarity(teacher: Tensor, student: Tensor, eps: float = EPS) -> float:
    """M_s = -sum_k ||E_T[k] - E_S[k]||_F^2 / (K C), of classifier gradients [K, C]."""
    similarity = -float(semantic_distance(teacher.double(), student.double(), eps))
    return min(similarity, 0.0)  # rounding can lift it above 0; NaN stays NaN only as the first argument


def live_rows(gradient: Tensor, eps: float = EPS) -> float:
    """Share of E's rows that eps leaves at norm 1; saturated logits under N(0, 1) weights kill the rest."""
    gradient = gradient.double()
    return float((gradient.abs() * gradient.norm(dim=1, keepdim=True) >= eps).double().mean())


class _TeacherAware(Scorer):
    initialisation: ClassVar[Initialisation | None] = "gaussian"
    needs_teacher: ClassVar[bool] = True

    def __init__(self, context: ScoringContext, config: Any = None) -> None:
        super().__init__(context, config)
        assert context.teacher is not None
        self._relation = last_relation(context.teacher)
        self._gradient = classifier_gradient(context.teacher, context.batch.targets)

    def _relation_similarity(self, student: Student) -> float:
        assert student.view is not None
        return relation_similarity(self._relation, last_relation(student.view))

    def _semantic_similarity(self, student: Student) -> float:
        """M_s; NaN if the widths differ, since gradients [K, C_T] and [K, C_S] are not comparable."""
        assert student.view is not None
        widths = self.context.teacher_dims or {student.view.embedding.shape[1]}
        if widths != {self._gradient.shape[1]}:
            return math.nan
        return semantic_similarity(self._gradient, classifier_gradient(student.view, self.context.batch.targets))


class DiswotRelation(_TeacherAware):
    """M_r alone; comparable between networks of any width and resolution."""

    name: ClassVar[str] = "diswot_relation"

    def __call__(self, student: Student) -> float:
        return self._relation_similarity(student)


class DiswotSemantic(_TeacherAware):
    """M_s alone; NaN unless the student's embedding is as wide as the teacher's."""

    name: ClassVar[str] = "diswot_semantic"

    @classmethod
    def check(cls, space: SearchSpace, teacher: nn.Module) -> None:
        if not _as_wide(space, teacher):
            dim = _embedding_dim(teacher)
            raise ConfigError(
                [
                    f"search.scorer: diswot_semantic compares embeddings of equal width; the space's are "
                    f"{_widths(space)} wide and the teacher's is {dim}; use diswot_relation, or fix the last width at "
                    f"{dim}"
                ]
            )

    def __call__(self, student: Student) -> float:
        return self._semantic_similarity(student)


class Diswot(_TeacherAware):
    """M_s + M_r, the paper's score.

    If the widths differ, only M_r is left. Scores with and without M_s must not be compared, so a search decides
    once for its whole space: `ScoringContext.teacher_dims` holds every width of the space.
    """

    name: ClassVar[str] = "diswot"
    Config: ClassVar[type[Frozen]] = DiswotConfig
    beside: ClassVar[tuple[str, ...]] = (DiswotSemantic.name, DiswotRelation.name)

    def __call__(self, student: Student) -> float:
        semantic = self._semantic_similarity(student)
        return self._relation_similarity(student) + (0.0 if math.isnan(semantic) else semantic)

    @classmethod
    def notes(cls, space: SearchSpace, teacher: nn.Module) -> tuple[str, ...]:
        if _as_wide(space, teacher):
            return ()
        return (
            f"students' embeddings are {_widths(space)} wide and the teacher's is {_embedding_dim(teacher)}, so "
            "DisWOT's semantic metric does not apply and its relation metric alone ranks them",
        )

    @classmethod
    def fitness(cls, config: DiswotConfig, scores: Sequence[Mapping[str, float]]) -> list[float]:
        """Join the two metrics.

        `sum` is the paper's raw sum, where the semantic metric is some hundred times the larger. `zscore` and
        `rank_sum` weigh both alike over the given candidates.
        """
        if config.combine == "sum" or any(DiswotSemantic.name not in candidate for candidate in scores):
            return super().fitness(config, scores)
        scale = _zscores if config.combine == "zscore" else _ranks
        columns = [scale([candidate[metric] for candidate in scores]) for metric in cls.beside]
        return [sum(pair) for pair in zip(*columns, strict=True)]

    @classmethod
    def fitness_name(cls, config: DiswotConfig) -> str:
        return cls.name + _JOINED[config.combine]


class DiswotStages(_TeacherAware):
    """M_r at the end of every stage, summed; ours: the paper takes the last stage only.

    Teacher and student are matched by the stage's number; NaN if their numbers of stages differ, or if one of them
    has no blocks. A network of tokens has one stage.
    """

    name: ClassVar[str] = "diswot_stages"
    needs_blocks: ClassVar[bool] = True

    def __init__(self, context: ScoringContext, config: Any = None) -> None:
        super().__init__(context, config)
        assert context.teacher is not None
        self._relations = _stage_relations(context.teacher_blocks, context.teacher)

    def __call__(self, student: Student) -> float:
        assert student.view is not None
        relations = _stage_relations(student.blocks, student.view)
        if not (student.blocks and self.context.teacher_blocks) or len(relations) != len(self._relations):
            return math.nan
        return sum(itertools.starmap(relation_similarity, zip(self._relations, relations, strict=True)))


def _stage_relations(blocks: Sequence[Tensor], view: View) -> list[Tensor]:
    *before, _ = stage_ends(blocks, view.features)
    return [*map(relation, before), last_relation(view)]


def stage_ends(blocks: Sequence[Tensor], features: Tensor) -> list[Tensor]:
    """Return the last map before each change of resolution, and the last features."""
    pairs = [(one, other) for one, other in itertools.pairwise(blocks) if one.dim() == 4]
    changes = [one for one, other in pairs if one.shape[2:] != other.shape[2:]]
    return [*changes, features]


def _zscores(values: list[float]) -> list[float]:
    mean, std = statistics.fmean(values), statistics.pstdev(values)
    return [(value - mean) / std if std > 0 else 0.0 for value in values]


def _ranks(values: list[float]) -> list[float]:
    order = sorted(values)
    return [(order.index(value) + len(order) - order[::-1].index(value) - 1) / 2 for value in values]


def _as_wide(space: SearchSpace, teacher: nn.Module) -> bool:
    """True if every student's embedding is as wide as the teacher's."""
    return space.embedding_dims() == {_embedding_dim(teacher)}


def _embedding_dim(teacher: nn.Module) -> int | None:
    return getattr(teacher, "embedding_dim", None)


def _widths(space: SearchSpace) -> str:
    return ", ".join(str(dim) for dim in sorted(space.embedding_dims()))
