"""Builds a TensorRT engine from an ONNX file: strongly typed, for a range of batches, one code for TensorRT 10 and 11.

The file sets the precision: fp16 needs an fp16 file, int8 one with QDQ nodes. TensorRT 11 knows no other way, and 10
accepts this one.
"""

import functools
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

from edgestill.pipeline.errors import ExportError, first_line

MAJORS = (10, 11)
HOW_TO_GET = "on a machine with an NVIDIA GPU: a CUDA build of torch, and `pip install 'edgestill[tensorrt]'`"


class Shapes(NamedTuple):
    """Shapes of one input for an engine: the smallest, the one it is fastest at, and the largest."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


class Built(NamedTuple):
    engine: bytes
    timing_cache: bytes  # of the kernels tried; a later build with it is faster


def load_tensorrt() -> ModuleType:
    """Import and return the library.

    Raises:
        ExportError: it does not import here, or is of another major version; says how to get it.
    """
    try:
        import tensorrt
    except (ImportError, OSError, RuntimeError) as error:
        reason = first_line(error, type(error).__name__)
        raise ExportError(f"TensorRT does not import here ({reason}); {HOW_TO_GET}") from error
    found: ModuleType = tensorrt
    if major_version(found) not in MAJORS:
        raise ExportError(f"TensorRT {found.__version__} is here, 10 and 11 are supported; {HOW_TO_GET}")
    return found


def major_version(trt: ModuleType) -> int:
    return int(trt.__version__.split(".")[0])


def build_engine(trt: ModuleType, onnx: bytes, shapes: Mapping[str, Shapes], timing_cache: bytes = b"") -> Built:
    """Build the engine of an ONNX file for this GPU; return it with the timing cache of its kernels.

    Args:
        shapes: of each input, by name.
        timing_cache: an earlier build's; left out if TensorRT refuses it (another GPU or version).

    Raises:
        ExportError: TensorRT refuses the file or finds no engine; in its own words.
    """
    log = logger_of(trt)
    log.errors.clear()
    builder = trt.Builder(log)
    network = _strongly_typed(trt, builder)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(onnx):
        raise ExportError(f"TensorRT does not take the file: {_parser_errors(parser) or log.said()}")
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for name, side in shapes.items():
        profile.set_shape(name, side.min, side.opt, side.max)
    if config.add_optimization_profile(profile) < 0:
        raise ExportError(f"TensorRT does not take the shapes {dict(shapes)}: {log.said()}")
    if not (timing_cache and config.set_timing_cache(config.create_timing_cache(timing_cache), False)):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(f"TensorRT built no engine: {log.said()}")
    return Built(bytes(engine), bytes(config.get_timing_cache().serialize()))


def _strongly_typed(trt: ModuleType, builder: Any) -> Any:
    if major_version(trt) >= 11:  # every network is strongly typed
        return builder.create_network()
    return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(f"{error.desc()} (node {error.node_name()!r}, {error.node_operator()})" for error in errors)


@functools.cache
def logger_of(trt: ModuleType) -> Any:
    """Return a logger that keeps TensorRT's errors for our messages, and its other messages off the terminal.

    There is one per process: TensorRT keeps to the first logger it was given, even if later objects bring another.
    """

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self._kinds = (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)

        def log(self, severity: Any, msg: str) -> None:
            if severity in self._kinds:
                self.errors.append(msg)

        def said(self) -> str:
            return "; ".join(self.errors) or "it gives no reason"

    return Log()
