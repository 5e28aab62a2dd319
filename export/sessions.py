"""ONNX Runtime sessions, made in one way for parity, latency and accuracy."""

from collections.abc import Sequence
from importlib import metadata
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


def open_session(
    model: Path | bytes, threads: int = 1, providers: Sequence[str] = (PROVIDER,)
) -> "onnxruntime.InferenceSession":
    """A session of a file, or of its bytes, with all graph optimisations and a fixed number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised
    options.add_session_config_entry("session.load_model_format", "ONNX")  # whatever the bytes look like
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=list(providers)
    )


class SessionRun:
    """Images [B, C, H, W] float32 in [0, 1], or token ids [B, T] int64, to logits [B, K], by a session."""

    def __init__(self, session: "onnxruntime.InferenceSession") -> None:
        self._session = session

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        return self.run(self.feed(inputs))

    def feed(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs as the file takes them: what a device has at hand, and a latency leaves out."""
        return feed(inputs, self._session)

    def run(self, given: dict[str, np.ndarray]) -> np.ndarray:
        logits: np.ndarray = self._session.run([OUTPUT], given)[0]
        return logits


def runner(model: Path | bytes, threads: int = 1) -> SessionRun:
    """A file, or its bytes, on the CPU."""
    return SessionRun(open_session(model, threads))


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


def runtime_name(runtime: str = "onnxruntime") -> str:
    """A format's runtime and its version, for a report."""
    library = runtime.partition("-")[0]  # onnxruntime-cuda is onnxruntime's
    if library == "onnxruntime":
        import onnxruntime

        return f"{runtime} {onnxruntime.__version__}"
    try:
        return f"{runtime} {metadata.version(library)}"
    except metadata.PackageNotFoundError:  # installed under a longer name
        return runtime
