"""Results of a run's stages, read back from its folder for the report."""

import json

from edgestill.distill.result import DistillResult, PruneResult, TuneResult
from edgestill.export.device.document import ProfileDocument
from edgestill.export.result import ConvertResult, ProfileResult
from edgestill.flows.config.model import RunConfig
from edgestill.flows.delivery import ReportResult
from edgestill.flows.quantization import QatResult
from edgestill.flows.rank_check import RankCheckResult
from edgestill.flows.report import ReportData
from edgestill.flows.stage import DataResult
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.search.result import SearchResult
from edgestill.search.tournament import TournamentResult


def report_data(
    run: RunDir, tested: ReportResult, devices: tuple[ProfileDocument, ...] = (), cautions: tuple[str, ...] = ()
) -> ReportData:
    """Read everything for the page of a run; its stages before the report must be done.

    Args:
        devices: profiles measured after the run.
        cautions: about the devices' profiles, a sentence each.

    Raises:
        RunDirError: a stage is missing or was altered.
    """
    config = run.config(RunConfig)
    profiled = run.read("profile", ProfileResult)
    return ReportData(
        config=config,
        manifest=run.manifest,
        data=run.read("data", DataResult),
        teacher=run.read("teacher", TeacherResult),
        ranked=run.read("rank_check", RankCheckResult) if config.rank_check.students else None,
        found=run.read("search", SearchResult),
        played=run.read("tournament", TournamentResult),
        tuned=run.read("tune", TuneResult),
        distilled=run.read("distill", DistillResult),
        pruned=run.read("prune", PruneResult) if config.prune.enabled else None,
        converted=run.read("export", ConvertResult),
        fine_tuned=run.read("qat", QatResult) if config.qat.mode != "never" else None,
        profiled=profiled,
        samples_ms=_samples(run, profiled),
        tested=tested,
        devices=devices,
        cautions=(*run.cautions, *cautions),
    )


def _samples(run: RunDir, profiled: ProfileResult) -> dict[str, list[float]]:
    """Latency samples in ms of the teacher's file and the student's default file."""
    samples = json.loads(run.path("profile", "samples_ms.json").read_text(encoding="utf-8"))
    return {"teacher": samples["teacher"], "student": samples[profiled.default]}
