"""Results of stages whose work spans several packages; the others' lie beside their work."""

from typing import Literal

from edgestill.export.result import ConvertedModel, ConvertResult
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.metrics import Metrics
from edgestill.pipeline.training.state import EpochRecord
from edgestill.search.rank_correlation import Comparison, RankedStudent, ScorerRank

BUNDLE: Literal["bundle"] = "bundle"  # the run's folder for the shipped files
PAGE: Literal["report.html"] = "report.html"


class DataResult(Frozen):
    """The task, and each split's size and digest."""

    task: Task
    sizes: dict[str, int]
    digests: dict[str, str]  # of each split, its contents included


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


class ReportResult(Frozen):
    """Accuracies on the test split, opened once, for them."""

    teacher: Metrics
    student: Metrics
    shipped: Metrics  # of the default file
    formats: dict[str, Metrics] = {}  # of every file of the student, shipped or not
    teacher_file: Metrics | None = None
    lost: int | None = None  # test examples right by the teacher alone; None: a run of an older version
    gained: int | None = None  # test examples right by the default file alone
    bundle: Literal["bundle"] = BUNDLE  # fixed names: a run from elsewhere must not choose them
    report: Literal["report.html"] = PAGE
    digest: str = ""  # of the bundle; whoever keeps it can detect any later change
