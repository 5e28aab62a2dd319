"""Settings of distillation, its tuning, fine-tuning for INT8 and pruning."""

import math
from collections.abc import Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from edgestill.distill.auto import AUTO, AutoConfig
from edgestill.distill.drivers import DRIVERS
from edgestill.distill.drivers.once import OnceConfig
from edgestill.distill.methods import METHODS
from edgestill.distill.methods.kd import KDConfig
from edgestill.distill.needs import unmet
from edgestill.distill.recipe import Recipe, make_recipe
from edgestill.distill.tunable import tunable
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import Frozen, by_name, without_none
from edgestill.pipeline.runs.manifest import MANIFEST
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
    AnyDriverConfig = Any
else:  # the union over the table; a union of one is no union, and has no discriminator
    _union = reduce(or_, (method.Config for method in METHODS.values()))
    _chooses = (Discriminator("name"),) if len(METHODS) > 1 else ()
    AnyMethodConfig = Annotated[_union, *_chooses, BeforeValidator(by_name)]
    _drivers = reduce(or_, (driver.Config for driver in DRIVERS.values()))
    AnyDriverConfig = Annotated[_drivers, Discriminator("name"), BeforeValidator(by_name)]


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
        description="fixed crops of each image, used in turn by epoch to cache teacher outputs; 0 draws afresh",
    )


class DistillConfig(Frozen):
    names_places: ClassVar[tuple[str, ...]] = ("start",)
    no_places: ClassVar[tuple[str, ...]] = ("random", "pretrained", "teacher")

    methods: Annotated[tuple[AnyMethodConfig, ...], AfterValidator(_compatible)] = Field(
        (KDConfig(),),
        description=f"methods that fill the slots of the loss, or auto to have one chosen; from {', '.join(METHODS)}",
    )
    start: str = Field(
        "random",
        min_length=1,
        max_length=4096,
        description="a student's first weights: random, pretrained (published ones), teacher (the teacher's layers), "
        "or another run, by its id or path, for those of its student",
    )
    driver: AnyDriverConfig = Field(
        OnceConfig(), description=f"outer loop of trainings that the student comes from; one of {', '.join(DRIVERS)}"
    )
    training: StudentTrainingConfig = StudentTrainingConfig()

    rows_at_once: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="number of rows of logits in memory at a time where a language model trains, against running out "
        "of it; null: a step's all",
    )
    auto: AutoConfig | None = Field(
        None, description="choose the method by short trainings on this task; `methods: auto` sets it"
    )

    @model_validator(mode="before")
    @classmethod
    def _auto(cls, given: Any) -> Any:
        """Read `methods: auto`; plain KD stands in the method's place until it is chosen."""
        if isinstance(given, Mapping) and given.get("methods") in (AUTO, [AUTO], (AUTO,)):
            return {**given, "methods": [KDConfig().name], "auto": given.get("auto") or {}}
        return given

    @model_validator(mode="after")
    def _auto_has_nothing_beside_it(self) -> Self:
        if self.auto is not None and tuple(method.name for method in self.methods) != (KDConfig().name,):
            raise ValueError("auto chooses the method, and methods lists some; set methods to auto")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is newer where it is not set, so that digests of earlier versions' runs stay the same."""
        return without_none(handler(self), "auto", "rows_at_once")

    def recipe(self) -> Recipe:
        """Make the recipe of a training."""
        return make_recipe(self.methods, self.driver.sampling, self.rows_at_once)

    def with_method(self, name: str) -> "DistillConfig":
        """Return the configuration with the default settings of a method in the place of `methods`."""
        return self.model_copy(update={"methods": (METHODS[name].Config(),)})

    @model_validator(mode="after")
    def _methods_read_what_the_driver_gives(self) -> Self:
        problems = unmet(make_recipe(self.methods).methods, self.driver.gives, f"driver {self.driver.name!r} as set")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _rows_stand_alone(self) -> Self:
        whole = [one.name for one in self.methods if not METHODS[one.name].rows_alone]
        if self.rows_at_once is not None and whole:
            able = ", ".join(name for name, method in METHODS.items() if method.rows_alone)
            raise ValueError(
                f"rows_at_once takes the rows of a step apart, and method {whole[0]!r} needs them together; leave it "
                f"out, or take one of {able}"
            )
        return self

    @classmethod
    def unchecked(
        cls, method: type[Any], settings: Mapping[str, Any] | None = None, **training: Any
    ) -> "DistillConfig":
        """Make the configuration of a method whose name configurations may not know yet."""
        methods = (method.Config.model_validate(dict(settings or {})),)
        return cls.model_construct(methods=methods, training=StudentTrainingConfig(**training))

    @field_validator("start")
    @classmethod
    def _is_of_a_run_that_stays(cls, start: str, info: ValidationInfo) -> str:
        if start == "latest":
            raise ValueError("'latest' is another run each day; give the run's id")
        is_path = (info.context or {}).get("check_files") and (Path(start).expanduser() / MANIFEST).is_file()
        return str(Path(start).expanduser().absolute()) if is_path else start


class TuneConfig(Frozen):
    enabled: bool = Field(True, description="tune the hyperparameters; false distills with the configured ones")
    trials: int = Field(8, ge=1, le=100_000, description="number of trials; the first uses the configured values")
    epochs: int = Field(
        12, ge=1, le=100_000, description="largest number of epochs of a trial; Hyperband stops hopeless ones early"
    )
    min_epochs: int = Field(3, ge=1, description="number of epochs before Hyperband may stop a trial")
    startup_trials: int = Field(
        4, ge=1, description="number of trials before TPE models the results; all but the first are random"
    )
    at_once: int = Field(
        1,
        ge=1,
        le=10_000,
        description="trials asked for together, for as many workers of device.engine; they learn nothing of each other",
    )

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is at its default, so that digests of earlier versions' runs stay the same."""
        written: dict[str, Any] = handler(self)
        if self.at_once == 1:
            written.pop("at_once", None)
        return written

    @property
    def expected_epochs(self) -> float:
        """Epochs of all trials, if Hyperband ends about half of them early; 0 without tuning."""
        others = (self.epochs + min(self.min_epochs, self.epochs)) / 2
        return self.epochs + (self.trials - 1) * others if self.enabled else 0.0


class QatConfig(Frozen):
    """Fine-tuning with fake quantisation, where INT8 loses more accuracy than the gate allows."""

    mode: Literal["auto", "never", "always"] = Field(
        "auto", description="condition for fine-tuning; auto: an INT8 file misses export.gate.max_accuracy_drop"
    )
    epochs: int = Field(5, ge=1, le=100_000, description="epochs of fine-tuning, with the distillation's recipe")
    learning_rate_factor: float = Field(
        0.02, gt=0, le=10, description="initial learning rate as a factor of distillation's; low for folded batch norms"
    )


class BaselinesConfig(Frozen):
    """Trainings beside the student's, to tell what the teacher and the search gave."""

    enabled: bool = Field(
        True, description="train the student without its teacher, the largest student, … and compare them on test"
    )
    budget: float = Field(
        1.0,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="most time for it, as a multiple of the time that tuning and distillation took",
    )
    seeds: int = Field(3, ge=1, le=100, description="seeds of each training, as far as the budget goes")


LARGEST_KEEP = 0.95


class PruneConfig(Frozen):
    """Removal of the distilled student's least useful channels, then fine-tuning with the same recipe."""

    method: Literal["none", "taylor", "l1", "fpgm"] = Field("none", description="pruning criterion; none: no pruning")
    keep: float = Field(0.5, ge=0.05, le=LARGEST_KEEP, description="share of the parameters that stays")
    score_images: int = Field(1024, ge=2, le=1_000_000, description="number of reference images for taylor's gradients")
    epochs: int = Field(30, ge=1, le=100_000, description="epochs of fine-tuning after the last round")
    learning_rate_factor: float = Field(
        0.2, gt=0, le=10, description="initial learning rate of fine-tuning, as a factor of distillation's"
    )
    rounds: int = Field(
        1, ge=1, le=100, description="number of rounds, each keeping the same share, with fine-tuning in between"
    )
    round_epochs: int = Field(4, ge=1, le=100_000, description="epochs of fine-tuning between two rounds")

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
