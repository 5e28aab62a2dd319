"""Configuration of a search."""

from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from edgestill.pipeline.errors import nearest
from edgestill.pipeline.frozen import Frozen, GivenPath, by_name, existing_file, first_problem
from edgestill.pipeline.timing.timing import MedianTimingConfig, TimingConfig
from edgestill.search.budget import Budget
from edgestill.search.latency.model import read_latency_model
from edgestill.search.scorer_settings import HoldsScorerSettings, scorer_config
from edgestill.search.scorers import SCORERS
from edgestill.search.scorers.diswot import Combine
from edgestill.search.spaces import SPACES, ResNetConfig, by_space_name, make_space
from edgestill.search.strategies import STRATEGIES, EvolutionConfig

if TYPE_CHECKING:
    ScorerName = str
    SpaceConfig = Any
    StrategyConfig = Any
else:  # spelled out from the tables, so that a form for the configuration can list the names
    ScorerName = Literal[*SCORERS]
    SpaceConfig = Annotated[
        reduce(or_, (config for config, _ in SPACES.values())), Discriminator("name"), BeforeValidator(by_space_name)
    ]
    StrategyConfig = Annotated[
        reduce(or_, (config for config, _ in STRATEGIES.values())), Discriminator("name"), BeforeValidator(by_name)
    ]


class LatencyConfig(Frozen):
    """Source of candidates' latencies; used only if the budget has max_latency_ms."""

    source: Literal["measured", "model"] = Field(
        "measured", description="source of latencies; measured: export and time candidates here; model: predict"
    )
    every: bool = Field(
        False,
        description="measure every candidate; false: only those that a model of the measured ones leaves open",
    )
    model: GivenPath | None = Field(
        None, description="latency model, a file that `edgestill calibrate` wrote; needed by source: model"
    )
    threads: int = Field(
        1, ge=1, le=1024, description="ONNX Runtime threads in measurements; a latency model may bring its own"
    )
    batch: int = Field(
        1, ge=1, le=4096, description="inputs per call in measurements; a latency model may bring its own"
    )
    format: Literal["fp32", "fp16", "int8"] = Field(
        "fp32", description="form in which candidates are measured; max_latency_ms then limits that form"
    )
    target: str | None = Field(
        None,
        max_length=40,
        description="target to measure candidates on, one of the run's `targets` or here; null takes the first",
    )
    timing: MedianTimingConfig = TimingConfig(warmup_s=0.1, duration_s=0.5, min_samples=70)

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later keys at their defaults, so that digests of earlier versions' configurations stay the same."""
        written: dict[str, Any] = handler(self)
        later = {"format": "fp32", "every": False, "target": None}
        return {key: value for key, value in written.items() if key not in later or value != later[key]}

    @field_validator("model")
    @classmethod
    def _is_there(cls, model: Path | None, info: ValidationInfo) -> Path | None:
        return None if model is None else existing_file(model, info)

    @model_validator(mode="after")
    def _names_its_model(self) -> "LatencyConfig":
        if self.source == "model" and self.model is None:
            raise ValueError("source 'model' needs model: a file that `edgestill calibrate` wrote")
        if self.source == "measured" and self.model is not None:
            raise ValueError("a model is given and source is 'measured'; set source: model, or leave the model out")
        if self.source == "model" and self.format != "fp32":
            raise ValueError("source 'model' predicts fp32 files; leave format out, or set source: measured")
        return self


class TournamentConfig(Frozen):
    """Short trainings of a shortlist: 1 in `reduction` survives a rung, and the next is `reduction` times as long."""

    epochs: int = Field(3, ge=1, le=10_000, description="training epochs of the first rung")
    reduction: int = Field(
        2, ge=2, le=100, description="keep 1 student in so many after a rung, then train so many times as long"
    )
    train_images: int | None = Field(None, ge=2, description="number of training images, drawn by seed; null takes all")


LEAST_STUDENTS = 4  # of the six orders of three students, one has a rank correlation of 1 by chance


def _enough_students(count: int) -> int:
    if 0 < count < LEAST_STUDENTS:
        raise ValueError(f"{count} students are too few to rank; give {LEAST_STUDENTS} or more, or 0 for no rank check")
    return count


class RankCheckConfig(Frozen):
    """Check of the scores' ranking: a handful of students is scored without training, then trained briefly."""

    students: Annotated[int, AfterValidator(_enough_students)] = Field(
        0, ge=0, le=10_000, description="number of students to train, spread over the budget; 0 skips the rank check"
    )
    epochs: int = Field(8, ge=1, le=10_000, description="training epochs of each student")
    train_images: int | None = Field(None, ge=2, description="number of training images, drawn by seed; null takes all")
    only: bool = Field(False, description="end the run after the rank check, as `edgestill rank-check` does")

    @model_validator(mode="after")
    def _only_with_students(self) -> "RankCheckConfig":
        if self.only and not self.students:
            raise ValueError("only a rank check is asked for, and of no students; set students, 12 for instance")
        return self


class SearchConfig(HoldsScorerSettings):
    """Configuration of a search. `scorer: {name: diswot, combine: zscore}` gives a scorer with its settings."""

    space: SpaceConfig = Field(ResNetConfig(), description="space of students")
    scorer: ScorerName = Field("ensemble", description="scorer that ranks the candidates")
    combine: Combine = Field("sum", description="combination of diswot's two metrics; sum is the paper's")
    baselines: tuple[ScorerName, ...] = Field(
        ("params", "flops", "nwot", "random"),
        description="scorers to search by with the same effort, shown beside the winner",
    )
    budget: Budget = Budget()
    latency: LatencyConfig = LatencyConfig()
    strategy: StrategyConfig = Field(EvolutionConfig(), description="way through the space")
    evaluations: int = Field(
        200,
        ge=1,
        le=10_000_000,
        description="candidates scored by each search; a space of no more members is enumerated",
    )
    workers: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto", description="number of scoring processes; auto takes the cores if that saves time, results are the same"
    )
    batch_size: int = Field(
        64, ge=2, le=4096, description="number of training images that every candidate is scored on"
    )
    batch_augmented: bool = Field(
        False, description="crop and flip the scoring images as data.augment says; DisWOT's official code does"
    )
    draws: int = Field(3, ge=1, le=100, description="random initialisations of each candidate; its score is their mean")
    shortlist: int = Field(
        4,
        ge=0,
        le=1000,
        description="number of best-scored students in the tournament, beside params' pick; 0 or 1 skips it",
    )
    tournament: TournamentConfig = TournamentConfig()
    teacher_weights: Literal["random", "trained"] = Field(
        "random", description="weights of the teacher while candidates are scored; random is DisWOT's protocol"
    )

    @property
    def uses_trained_teacher(self) -> bool:
        return self.teacher_weights == "trained"

    def scorer_config(self, scorer: str) -> Any:
        """Settings of the scorer or of a baseline."""
        return scorer_config(scorer, self.combine, self.scorer_settings if scorer == self.scorer else {})

    @model_validator(mode="before")
    @classmethod
    def _scorer_without_settings(cls, given: Any) -> Any:
        """Take `scorer: {name: …}` apart into the keys that hold its name and its settings."""
        if not isinstance(given, dict) or not isinstance(given.get("scorer"), dict):
            return given
        settings = dict(given["scorer"])
        older = {key: settings.pop(key) for key in ("combine",) if key in settings}
        return {**given, "scorer": settings.pop("name", None), **older, "scorer_settings": settings}

    @model_validator(mode="before")
    @classmethod
    def _limit_with_its_place(cls, given: Any) -> Any:
        """Take `budget: {max_latency_ms: {int8@pi5: 5}}` apart into the limit, and the format and target it is for."""
        budget = given.get("budget") if isinstance(given, dict) else None
        limit = budget.get("max_latency_ms") if isinstance(budget, dict) else None
        if not isinstance(budget, dict) or not isinstance(limit, dict):
            return given
        value, named = _limit_and_place(limit)
        latency = given.get("latency") or {}
        if not isinstance(latency, dict):
            return given
        for key, found in named.items():
            if latency.get(key) not in (None, found):
                raise ValueError(
                    f"budget.max_latency_ms is for {key} {found!r}, and latency.{key} is {str(latency[key])[:40]!r}; "
                    "leave one of the two out"
                )
        return {**given, "budget": {**budget, "max_latency_ms": value}, "latency": {**latency, **named}}

    @model_validator(mode="after")
    def _scorer_has_these_settings(self) -> "SearchConfig":
        try:
            self.scorer_config(self.scorer)
        except ValidationError as error:
            raise ValueError(f"scorer {self.scorer}: {_wrong_setting(error, SCORERS[self.scorer].Config)}") from None
        return self

    @model_validator(mode="after")
    def _model_is_of_this_space(self, info: ValidationInfo) -> "SearchConfig":
        if self.latency.model is not None and (info.context or {}).get("check_files"):
            read_latency_model(self.latency.model).require_space(make_space(self.space), str(self.latency.model))
        return self


def _limit_and_place(given: dict[Any, Any]) -> tuple[Any, dict[str, str]]:
    """Return the limit of `{FORMAT@TARGET: MS}`, and its format and target as the latency's keys have them."""
    if len(given) != 1:
        raise ValueError(
            f"budget.max_latency_ms holds {len(given)} limits; give one, for a format and a target: {{int8@pi5: 5}}"
        )
    ((where, value),) = given.items()
    form, at, target = str(where).partition("@")
    known = get_args(LatencyConfig.model_fields["format"].annotation)
    if form not in known:
        raise ValueError(f"budget.max_latency_ms: unknown format {form[:40]!r}; {nearest(form, known)}")
    return value, {"format": form, **({"target": target} if at else {})}


def _wrong_setting(error: ValidationError, config: type[Frozen]) -> str:
    first = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return first_problem(error)
    known = f"known: {', '.join(config.model_fields)}" if config.model_fields else "it has no settings"
    return f"unknown key {str(first['loc'][-1])[:80]!r}; {known}"
