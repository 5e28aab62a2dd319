"""The outcome of a finished run, for its caller."""

from pathlib import Path

from edgestill.distill.result import DistillResult
from edgestill.export.result import ProfileResult
from edgestill.flows.stages.results import BaselinesResult, ReportResult
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.search.result import SearchResult
from edgestill.search.tournament import TournamentResult


class Outcome(Frozen):
    """Results and paths of a finished run."""

    run: Path
    bundle: Path
    report: Path
    teacher: TeacherResult
    found: SearchResult
    played: TournamentResult
    distilled: DistillResult
    profiled: ProfileResult
    tested: ReportResult
    baselines: BaselinesResult | None = None
    cautions: tuple[str, ...] = ()  # things the run did without, a sentence each


class Part(Frozen):
    """A run that went as far as it was asked to, short of its report."""

    run: Path
    stage: str  # the last one
    sentences: tuple[str, ...]  # of the finished stages, in order
    cautions: tuple[str, ...] = ()
