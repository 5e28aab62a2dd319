"""ONNX Runtime sessions, opened in one way for parity, latency and accuracy."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgestill.pipeline.input_kind import Images, Texts
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.input_kind.lm import PAST

if TYPE_CHECKING:
    import onnxruntime

(INPUT,), OUTPUT = Images.ports, "logits"
Interface = Literal["raw", "image"]
IMAGE, PROBABILITIES = "image", "probabilities"  # of a file with the interface `image`
TOKENS, MASK = Texts.ports
PROVIDER = "CPUExecutionProvider"
RUNTIME = "onnxruntime"  # of a format that it runs on a CPU; on a GPU there is more to the name


def open_session(
    model: Path | bytes,
    threads: int = 1,
    providers: Sequence[str] = (PROVIDER,),
    *,
    exact: bool = False,
    written_as: Literal["ONNX", "ORT"] = "ONNX",
) -> "onnxruntime.InferenceSession":
    """Open a session of a file, or of its bytes, with all graph optimisations and a fixed number of threads.

    Args:
        exact: sum 8-bit products without saturation on every processor, by slower kernels where needed. An application
            on a device does not set it.
        written_as: the file's format, whatever its bytes look like; another one is refused.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # fatal alone; errors are raised
    options.add_session_config_entry("session.load_model_format", written_as)
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=list(providers)
    )


class SessionRun:
    """`Run` by a session: images [B, C, H, W] float32 in [0, 1], or token ids [B, T] int64, to logits [B, K]."""

    def __init__(self, session: "onnxruntime.InferenceSession") -> None:
        self._session = session

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        return self.run(self.feed(inputs))

    def feed(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Convert inputs to the file's form. A device has them in it already, so a latency leaves this out."""
        return feed(inputs, self._session)

    def run(self, given: dict[str, np.ndarray]) -> np.ndarray:
        logits: np.ndarray = self._session.run([OUTPUT], given)[0]
        return logits


def runner(model: Path | bytes, threads: int = 1, *, exact: bool = False) -> SessionRun:
    """Open a file, or its bytes, to run on the CPU; `exact` as in `open_session`."""
    return SessionRun(open_session(model, threads, exact=exact))


def feed(inputs: np.ndarray, session: "onnxruntime.InferenceSession | None" = None) -> dict[str, np.ndarray]:
    """Return a session's inputs by name: images, or token ids and their mask, 0 for padding.

    With the session, images become 8-bit ones if its file takes those, and a language model's cache is empty.
    """
    if inputs.dtype == np.int64:  # by their type, as runs and devices give arrays and know no task
        return {TOKENS: inputs, MASK: (inputs != PADDING).astype(np.int64), **empty_past(session, len(inputs))}
    if session is not None and session.get_inputs()[0].type == "tensor(uint8)":
        return {IMAGE: to_pixels(inputs)}
    return {INPUT: inputs}


def empty_past(session: "onnxruntime.InferenceSession | None", batch: int) -> dict[str, np.ndarray]:
    """Return the cache of no token, by its name; nothing for a file without one."""
    given = [] if session is None else session.get_inputs()
    past = next((item.shape[1:] for item in given if item.name == PAST), None)
    if past is None:
        return {}
    return {PAST: np.zeros((batch, *(side if isinstance(side, int) else 0 for side in past)), np.float32)}


def to_pixels(images: np.ndarray) -> np.ndarray:
    """Convert float32 [B, C, H, W] in [0, 1] to the nearest uint8 [B, H, W, C]."""
    return np.ascontiguousarray(np.round(np.clip(images, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1))


def runtime_name(runtime: str = RUNTIME) -> str:
    """Return a format's runtime and its version, for a report."""
    library = runtime.partition("-")[0]  # onnxruntime-cuda belongs to onnxruntime
    if library == RUNTIME:
        import onnxruntime

        return f"{runtime} {onnxruntime.__version__}"
    try:
        return f"{runtime} {metadata.version(library)}"
    except metadata.PackageNotFoundError:  # installed under a longer name
        return runtime
