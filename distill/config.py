"""Settings of distillation, its tuning, fine-tuning for INT8 and pruning."""

import math
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, model_validator

from edgestill.distill.methods import METHODS
from edgestill.distill.methods.kd import KDConfig
from edgestill.distill.recipe import make_recipe
from edgestill.distill.tunable import tunable
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import Frozen, by_name
from edgestill.pipeline.training.config import TrainingConfig


def _compatible(methods: tuple[Any, ...]) -> tuple[Any, ...]:
    if not methods:
        raise ValueError("lists no method; plain distillation is [kd]")
    try:
        make_recipe(methods)
    except ConfigError as error:
        raise ValueError("; ".join(error.problems)) from None
    return methods


if TYPE_CHECKING:
    AnyMethodConfig = Any
else:  # the union over the table; a union of one is no union, and has no discriminator
    _union = reduce(or_, (method.Config for method in METHODS.values()))
    _chooses = (Discriminator("name"),) if len(METHODS) > 1 else ()
    AnyMethodConfig = Annotated[_union, *_chooses, BeforeValidator(by_name)]


class StudentTrainingConfig(TrainingConfig):
    """The student's training; learning rate and weight decay are tuned."""

    epochs: int = Field(60, ge=1, le=100_000)
    learning_rate: float = tunable(0.05, gt=0, le=100, tune=(0.005, 0.5), log=True)
    weight_decay: float = tunable(5e-4, ge=0, le=1, tune=(1e-5, 5e-3), log=True)
    patience: int = Field(
        20, ge=0, description="epochs below the best validation accuracy before stopping; 0 never stops"
    )
    views: int = Field(
        0,
        ge=0,
        le=1000,
        description="crops of each image that take turns, so that the teacher looks once at each; 0 draws afresh",
    )


class DistillConfig(Frozen):
    methods: Annotated[tuple[AnyMethodConfig, ...], AfterValidator(_compatible)] = Field(
        (KDConfig(),), description=f"which fill the slots of the equation; from {', '.join(METHODS)}"
    )
    training: StudentTrainingConfig = StudentTrainingConfig()


class TuneConfig(Frozen):
    enabled: bool = Field(True, description="false distills with the configured hyperparameters")
    trials: int = Field(8, ge=1, le=100_000, description="the first is the configured one")
    epochs: int = Field(12, ge=1, le=100_000, description="of each trial; Hyperband stops the hopeless early")
    min_epochs: int = Field(3, ge=1, description="before which Hyperband stops no trial")
    startup_trials: int = Field(4, ge=1, description="random ones before TPE models what it saw")


class QatConfig(Frozen):
    """Fine-tuning with fake quantisation, where INT8 loses more accuracy than the gate allows."""

    mode: Literal["auto", "never", "always"] = Field(
        "auto", description="auto: only where an INT8 file misses export.gate.max_accuracy_drop"
    )
    epochs: int = Field(5, ge=1, le=100_000, description="of fine-tuning, with the distillation's recipe")
    learning_rate_factor: float = Field(
        0.02, gt=0, le=10, description="of distillation's learning rate; batch norms are folded, so it must be low"
    )


LARGEST_KEEP = 0.95


class PruneConfig(Frozen):
    """Removal of the distilled student's least useful channels, then fine-tuning with the same recipe."""

    method: Literal["none", "taylor", "l1", "fpgm"] = Field("none", description="none leaves the student as it is")
    keep: float = Field(0.5, ge=0.05, le=LARGEST_KEEP, description="share of the parameters that stays")
    score_images: int = Field(1024, ge=2, le=1_000_000, description="of the reference split, for taylor's gradients")
    epochs: int = Field(30, ge=1, le=100_000, description="of fine-tuning")
    learning_rate_factor: float = Field(
        0.2, gt=0, le=10, description="of distillation's learning rate, at the beginning of fine-tuning"
    )
    rounds: int = Field(
        1, ge=1, le=100, description="in which channels go, each the same share of what is left, fine-tuned in between"
    )
    round_epochs: int = Field(4, ge=1, le=100_000, description="of the fine-tuning between two rounds")

    @model_validator(mode="after")
    def _takes_enough_each_round(self) -> Self:
        if self.keep ** (1 / self.rounds) > LARGEST_KEEP:
            most = math.floor(math.log(self.keep) / math.log(LARGEST_KEEP) + 1e-9)
            raise ValueError(f"{self.rounds} rounds to {self.keep:g} take less than 5 % each; at most {most} do")
        return self

    @property
    def enabled(self) -> bool:
        return self.method != "none"

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the parameters to be left after each round."""
        return tuple(self.keep ** (number / self.rounds) for number in range(1, self.rounds + 1))
