"""Results of a run's stages, read back from its folder for the report."""

import json

from edgestill.export.device.document import ProfileDocument
from edgestill.export.result import ProfileResult
from edgestill.flows.chain import results_of
from edgestill.flows.config.model import RunConfig
from edgestill.flows.report.data import ReportData
from edgestill.pipeline.runs.rundir import RunDir


def report_data(run: RunDir, devices: tuple[ProfileDocument, ...] = (), cautions: tuple[str, ...] = ()) -> ReportData:
    """Read everything for the page of a finished run.

    Args:
        devices: profiles measured after the run.
        cautions: about the devices' profiles, a sentence each.

    Raises:
        RunDirError: a stage is missing or was altered.
    """
    config = run.config(RunConfig)
    results = results_of(run, config)
    return ReportData(
        config=config,
        manifest=run.manifest,
        results=results,
        samples_ms=_samples(run, results.of(ProfileResult)),
        devices=devices,
        cautions=(*run.cautions, *cautions),
    )


def _samples(run: RunDir, profiled: ProfileResult) -> dict[str, list[float]]:
    """Latency samples in ms of the teacher's file and the student's default file."""
    samples = json.loads(run.path("profile", "samples_ms.json").read_text(encoding="utf-8"))
    return {"teacher": samples["teacher"], "student": samples[profiled.default]}
