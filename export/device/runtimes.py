"""Opens a model's file in the runtime that its suffix tells, on a device: ONNX Runtime, OpenVINO or LiteRT.

A part of the scripts that ship: all of them look like ONNX Runtime's sessions, as far as a measurement needs one.
"""

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino", ".tflite": "ai_edge_litert"}  # suffix -> as formats call it
BESIDE = {".xml": ".bin"}  # suffix of the file that lies beside it under the same stem
_LITERT = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")  # the second is older, for small boards
_KINDS = {
    "f32": "tensor(float)", "f16": "tensor(float16)", "i64": "tensor(int64)", "i32": "tensor(int32)",
    "u8": "tensor(uint8)", "i8": "tensor(int8)", "float32": "tensor(float)", "int64": "tensor(int64)",
    "int32": "tensor(int32)", "uint8": "tensor(uint8)", "int8": "tensor(int8)",
}  # fmt: skip


class Given(NamedTuple):
    """An input, as ONNX Runtime describes one."""

    name: str
    type: str
    shape: Sequence[Any]  # None for a side that is left open


def runtime_of(path: str) -> str:
    """Return the runtime of a file by its suffix; ONNX Runtime's if it has another one or none."""
    return RUNTIMES.get(Path(path).suffix, "onnxruntime")


def import_runtime(path: str) -> Any:
    """Import the library of a file's runtime.

    Raises:
        ImportError: it is not installed.
    """
    runtime = runtime_of(path)
    if runtime == "openvino":
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it would tell its vendor
    return _litert() if runtime == "ai_edge_litert" else importlib.import_module(runtime)


def version_of(path: str) -> str:
    """Return the name of a file's runtime with its version."""
    library = import_runtime(path)
    module = library.__name__.partition(".")[0]
    if module == "onnxruntime":  # its package may be onnxruntime-gpu
        return f"{module} {library.__version__}"
    try:
        return f"{module} {metadata.version(module.replace('_', '-'))}"
    except metadata.PackageNotFoundError:
        return str(module)


def open_other(path: str, threads: int) -> Any:
    """Open a file of OpenVINO or LiteRT on so many threads.

    Raises:
        ImportError: its runtime is not installed.
        RuntimeError, ValueError: its runtime refuses it.
    """
    library = import_runtime(path)
    if runtime_of(path) == "openvino":
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        return _Compiled(library.Core().compile_model(path, "CPU", settings))
    return _Interpreted(library.Interpreter(model_path=path, num_threads=threads))


class _Compiled:
    """A model compiled by OpenVINO."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._names = [port.get_any_name() for port in compiled.outputs]
        self._inputs = [
            Given(
                port.get_any_name(),
                _KINDS.get(port.get_element_type().get_type_name(), port.get_element_type().get_type_name()),
                [side.get_length() if side.is_static else None for side in port.get_partial_shape()],
            )
            for port in compiled.inputs
        ]

    def get_inputs(self) -> "list[Given]":
        return self._inputs

    def run(self, names: "Sequence[str] | None", given: "Mapping[str, np.ndarray]") -> "list[np.ndarray]":
        found = self._request.infer(dict(given), share_inputs=True)
        return [np.array(found[name]) for name in names or self._names]


class _Interpreted:
    """A model of LiteRT, which takes one input at a time and has one output."""

    def __init__(self, interpreter: Any) -> None:
        interpreter.allocate_tensors()
        self._interpreter, (self._output,) = interpreter, interpreter.get_output_details()
        self._places = sorted(interpreter.get_input_details(), key=lambda place: place["name"])

    def get_inputs(self) -> "list[Given]":
        return [
            Given(
                place["name"], _KINDS.get(np.dtype(place["dtype"]).name, str(place["dtype"])), place["shape"].tolist()
            )
            for place in self._places
        ]

    def run(self, names: "Sequence[str] | None", given: "Mapping[str, np.ndarray]") -> "list[np.ndarray]":
        """Return the output for inputs in the file's order, whatever they are called."""
        arrays, found = list(given.values()), []
        for row in range(len(arrays[0])):
            for place, array in zip(self._places, arrays):  # noqa: B905
                self._interpreter.set_tensor(place["index"], array[row : row + 1].astype(place["dtype"], copy=False))
            self._interpreter.invoke()
            found.append(self._interpreter.get_tensor(self._output["index"]))
        return [found[0] if len(found) == 1 else np.concatenate(found)]


def _litert() -> Any:
    for name in _LITERT[:-1]:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return importlib.import_module(_LITERT[-1])
