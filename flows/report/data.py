"""Everything that the report shows."""

from dataclasses import dataclass

from edgestill.distill.result import DistillResult, PruneResult, TuneResult
from edgestill.export.device.document import ProfileDocument
from edgestill.export.result import ConvertResult, ProfileResult
from edgestill.flows.config.model import RunConfig
from edgestill.flows.delivery import ReportResult
from edgestill.flows.quantization import QatResult
from edgestill.flows.rank_check import RankCheckResult
from edgestill.flows.stage import DataResult
from edgestill.pipeline.runs.manifest import Manifest
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.search.result import SearchResult
from edgestill.search.tournament import TournamentResult


@dataclass(frozen=True)
class ReportData:
    """All data shown in the report, which computes nothing of its own but layout."""

    config: RunConfig
    manifest: Manifest
    data: DataResult
    teacher: TeacherResult
    ranked: RankCheckResult | None  # None: no rank check was asked for
    found: SearchResult
    played: TournamentResult
    tuned: TuneResult
    distilled: DistillResult  # of the student that ships
    converted: ConvertResult
    profiled: ProfileResult
    samples_ms: dict[str, list[float]]  # latency, by model
    tested: ReportResult
    pruned: PruneResult | None = None  # None: no pruning was asked for
    fine_tuned: QatResult | None = None  # for INT8; None: never to be done
    devices: tuple[ProfileDocument, ...] = ()  # measured after the run
    cautions: tuple[str, ...] = ()  # things the run did without, a sentence each

    @property
    def shipped_student(self) -> DistillResult:
        """The distilled student, or its pruned form."""
        return self.distilled if self.pruned is None else self.pruned.applied_to(self.distilled)
