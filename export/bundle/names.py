"""Names of a bundle's files, and the text of `labels.txt`."""

from pathlib import Path

from edgestill.export.bundle.manifest import MANIFEST, SIGNATURE
from edgestill.export.bundle.sbom import SBOM
from edgestill.export.bundle.schema import BUNDLE, CARD, LABELS, PROBES, RUN
from edgestill.export.bundle.scripts.join import PROFILE
from edgestill.export.formats import FORMATS
from edgestill.export.result import ConvertedModel
from edgestill.pipeline.input_kind import INPUT_KINDS
from edgestill.pipeline.task import Task

_FORMER = ("run.py", "profile.py")  # names of scripts in older bundles


def model_names(model: ConvertedModel) -> dict[str, str]:
    """Names in the bundle -> paths in the run: `model.onnx` is fp32's, others are `model.<format><suffix>`."""
    stem = "student" if model.format == "fp32" else f"student.{model.format}"
    paths = (model.path, *model.beside)
    return {Path(path).name.replace(stem, _stem(model.format), 1): path for path in paths}


def known_names() -> frozenset[str]:
    """Return all names allowed for a bundle's files, over all tasks and formats."""
    models = {_stem(name) + suffix for name, kind in FORMATS.items() for suffix in (kind.suffix, *kind.beside)}
    of_inputs = {file for kind in INPUT_KINDS.values() for file in kind.files}
    ours = {BUNDLE, LABELS, CARD, SBOM, PROBES, MANIFEST, SIGNATURE, PROFILE, RUN, *_FORMER}
    return frozenset(ours | of_inputs | models)


def labels_text(task: Task) -> bytes:
    """`labels.txt`: line k names class k."""
    return "".join(f"{label}\n" for label in task.labels).encode()


def _stem(format: str) -> str:
    """Return the name of a format's files without its suffix: `model` for fp32, else such as `model.int8`."""
    return "model" if format == "fp32" else f"model.{format}"
