"""ONNX Runtime sessions, made in one way for parity, latency and accuracy."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnxruntime

INPUT, OUTPUT = "images", "logits"
TOKENS = "tokens"  # the input's name where it is text
PROVIDER = "CPUExecutionProvider"


def open_session(model: Path | bytes, threads: int = 1) -> "onnxruntime.InferenceSession":
    """A CPU session of a file, or of its bytes, with all graph optimisations and a fixed number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=[PROVIDER]
    )


def runner(path: Path, threads: int = 1) -> Callable[[np.ndarray], np.ndarray]:
    """images [B, C, H, W] float32, or token ids [B, T] int64, to logits [B, K], by the file."""
    session = open_session(path, threads)
    name = session.get_inputs()[0].name

    def run(inputs: np.ndarray) -> np.ndarray:
        logits: np.ndarray = session.run([OUTPUT], {name: inputs})[0]
        return logits

    return run


def runtime_name() -> str:
    """The runtime and its version, for a report."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"
