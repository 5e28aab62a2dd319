"""ONNX Runtime's own format, for phones and boards: optimised beforehand, and read without ONNX's parser.

Builds of ONNX Runtime for small devices read this format alone. The operators' list lies beside the file: such a build
is made for it (`--include_ops_by_config`).
"""

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgestill.export.formats.base import Files, Format, Source
from edgestill.export.onnx.interface import with_interface
from edgestill.export.onnx.saturation import saturable
from edgestill.export.onnx.sessions import RUNTIME, SessionRun, open_session
from edgestill.export.run import Run
from edgestill.pipeline.errors import ExportError, first_line


class OrtFile(Format):
    """Another format's ONNX file, converted by ONNX Runtime with the optimisations that hold on every processor."""

    runtime = f"{RUNTIME}-mobile"
    suffix = ".ort"
    beside = (".config",)
    is_program = True  # ONNX's checks cannot read it
    adds_interface = True

    def __init__(self, name: str, made_from: Format) -> None:
        self.name, self.precision = name, made_from.precision
        self._made_from, self.corrects_bias = made_from, made_from.corrects_bias

    def build(self, source: Source, config: Any) -> Files:
        return _converted(self._made_from.build(source, config), source, config)

    def variants(self, source: Source, config: Any) -> Iterator[tuple[str, Files]]:
        for label, files in self._made_from.variants(source, config):
            yield label, _converted(files, source, config)

    def repaired(
        self, source: Source, config: Any, variant: str, holds: Callable[[Files], bool]
    ) -> tuple[Files, dict[str, float]] | None:
        found = self._made_from.repaired(
            source, config, variant, lambda files: holds(_converted(files, source, config))
        )
        return None if found is None else (_converted(found[0], source, config), found[1])

    def open(self, path: Path, threads: int) -> Run:
        try:
            return SessionRun(open_session(path.read_bytes(), threads, written_as="ORT"))
        except Exception as error:  # the runtime's error types share no base class
            raise ExportError(f"ONNX Runtime refuses {path.name}: {first_line(error)}") from error

    def saturable(self, path: Path) -> int | None:
        return len(saturable(_as_onnx(path.read_bytes()))) if self.precision == "int8" else None


def _converted(files: Files, source: Source, config: Any) -> Files:
    from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

    data = with_interface(files[".onnx"], config.interface, source.calibration[:64], source.task.resize)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(data)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                convert_onnx_models_to_ort(path, optimization_styles=[OptimizationStyle.Fixed])
        except Exception as error:  # the runtime's error types share no base class
            raise ExportError(f"ONNX Runtime does not convert the file: {first_line(error)}") from error
        operators = Path(folder, "model.required_operators.config").read_text(encoding="utf-8")
        needed = [
            line for line in operators.splitlines(keepends=True) if not line.startswith("#")
        ]  # paths of this machine
        return {".ort": path.with_suffix(".ort").read_bytes(), ".config": "".join(needed).encode()}


def _as_onnx(data: bytes) -> bytes:
    """Return an ONNX model with the file's operators and 8-bit weights alone, for the proof that nothing saturates."""
    from onnx import TensorProto, helper
    from onnxruntime.tools import ort_format_model  # noqa: F401 - it makes the next line's module importable
    from ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    graph = InferenceSession.GetRootAs(bytearray(data), 0).Model().Graph()
    nodes = []
    for node in map(graph.Nodes, range(graph.NodesLength())):
        given = [node.Inputs(place).decode() for place in range(node.InputsLength())]
        made = [node.Outputs(place).decode() for place in range(node.OutputsLength())]
        nodes.append(helper.make_node(node.OpType().decode(), given, made, domain=node.Domain().decode()))
    held = [graph.Initializers(place) for place in range(graph.InitializersLength())]
    weights = [
        helper.make_tensor(t.Name().decode(), TensorProto.INT8, t.DimsAsNumpy(), t.RawDataAsNumpy().tobytes(), raw=True)
        for t in held
        if t.DataType() == TensorProto.INT8 and t.DimsLength()
    ]
    return bytes(helper.make_model(helper.make_graph(nodes, "operators", [], [], weights)).SerializeToString())
