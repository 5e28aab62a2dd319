"""The report's section on the bundle: where it is and how it is used."""

import shlex
from typing import Any

from edgestill.flows.report.data import ReportData


def commands(report: ReportData) -> dict[str, Any]:
    """The bundle's path, and the commands that take it, each with its purpose."""
    path = "bundle" if report.bundle is None else str(report.bundle)
    bundle, kind = shlex.quote(path), report.data.task.inputs
    given, needs = (
        ("IMAGES_OR_FOLDER", "numpy and onnxruntime")
        if kind.name == "image"
        else ("TEXT", "numpy, onnxruntime and tokenizers")
    )
    does = "continue" if kind.continues else "label"
    return {
        "path": path,
        "needs": needs,
        "commands": [
            (f"{does} on a device, without edgestill", f"python {bundle}/run.py {given}"),
            ("label many, with probabilities, to a table", f"edgestill predict {bundle} {given} --out answers.csv"),
            ("check every byte, and the answers on this machine", f"edgestill verify {bundle}{_digest(report)}"),
        ],
    }


def _digest(report: ReportData) -> str:
    return f" --digest {report.tested.digest}" if report.tested.digest else ""
