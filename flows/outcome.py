"""What a finished run gives to whoever started it."""

from pathlib import Path

from distill.result import DistillResult
from export.result import ProfileResult
from flows.delivery import ReportResult
from pipeline.frozen import Frozen
from pipeline.teacher import TeacherResult
from search.result import SearchResult
from search.tournament import TournamentResult


class Outcome(Frozen):
    """What a finished run is worth and where it lies."""

    run: Path
    bundle: Path
    report: Path
    teacher: TeacherResult
    found: SearchResult
    played: TournamentResult
    distilled: DistillResult
    profiled: ProfileResult
    tested: ReportResult
    cautions: tuple[str, ...] = ()  # what the run did without, a sentence each
