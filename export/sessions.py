"""ONNX Runtime sessions, made in one way for parity, latency and accuracy."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.task import PADDING

if TYPE_CHECKING:
    import onnxruntime

INPUT, OUTPUT = "images", "logits"
TOKENS, MASK = "input_ids", "attention_mask"  # the inputs' names where they are text
PROVIDER = "CPUExecutionProvider"


def open_session(
    model: Path | bytes, threads: int = 1, providers: Sequence[str] = (PROVIDER,)
) -> "onnxruntime.InferenceSession":
    """A session of a file, or of its bytes, with all graph optimisations and a fixed number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=list(providers)
    )


def runner(model: Path | bytes, threads: int = 1) -> Callable[[np.ndarray], np.ndarray]:
    """images [B, C, H, W] float32, or token ids [B, T] int64, to logits [B, K], by the file, or its bytes."""
    session = open_session(model, threads)

    def run(inputs: np.ndarray) -> np.ndarray:
        logits: np.ndarray = session.run([OUTPUT], feed(inputs))[0]
        return logits

    return run


def feed(inputs: np.ndarray) -> dict[str, np.ndarray]:
    """What a session is given: images, or token ids and which of them are not padding."""
    if inputs.dtype == np.int64:
        return {TOKENS: inputs, MASK: (inputs != PADDING).astype(np.int64)}
    return {INPUT: inputs}


def runtime_name() -> str:
    """The runtime and its version, for a report."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"
