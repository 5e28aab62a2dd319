"""The outcome of a finished run, for its caller."""

from pathlib import Path

from distill.result import DistillResult
from export.result import ProfileResult
from flows.delivery import ReportResult
from pipeline.frozen import Frozen
from pipeline.teacher import TeacherResult
from search.result import SearchResult
from search.tournament import TournamentResult


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
    cautions: tuple[str, ...] = ()  # things the run did without, a sentence each
