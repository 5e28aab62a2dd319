"""Results of a run so far, and the types of those whose work spans several packages."""

from typing import Any, Literal, Protocol, Self, TypeVar

from pydantic import SerializerFunctionWrapHandler, model_serializer

from edgestill.distill.auto import RecipeResult
from edgestill.distill.result import DistillResult, PruneResult
from edgestill.export.generation import Generated
from edgestill.export.result import ConvertedModel, ConvertResult
from edgestill.export.tested.result import Examined
from edgestill.pipeline.data.look import DataLook
from edgestill.pipeline.errors import RunDirError
from edgestill.pipeline.frozen import Frozen, Share, without_none
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.confusion import Confusion
from edgestill.pipeline.training.difference import Difference
from edgestill.pipeline.training.metrics import Metrics
from edgestill.pipeline.training.state import EpochRecord
from edgestill.search.rank_correlation import Comparison, RankedStudent, ScorerRank

R = TypeVar("R", bound=Frozen)
C = TypeVar("C", bound="_Configured")

BUNDLE: Literal["bundle"] = "bundle"  # the run's folder for the shipped files
PAGE: Literal["report.html"] = "report.html"
ArmName = Literal["recipe", "no_teacher", "plain_kd", "random_start", "largest"]


class DataResult(Frozen):
    """The task, and each split's size and digest."""

    task: Task
    sizes: dict[str, int]
    digests: dict[str, str]  # of each split, its contents included
    look: DataLook | None = None  # None in runs of earlier versions
    dropped: int = 0  # examples of the files that are in no split, as configured

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out newer fields at their defaults, so that digests of earlier versions' results stay the same."""
        written: dict[str, Any] = handler(self)
        for name in ("look", "dropped"):
            if not getattr(self, name):
                written.pop(name, None)
        return written

    def majority(self, split: str) -> float | None:
        """Share of the most frequent class in a split; None if it was not counted."""
        counts = self.look.counts.get(split) if self.look is not None else None
        return max(counts) / sum(counts) if counts else None


class WarmStartResult(Frozen):
    """Results of earlier runs that a run begins with."""

    runs: tuple[str, ...] = ()  # earlier runs that it was taken from, the promoted one first
    seeds: tuple[str, ...] = ()  # architectures that the search scores first
    trials: tuple[dict[str, float], ...] = ()  # hyperparameters that are tried first, by dotted name
    students: tuple[str, ...] = ()  # architectures that take part in the tournament

    @property
    def begins(self) -> tuple[Any, ...]:
        """All that decides how the run goes on."""
        return self.seeds, self.trials, self.students


class RankCheckResult(Frozen):
    """Rank correlations of every scorer on briefly trained students."""

    configured: str  # the search's scorer
    rows: tuple[ScorerRank, ...]
    against_params: Comparison | None  # of the configured scorer; None if it is params or has no tau
    students: tuple[RankedStudent, ...]
    epochs: int
    train_images: int
    validation_images: int
    seconds: float  # of training
    notes: tuple[str, ...]
    metric: Literal["balanced_accuracy"] | None = None  # figure of the students, where it is not the accuracy

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(handler(self), "metric")


class QatFormat(Frozen):
    """An INT8 file before and after fine-tuning, on validation."""

    before: Metrics
    after: Metrics | None  # None: none could be made
    kept: Literal["before", "after"]
    passes: bool  # True if the kept one loses no more than the gate allows
    reason: str = ""  # why none could be made


class QatResult(Frozen):
    """Result of fine-tuning for INT8; `formats` holds the formats it was done for."""

    mode: Literal["auto", "always"]
    allowed: float  # max_accuracy_drop
    fp32: Metrics  # of the file, on validation
    formats: dict[str, QatFormat] = {}
    refused: str | None = None  # why the student could not be fine-tuned
    fine_tuned: Metrics | None = None  # in torch, with fake quantisation
    learning_rate: float | None = None
    best_epoch: int | None = None
    curve: tuple[EpochRecord, ...] = ()
    models: dict[str, ConvertedModel] = {}  # files to take the place of the ones before

    def applied_to(self, converted: ConvertResult) -> ConvertResult:
        """Return the export's result with the INT8 files improved by fine-tuning."""
        return converted.model_copy(update={"others": {**converted.others, **self.models}})


class BaselineArm(Frozen):
    """One way to train; `recipe` is the student's own."""

    name: ArmName
    architecture: str
    learning_rate: float
    weight_decay: float
    failure: str | None = None  # why it was trained no further


class BaselineTraining(Frozen):
    """A finished training; seed 0 of the recipe is the distillation itself."""

    arm: ArmName
    seed: int
    weights: str  # file in the run, of the shipped form
    validation: Metrics
    best_epoch: int
    epochs: int
    seconds: float


class LatencyRatio(Frozen):
    """Medians of both students' fp32 files, timed in turns, and the ratio with its 95 % interval."""

    chosen_ms: float
    largest_ms: float
    ratio: float  # of the largest's to the chosen's
    interval: tuple[float, float]


class BaselinesResult(Frozen):
    arms: tuple[BaselineArm, ...]
    trainings: tuple[BaselineTraining, ...]
    seeds: int  # wanted of each
    allowed_s: float
    seconds: float  # of the trainings, the distillation's own left out
    tuned: Literal["each", "recipe", "none"]  # arms whose hyperparameters were tuned
    methods: tuple[str, ...]  # of the recipe
    start: str  # of the student's first weights
    largest: str  # architecture of the largest student within budget
    latency: LatencyRatio | None = None  # None: the largest was chosen, or could not be timed

    @property
    def arm_names(self) -> tuple[ArmName, ...]:
        return tuple(arm.name for arm in self.arms)

    @property
    def chosen(self) -> str:
        """Architecture of the student that the search and the tournament chose."""
        return self.arms[0].architecture

    def seeds_of(self, name: ArmName) -> int:
        return sum(training.arm == name for training in self.trainings)


class ArmFigures(Frozen):
    """Figures of an arm on the test split, by seed."""

    name: ArmName
    accuracies: tuple[Share, ...]
    balanced: tuple[Share, ...] = ()  # mean recalls, where they choose


class Worth(Frozen):
    """The recipe's figures on the test split less each other arm's, paired by seed."""

    n: int  # test examples
    metric: Literal["accuracy", "balanced_accuracy"]  # of the differences
    arms: tuple[ArmFigures, ...]
    gains: dict[ArmName, Difference]


class ReportResult(Frozen):
    """Accuracies on the test split, opened once, for them."""

    teacher: Metrics
    student: Metrics
    shipped: Metrics  # of the default file
    formats: dict[str, Metrics] = {}  # of every file of the student, shipped or not
    teacher_file: Metrics | None = None
    lost: int | None = None  # test examples right by the teacher alone; None: a run of an older version
    gained: int | None = None  # test examples right by the default file alone
    confusion: Confusion | None = None  # of the default file
    teacher_confusion: Confusion | None = None
    bundle: Literal["bundle"] = BUNDLE  # fixed names: a run from elsewhere must not choose them
    report: Literal["report.html"] = PAGE
    examined: Examined | None = None  # None: a run of an older version, or it could not be done
    digest: str = ""  # of the bundle; whoever keeps it can detect any later change
    worth: Worth | None = None  # None: a run without baselines
    generated: Generated | None = None  # None: no language model, or one of texts without prompts

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(handler(self), "worth", "generated")


class _Configured(Protocol):
    """A run's configuration."""

    def with_method(self, name: str) -> Self: ...


class Results:
    """Results of a run's stages so far, each found by its type."""

    def __init__(self) -> None:
        self._found: dict[type[Frozen], Any] = {}
        self._sentences: dict[type[Frozen], str] = {}
        self.sentences: dict[str, str] = {}  # by stage, in order

    def add(self, stage: str, result: Frozen, sentence: str) -> None:
        self._found[type(result)] = result
        self._sentences[type(result)] = self.sentences[stage] = sentence

    def of(self, kind: type[R]) -> R:
        """Return the result of this type.

        Raises:
            RunDirError: no stage so far has one; only an altered manifest leaves out a stage before a finished one.
        """
        if kind not in self._found:
            raise RunDirError(
                f"the run's manifest.json names no stage with a {kind.__name__}; put the file back, or finish the run "
                "with `edgestill resume`"
            )
        found: R = self._found[kind]
        return found

    def get(self, kind: type[R]) -> R | None:
        """Return the result, or None if its stage took no part in the run."""
        return self._found.get(kind)

    @property
    def warm_start(self) -> WarmStartResult:
        """Results of earlier runs that this one begins with; empty where the stage takes no part."""
        return self.get(WarmStartResult) or WarmStartResult()

    def sentence(self, kind: type[Frozen]) -> str:
        """Say the result in one line."""
        return self._sentences[kind]

    @property
    def shipped_student(self) -> DistillResult:
        """The distillation's result with the cost and accuracy of the student that ships."""
        found, pruned = self.of(DistillResult), self.get(PruneResult)
        return found if pruned is None else pruned.applied_to(found)

    def settled(self, config: C) -> C:
        """Return the configuration with the method that a stage chose, where `distill.methods` is auto."""
        recipe = self.get(RecipeResult)
        if recipe is None:
            return config
        return config.with_method(recipe.chosen)

    @property
    def files(self) -> ConvertResult:
        """The exported files, the INT8 ones fine-tuned where that made them better."""
        found, fine_tuned = self.of(ConvertResult), self.get(QatResult)
        return found if fine_tuned is None else fine_tuned.applied_to(found)
