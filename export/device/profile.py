"""Measures model files in fresh processes on this machine, by the script in each bundle."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from edgestill.export.bundle.scripts.join import PROFILE, profile_script
from edgestill.export.device.document import ProfileDocument
from edgestill.export.device.measure import MeasureError, Model, Settings, measure
from edgestill.pipeline.child import interpreter
from edgestill.pipeline.errors import ExportError

__all__ = ["Model", "Settings", "profile_files"]


def profile_files(
    models: Mapping[str, Model],
    against: str | None,
    settings: Settings,
    say: Callable[[str], None],
    remeasure: str,
    architecture: str | None = None,
) -> ProfileDocument:
    """Measure ONNX files, in turns if there are several.

    A fresh process imports numpy and onnxruntime and nothing of edgestill, so its memory and start-up are as on a
    device.

    Raises:
        ExportError: a model cannot be loaded or run.
    """
    with tempfile.TemporaryDirectory(prefix="edgestill-") as folder:
        script = Path(folder) / PROFILE
        script.write_text(profile_script(), encoding="utf-8")
        worker = interpreter(str(script), "--worker")
        try:
            found = measure(models, against, settings, worker, say, remeasure, architecture)
        except MeasureError as error:
            raise ExportError(str(error)) from None
    return ProfileDocument.model_validate(found)
