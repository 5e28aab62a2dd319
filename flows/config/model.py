"""The settings of a run, in one type."""

from collections.abc import Iterator
from typing import Any, Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from edgestill.distill.config import BaselinesConfig, DistillConfig, PruneConfig, QatConfig, TuneConfig
from edgestill.distill.drivers.unfit import unfit_settings
from edgestill.distill.methods import METHODS
from edgestill.distill.needs import lacking, unmet
from edgestill.distill.recipe import make_recipe
from edgestill.export.bundle.card_config import CardConfig
from edgestill.export.config import ExportConfig, ProfileConfig
from edgestill.export.formats import FORMATS
from edgestill.export.targets.book import AnyTarget
from edgestill.export.targets.config import TargetConfig
from edgestill.pipeline.data.augmentation import VIEWS_MIX
from edgestill.pipeline.data.datasets import DigitsConfig
from edgestill.pipeline.data.loading import DataConfig
from edgestill.pipeline.device import DeviceConfig
from edgestill.pipeline.errors import UserError, nearest
from edgestill.pipeline.figures import listing
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.input_kind import INPUT_KINDS
from edgestill.pipeline.switches import refuse_switches_as_numbers
from edgestill.pipeline.teachers import AnyTeacherConfig, TeacherConfig, make_teacher
from edgestill.pipeline.teachers.teacher import DRAWN, SCORED
from edgestill.pipeline.trackers import TRACKERS, AnyTrackerConfig
from edgestill.search.config import RankCheckConfig, SearchConfig
from edgestill.search.scorers import SCORERS
from edgestill.search.spaces import SPACES, make_space


class NightlyConfig(Frozen):
    """Settings of nights."""

    warm_start: bool | None = Field(
        None,
        description="begin search, tuning and tournament with what earlier runs of the registry found; null does "
        "so in nights alone",
    )


class RunConfig(Frozen):
    """All settings of a run. The run directory holds them complete, as config.yaml."""

    name: str = Field(
        "run", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,40}$", description="name of the run; part of its folder's name"
    )
    smoke: bool = Field(
        False,
        description="mark a trial on a handful of examples, as `run --smoke` makes it; no figure counts",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="seed of every random draw")
    device: DeviceConfig = Field(DeviceConfig(), description="processor, threads and precision of training")
    data: DataConfig = Field(DigitsConfig(), description="examples to learn from and to be judged by")
    teacher: AnyTeacherConfig = Field(
        TeacherConfig(),
        description="network to learn from: a built-in one, with or without weights, or a Hugging Face folder",
    )
    rank_check: RankCheckConfig = Field(
        RankCheckConfig(), description="test of how well the scores rank students on this task"
    )
    search: SearchConfig = Field(SearchConfig(), description="search for the student's architecture within a budget")
    tune: TuneConfig = Field(TuneConfig(), description="tuning of the distillation")
    distill: DistillConfig = Field(DistillConfig(), description="training of the student by the teacher")
    prune: PruneConfig = Field(PruneConfig(), description="pruning of the trained student")
    export: ExportConfig = Field(ExportConfig(), description="files to write, and the gate to shipping")
    qat: QatConfig = Field(QatConfig(), description="fine-tuning for INT8")
    profile: ProfileConfig = Field(ProfileConfig(), description="timing of the files")
    baselines: BaselinesConfig = Field(
        BaselinesConfig(), description="trainings to compare the student with: the worth of teacher and search"
    )
    targets: tuple[AnyTarget, ...] = Field(
        (),
        description="devices that the student will run on; the first decides. Names of `edgestill target`, or settings",
    )
    trackers: tuple[AnyTrackerConfig, ...] = Field(
        (), description=f"programs that are told the run's figures; from {', '.join(TRACKERS)}"
    )
    nightly: NightlyConfig = Field(NightlyConfig(), description="runs that are made night after night")
    card: CardConfig = Field(CardConfig(), description="words of yours in the bundle's model card")

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the targets where there are none, so that digests of earlier versions' runs stay the same."""
        written: dict[str, Any] = handler(self)
        if not self.targets:
            written.pop("targets", None)
        return written

    @property
    def target(self) -> TargetConfig | None:
        """The device that decides, unless it is this machine."""
        return self.targets[0] if self.targets and not self.targets[0].is_here else None

    @property
    def latency_target(self) -> TargetConfig | None:
        """The device that the latency limit is for, unless it is this machine."""
        name = self.search.latency.target
        if name is None:
            return self.target
        return next((target for target in self.targets if target.name == name and not target.is_here), None)

    @model_validator(mode="wrap")
    @classmethod
    def _no_switch_is_a_number(cls, raw: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        found = read(raw)
        refuse_switches_as_numbers(raw, found)
        return found

    @model_validator(mode="after")
    def _targets_can_measure(self) -> "RunConfig":
        names = [target.name for target in self.targets]
        if len(set(names)) < len(names):
            raise ValueError(f"two targets have one name: {', '.join(names)}")
        latency = self.search.latency
        if latency.target not in (None, "here", *names):
            raise ValueError(
                f"search.latency.target {latency.target!r} is none of the run's targets; "
                f"{nearest(latency.target or '', ('here', *names))}; add it to targets"
            )
        target = self.latency_target
        if target is not None and not target.runs(latency.format):
            raise ValueError(
                f"search.latency.format {latency.format!r} is none of the formats of target {target.name}: "
                f"{listing([*target.formats])}; add it there"
            )
        measured = self.search.budget.max_latency_ms is not None and latency.source == "measured"
        if measured and target is not None and target.is_carried:
            raise ValueError(
                f"search.latency.source 'measured' asks the target {target.name} for candidates' latencies, and a "
                "person carries its profiles; set search.latency.source=model, or leave max_latency_ms out"
            )
        return self

    def with_method(self, name: str) -> Self:
        """Return the configuration with the default settings of a method in the place of the distillation's."""
        return self.model_copy(update={"distill": self.distill.with_method(name)})

    @property
    def without_baselines(self) -> "RunConfig":
        return self.model_copy(update={"baselines": self.baselines.model_copy(update={"enabled": False})})

    @property
    def read_data(self) -> Any:
        """Data configuration for the stages: for texts, a teacher's own tokenizer takes the place of the data's."""
        tokenizer = make_teacher(self.teacher).tokenizer
        return self.data if tokenizer is None else self.data.with_tokenizer(tokenizer)

    @model_validator(mode="after")
    def _space_knows_the_teacher(self) -> "RunConfig":
        """Tell a space of the teacher's layers the run's teacher."""
        beside = getattr(self.search.space, "beside", None)
        if beside is not None:
            search = self.search.model_copy(update={"space": beside(self.teacher)})
            self.__dict__["search"] = search  # frozen from the end of validation on
        return self

    @model_validator(mode="after")
    def _has_channels_to_prune(self) -> "RunConfig":
        space = self.search.space.name
        if self.prune.enabled and not SPACES[space][1].has_channels:
            raise ValueError(
                f"prune.method {self.prune.method!r} removes channels of convolutions, and students of {space!r} have "
                "none; leave prune out, or search resnet or mobile"
            )
        return self

    @model_validator(mode="after")
    def _starts_as_the_space_can(self, info: ValidationInfo) -> "RunConfig":
        start, space = self.distill.start, self.search.space.name
        if start in ("pretrained", "teacher") and start not in SPACES[space][1].starts:
            knowing = [name for name, (_, kind) in SPACES.items() if start in kind.starts]
            way_out = f"search {' or '.join(knowing)}, or set" if knowing else "set"
            raise ValueError(
                f"distill.start {start!r} gives students weights, and those of {space!r} cannot take any; {way_out} "
                "distill.start to random"
            )
        if start == "pretrained" and (info.context or {}).get("check_files"):
            try:
                make_space(self.search.space).require_weights()
            except UserError as error:
                raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _has_int8_to_fine_tune(self) -> "RunConfig":
        if self.qat.mode == "always" and not any(FORMATS[name].precision == "int8" for name in self.export.formats):
            raise ValueError(
                "qat.mode 'always' fine-tunes for INT8, and export.formats has no INT8 format; add int8 there, or set "
                "qat.mode to auto"
            )
        return self

    @model_validator(mode="after")
    def _fine_tunes_what_can_be(self) -> "RunConfig":
        whole = [method.name for method in self.distill.methods if METHODS[method.name].ships_layers]
        asked = [
            *(["prune.method"] if self.prune.enabled else []),
            *(["qat.mode"] if self.qat.mode == "always" else []),
        ]
        if asked and not self.distill.driver.goes_on:
            raise ValueError(
                f"{listing(asked)} would fine-tune by the run's own teacher and labels, which a student of driver "
                f"{self.distill.driver.name!r} never saw; leave {listing(asked)} out"
            )
        if whole and asked:
            raise ValueError(
                f"{listing(asked)} fine-tunes a student, and one taught by {whole[0]!r} ships layers that fine-tuning "
                f"would begin anew; leave {listing(asked)} out"
            )
        return self

    @model_validator(mode="after")
    def _one_tokenizer(self) -> "RunConfig":
        if make_teacher(self.teacher).tokenizer is not None and self.data.has_own_tokenizer:
            raise ValueError("data.tokenizer is set, and the teacher has its own, which the student must share")
        return self

    @model_validator(mode="after")
    def _teacher_gives_what_is_asked_of_it(self) -> "RunConfig":
        teacher, search = make_teacher(self.teacher), self.search
        problems = unmet(make_recipe(self.distill.methods).methods, teacher.gives, f"the teacher {teacher.title}")
        if "inputs" not in teacher.gives and self.data.augment.is_random:
            problems.append(
                f"the teacher {teacher.title} knows the data's own examples alone, and data.augment makes others; "
                "leave data.augment out"
            )
        aware = [name for name in (search.scorer, *search.baselines) if SCORERS[name].needs_teacher]
        if aware and not teacher.gives >= (SCORED if search.uses_trained_teacher else DRAWN):
            problems.append(
                f"scorer {aware[0]!r} needs more of the teacher than {teacher.title} gives, a black box; search by "
                "ensemble, or another that needs no teacher"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _goes_with_its_kind_of_input(self) -> "RunConfig":
        problems = [*unfit_settings(self), *lacking(self.distill), *_unfit_formats(self)]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _images_for_the_image_interface(self) -> "RunConfig":
        if self.export.interface not in INPUT_KINDS[self.data.kind].interfaces:
            raise ValueError(
                "export.interface 'image' takes decoded images, and this data set is of texts, which go in as token "
                "ids; set export.interface=raw"
            )
        return self

    @model_validator(mode="after")
    def _methods_for_its_kind_of_input(self) -> "RunConfig":
        foreign = [m.name for m in self.distill.methods if METHODS[m.name].inputs not in (None, self.data.kind)]
        if foreign:
            raise ValueError(
                f"distill.methods: {listing(foreign)} cannot learn from data of kind {self.data.kind!r}, only from a "
                "language model's"
            )
        return self

    @model_validator(mode="after")
    def _views_of_single_images(self) -> "RunConfig":
        if self.distill.training.views and self.data.augment.mixes:
            raise ValueError(VIEWS_MIX)
        return self

    @model_validator(mode="after")
    def _augments_the_batch_by_something(self) -> "RunConfig":
        if self.search.batch_augmented and not self.data.augment.without_mixing.is_random:
            raise ValueError(
                "search.batch_augmented crops and flips as data.augment says, which does neither; set data.augment.pad "
                "or data.augment.flip, or leave batch_augmented out"
            )
        return self


def _unfit_formats(config: Any) -> Iterator[str]:
    """Yield a sentence on the formats that take no network of the data's kind of input."""
    kind = config.data.kind
    able = [name for name, form in FORMATS.items() if kind in form.kinds]
    unfit = [name for name in config.export.formats if name not in able]
    if unfit:
        yield (
            f"export.formats: {listing(unfit)} cannot hold a network for data of kind {kind!r}; those that can: "
            f"{listing(able)}"
        )
