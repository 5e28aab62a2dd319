"""Everything that the report shows."""

from dataclasses import dataclass
from pathlib import Path

from edgestill.distill.auto import RecipeResult
from edgestill.distill.result import DistillResult, PruneResult, TuneResult
from edgestill.export.device.document import ProfileDocument
from edgestill.export.result import ConvertResult, ProfileResult
from edgestill.flows.config.model import RunConfig
from edgestill.flows.stages.results import (
    BaselinesResult,
    DataResult,
    QatResult,
    RankCheckResult,
    ReportResult,
    Results,
)
from edgestill.pipeline.runs.manifest import Manifest
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.search.result import SearchResult
from edgestill.search.tournament import TournamentResult


@dataclass(frozen=True)
class ReportData:
    """All data shown in the report, which computes nothing of its own but layout."""

    config: RunConfig
    manifest: Manifest
    results: Results  # of every stage of the run
    samples_ms: dict[str, list[float]]  # latency, by model
    bundle: Path | None = None  # folder of the shipped files
    devices: tuple[ProfileDocument, ...] = ()  # measured after the run
    cautions: tuple[str, ...] = ()  # things the run did without, a sentence each

    @property
    def data(self) -> DataResult:
        return self.results.of(DataResult)

    @property
    def teacher(self) -> TeacherResult:
        return self.results.of(TeacherResult)

    @property
    def ranked(self) -> RankCheckResult | None:
        return self.results.get(RankCheckResult)

    @property
    def found(self) -> SearchResult:
        return self.results.of(SearchResult)

    @property
    def played(self) -> TournamentResult:
        return self.results.of(TournamentResult)

    @property
    def recipe(self) -> RecipeResult | None:
        return self.results.get(RecipeResult)

    @property
    def tuned(self) -> TuneResult:
        return self.results.of(TuneResult)

    @property
    def distilled(self) -> DistillResult:
        return self.results.of(DistillResult)

    @property
    def pruned(self) -> PruneResult | None:
        return self.results.get(PruneResult)

    @property
    def converted(self) -> ConvertResult:
        return self.results.of(ConvertResult)

    @property
    def fine_tuned(self) -> QatResult | None:
        return self.results.get(QatResult)

    @property
    def baselines(self) -> BaselinesResult | None:
        return self.results.get(BaselinesResult)

    @property
    def profiled(self) -> ProfileResult:
        return self.results.of(ProfileResult)

    @property
    def tested(self) -> ReportResult:
        return self.results.of(ReportResult)

    @property
    def shipped_student(self) -> DistillResult:
        """The distilled student, or its pruned form."""
        return self.results.shipped_student
