"""EdgeFD: a client answers only the pool's examples that are near its own, and the server averages what was sent.

After the abstract of arXiv:2508.14769; the percentile and a centroid a class are those of a third party's build.
"""

# M examples of the pool, N own examples of a client, F numbers an example, J centroids

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from edgestill.distill.federation.strategies.base import (
    Answers,
    Fused,
    Known,
    Strategy,
    StrategyConfig,
    mean_logits,
)
from edgestill.distill.methods.facts import Evidence

_AT_ONCE = 4096  # rows of a matrix of distances


class EdgeFDConfig(StrategyConfig):
    """A client's own filter on the pool."""

    name: Literal["edgefd"] = "edgefd"
    percentile: float | None = Field(
        90.0, gt=0, le=100, description="share in % of a client's own examples within its threshold; null: no threshold"
    )
    centroids: int = Field(1, ge=1, le=100, description="centroids of k-means for each of a client's classes")
    features: Literal["pixels", "embedding"] = Field(
        "pixels", description="what distances are taken of; embedding: that of the client's own network in this round"
    )


class EdgeFD(Strategy):
    """The mask min_j |x - c_j| <= tau on the pool, tau the percentile of that distance over the client's own data."""

    name: ClassVar[str] = "edgefd"
    paper: ClassVar[str] = "after Mujtaba et al. 2025, arXiv:2508.14769"
    evidence: ClassVar[Evidence] = "ours"
    Config: ClassVar[type[StrategyConfig]] = EdgeFDConfig
    config: EdgeFDConfig

    @property
    def reads(self) -> Literal["", "pixels", "embedding"]:
        return "" if self.config.percentile is None else self.config.features

    def answered(self, known: Known, seed: int) -> Tensor:
        if self.config.percentile is None:
            return super().answered(known, seed)
        centroids = class_centroids(known.own, known.targets, self.config.centroids, seed)
        threshold = torch.quantile(nearest(known.own, centroids), self.config.percentile / 100)
        return nearest(known.pool, centroids) <= threshold

    def fuse(self, answers: Mapping[int, Answers], size: int) -> Fused:
        mean = mean_logits(answers, size)
        return Fused(dict.fromkeys(answers, mean), mean)


def class_centroids(examples: Tensor, targets: Tensor, each: int, seed: int) -> Tensor:
    """Return the centroids [J, F] of k-means within each class; a class of fewer examples has as many centroids."""
    found = []
    for label in targets.unique().tolist():  # type: ignore[no-untyped-call]
        of_class = examples[targets == label].double()
        if each == 1:
            found.append(of_class.mean(0, keepdim=True))
            continue
        from sklearn.cluster import KMeans

        count = min(each, len(of_class.unique(dim=0)))  # type: ignore[no-untyped-call]
        means = KMeans(count, n_init=4, random_state=seed % 2**32).fit(of_class.numpy()).cluster_centers_
        found.append(torch.from_numpy(means))
    return torch.cat(found)


def nearest(examples: Tensor, centroids: Tensor) -> Tensor:
    """Euclidean distance of each example to its nearest centroid, [N] in float64."""
    parts = torch.split(examples.double(), _AT_ONCE)
    # not by a matrix product, whose rounding lets an example miss a threshold that is its own distance
    return torch.cat(
        [torch.cdist(part, centroids, compute_mode="donot_use_mm_for_euclid_dist").amin(1) for part in parts]
    )
