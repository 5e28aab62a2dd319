"""On-policy distillation: the student continues prompts by itself, and the teacher says what it makes of that.

Agarwal et al. 2024, "Generalized Knowledge Distillation" (GKD), arXiv:2306.13649: a share lambda of the steps learns
from texts that the student has just drawn, the others from the data's. Teacher and student are read at the same places.
Any method that takes a language model runs inside: GKD itself is `divergence` with kind `js`, `forward_kl` or
`reverse_kl`. Own samples have no labels, so that cross-entropy counts in the data's steps alone.

The paper draws for each step whether it is on-policy, and so do we. Texts are drawn with dropout off. `reuse` is ours:
it has several steps learn from the same texts, as policy gradients do.
"""

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from edgestill.distill.distilled import Distilled
from edgestill.distill.drivers.base import Driver, DriverConfig, Learn, Lesson
from edgestill.distill.own_samples import Sampling
from edgestill.pipeline.data.splits import Splits


class RolloutConfig(DriverConfig):
    """A training in which the student learns from its own continuations of the prompts."""

    name: Literal["rollout"] = "rollout"
    on_policy: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share (lambda) of the steps that learn from the student's own samples; 0: from the data alone",
    )
    temperature: float = Field(1.0, gt=0, le=100, description="temperature of the softmax that tokens are drawn from")
    samples: int = Field(1, ge=1, le=1024, description="number of samples of each prompt")
    reuse: int = Field(1, ge=1, le=1000, description="number of steps in a row that learn from the same samples")
    max_tokens: int | None = Field(
        None, ge=1, le=1024, description="most tokens of a sample's answer; null: as many as data.max_length leaves"
    )

    @property
    def sampling(self) -> Sampling | None:
        if not self.on_policy:
            return None
        return Sampling(self.on_policy, self.temperature, self.samples, self.reuse, self.max_tokens)


class Rollout(Driver):
    """One lesson, in whose steps the student's own samples stand in the place of the data's texts."""

    name: ClassVar[str] = "rollout"
    paper: ClassVar[str] = "Agarwal et al. 2024, arXiv:2306.13649"
    kinds: ClassVar[frozenset[str]] = frozenset({"lm"})
    Config: ClassVar[type[DriverConfig]] = RolloutConfig

    def run(self, learn: Learn, teacher: nn.Module, splits: Splits) -> Distilled:
        return learn(Lesson())
