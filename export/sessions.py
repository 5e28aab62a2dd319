"""ONNX Runtime sessions, made in one way for parity, latency and accuracy."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.task import PADDING

if TYPE_CHECKING:
    import onnxruntime

INPUT, OUTPUT = "images", "logits"
IMAGE, PROBABILITIES = "image", "probabilities"  # of a file with the interface `image`
TOKENS, MASK = "input_ids", "attention_mask"  # the inputs' names where they are text
PROVIDER = "CPUExecutionProvider"


def open_session(model: Path | bytes, threads: int = 1) -> "onnxruntime.InferenceSession":
    """A CPU session of a file, or of its bytes, with all graph optimisations and a fixed number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.load_model_format", "ONNX")  # whatever the bytes look like
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=[PROVIDER]
    )


def runner(path: Path, threads: int = 1) -> Callable[[np.ndarray], np.ndarray]:
    """images [B, C, H, W] float32, or token ids [B, T] int64, to logits [B, K], by the file."""
    session = open_session(path, threads)

    def run(inputs: np.ndarray) -> np.ndarray:
        logits: np.ndarray = session.run([OUTPUT], feed(inputs, session))[0]
        return logits

    return run


def feed(inputs: np.ndarray, session: "onnxruntime.InferenceSession | None" = None) -> dict[str, np.ndarray]:
    """What a session is given: images, or token ids and which of them are not padding.

    With the session, images become 8-bit ones where that is what its file takes.
    """
    if inputs.dtype == np.int64:
        return {TOKENS: inputs, MASK: (inputs != PADDING).astype(np.int64)}
    if session is not None and session.get_inputs()[0].type == "tensor(uint8)":
        return {IMAGE: to_pixels(inputs)}
    return {INPUT: inputs}


def to_pixels(images: np.ndarray) -> np.ndarray:
    """float32 [B, C, H, W] in [0, 1] to the nearest uint8 [B, H, W, C]."""
    return np.ascontiguousarray(np.round(np.clip(images, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1))


def runtime_name() -> str:
    """The runtime and its version, for a report."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"
