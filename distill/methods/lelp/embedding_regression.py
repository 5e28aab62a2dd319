"""Embedding regression: a linear map of the student's embedding predicts the teacher's.

FitNets' hint loss (Romero et al. 2015, arXiv:1412.6550, equation 3) at the embedding, the last layer before the
classifier, and trained together with the rest rather than before it.
"""

# N examples, D_T and D_S widths of the embeddings

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot, embedding_width
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.lelp.subclasses import ClassMoments, class_embeddings
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.randomness import drawn_from


class EmbeddingRegressionConfig(MethodConfig):
    """Mean squared error between the teacher's embedding and a learnt projection of the student's."""

    name: Literal["embedding_regression"] = "embedding_regression"
    regression_weight: float = tunable(
        10.0,
        ge=0,
        le=1e5,
        tune=(0.3, 30.0),
        log=True,
        description="weight (w) of the mean squared error to the teacher's embedding, standardised to variance 1",
    )


class EmbeddingRegression(Method):
    """Loss w mean_n,d (A e_S + b - z_T)^2, z_T the teacher's embedding at mean 0 and mean variance 1 in training.

    A and b are thrown away after training. The standardisation is ours, so that the weight means the same with every
    teacher.
    """

    name: ClassVar[str] = "embedding_regression"
    paper: ClassVar[str] = "Romero et al. 2015, arXiv:1412.6550"
    fills: ClassVar[frozenset[Slot]] = frozenset({"feature"})
    facts: ClassVar[Facts | None] = Facts(
        evidence="paper",
        elicitation=("feature",),
        ablation={"regression_weight": 0.0},
        reduces_to=({"name": "kd"},),
        invariant_to=frozenset({"shift"}),
        cost=3.0,
    )
    studies_teacher: ClassVar[bool] = True
    Config: ClassVar[type[MethodConfig]] = EmbeddingRegressionConfig
    _projection: nn.Linear | None = None

    def prepare(self, context: Context) -> None:
        own, given = (embedding_width(network, context) for network in (context.student, context.teacher))
        with drawn_from(derive_seed(context.seed, self.name)):
            self._projection = nn.Linear(own, given).to(context.device)
        self._mean, self._scale = torch.zeros(()), torch.ones(())

    def study(self, context: Context) -> None:
        assert self._projection is not None, "prepare() comes before study()"
        everything = ClassMoments(1, self._projection.out_features)
        for embedding, classes in class_embeddings(context.teacher, context.train, context.device):
            everything.add(embedding, torch.zeros_like(classes))
        variance = everything.covariance(0).diagonal().mean().clamp_min(1e-12)
        self._mean, self._scale = (part.float().to(context.device) for part in (everything.mean[0], variance.sqrt()))

    def feature(self, teacher: View, student: View, batch: Batch) -> Mapping[str, Tensor]:
        assert self._projection is not None, "prepare() comes before feature()"
        error = F.mse_loss(self._projection(student.embedding), (teacher.embedding - self._mean) / self._scale)
        return {"embedding_regression": self.config.regression_weight * error}

    def trainable(self) -> Iterable[nn.Parameter]:
        return () if self._projection is None else self._projection.parameters()

    def extras(self) -> Mapping[str, nn.Module]:
        return {} if self._projection is None else {"projection": self._projection}

    def state_dict(self) -> dict[str, Any]:
        assert self._projection is not None, "prepare() comes before state_dict()"
        return {"projection": self._projection.state_dict(), "mean": self._mean, "scale": self._scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert self._projection is not None, "prepare() comes before load_state_dict()"
        self._projection.load_state_dict(state["projection"])
        device = self._projection.weight.device
        self._mean, self._scale = state["mean"].to(device), state["scale"].to(device)
