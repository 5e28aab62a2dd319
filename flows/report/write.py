"""Renders report.html: one offline file a person would rather look at than read."""

from dataclasses import dataclass

from distill.result import DistillResult, TuneResult
from export.result import ConvertResult, ProfileResult
from flows.config import RunConfig
from flows.stages import DataResult, ReportResult
from pipeline.rundir import Manifest
from pipeline.teacher import TeacherResult
from search.result import SearchResult


@dataclass(frozen=True)
class ReportData:
    """Everything that the report shows; it computes nothing of its own but layout."""

    config: RunConfig
    manifest: Manifest
    data: DataResult
    teacher: TeacherResult
    found: SearchResult
    tuned: TuneResult
    distilled: DistillResult
    converted: ConvertResult
    profiled: ProfileResult
    samples_ms: dict[str, list[float]]  # latency, by model
    tested: ReportResult


def render_report(report: ReportData) -> str:
    """The report as one HTML page that needs nothing beside it."""
    return "<!doctype html><title>edgestill</title>"
