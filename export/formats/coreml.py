"""Core ML's .mlpackage, for Apple's phones and computers: the network by torch.export. Nothing but those runs it."""

import importlib.util
import io
import platform
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgestill.export.formats.base import Files, Format, Source
from edgestill.export.onnx.sessions import INPUT, OUTPUT, feed
from edgestill.export.onnx.write import signature
from edgestill.export.quiet import quiet
from edgestill.export.run import Run
from edgestill.pipeline.errors import ExportError, first_line

HOW_TO_GET = "`pip install 'edgestill[coreml]'`"
NOT_RUN = "Core ML runs on Apple's systems alone, so that nothing here compared its answers with the network's"
_MOST = 64  # inputs at once
_PACKAGE = "model.mlpackage"
_OURS = ("Manifest.json", "Data/")  # what Core ML reads of a package


class CoreML(Format):
    """Core ML form, a zip of an .mlpackage: arithmetic in 16 bits, weights in 16 or, a scale a channel, in 8."""

    runtime = "coremltools"
    suffix = ".mlpackage.zip"
    is_program = True
    needs_network = True
    kinds = frozenset({"image"})  # coremltools 9.0 fails in networks of texts

    def __init__(self, name: str, precision: str) -> None:
        self.name, self.precision = name, precision

    def missing(self) -> str | None:
        if importlib.util.find_spec("coremltools") is None:
            return f"coremltools is not installed; {HOW_TO_GET}"
        return None if _runs_here() else NOT_RUN

    def is_made_unrun(self) -> bool:
        return not _runs_here() and importlib.util.find_spec("coremltools") is not None

    def build(self, source: Source, config: Any) -> Files:
        try:
            with quiet():
                model = _converted(source)
                if self.precision == "int8":
                    model = _with_bytes(model)
                return {self.suffix: _zipped(model)}
        except ExportError:
            raise
        except Exception as error:  # its passes' error types share no base class
            raise ExportError(f"the network has no Core ML form: {first_line(error)}") from error

    def open(self, path: Path, threads: int) -> Run:
        if not _runs_here():
            raise ExportError(f"{path.name}: {NOT_RUN}")
        import coremltools

        folder = tempfile.TemporaryDirectory(prefix="edgestill-")  # Core ML reads the package from it
        try:
            with zipfile.ZipFile(path) as packed:
                packed.extractall(folder.name)
            model = coremltools.models.MLModel(
                str(Path(folder.name, _PACKAGE)), compute_units=coremltools.ComputeUnit.CPU_ONLY
            )
        except Exception as error:  # its error types share no base class
            raise ExportError(f"Core ML refuses {path.name}: {first_line(error)}") from error

        def run(inputs: np.ndarray, _alive: object = folder) -> np.ndarray:
            parts = [inputs[start : start + _MOST] for start in range(0, len(inputs), _MOST)]
            return np.concatenate([model.predict(feed(part))[OUTPUT].astype(np.float32) for part in parts])

        return run


def _runs_here() -> bool:
    return platform.system() == "Darwin"


def _converted(source: Source) -> Any:
    """Convert the network with the names of the ONNX file's ends."""
    import coremltools

    network, example, sides = signature(source.network, source.task.inputs)
    batch = torch.export.Dim("batch", min=1, max=_MOST)
    sides = tuple({**each, 0: batch} for each in sides)
    program = torch.export.export(network, example, dynamic_shapes=sides).run_decompositions({})
    model = coremltools.convert(
        program,
        outputs=[coremltools.TensorType(name=OUTPUT, dtype=np.float32)],
        minimum_deployment_target=coremltools.target.iOS16,
        compute_precision=coremltools.precision.FLOAT16,
        skip_model_load=True,
    )
    spec = model.get_spec()
    coremltools.utils.rename_feature(spec, spec.description.input[0].name, INPUT)
    return coremltools.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)


def _with_bytes(model: Any) -> Any:
    """Return the model with 8-bit weights, symmetric, a scale a channel."""
    from coremltools.optimize import coreml

    each = coreml.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)
    return coreml.linear_quantize_weights(model, config=coreml.OptimizationConfig(global_config=each))


def _zipped(model: Any) -> bytes:
    """Return the package as a zip without times, of what Core ML reads alone."""
    packed = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, _PACKAGE)
        model.save(str(place))
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(place.rglob("*")):
                name = path.relative_to(place).as_posix()
                if path.is_file() and name.startswith(_OURS):
                    archive.writestr(zipfile.ZipInfo(f"{_PACKAGE}/{name}"), path.read_bytes())
    return packed.getvalue()
