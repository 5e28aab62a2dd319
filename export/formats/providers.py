"""ONNX Runtime on an NVIDIA GPU, through its CUDA and TensorRT providers.

ONNX Runtime falls back to the CPU if a provider does not load, and says so on the terminal alone. Here that is an
error: a GPU's name must not stand over a CPU's figures.
"""

import contextlib
import importlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgestill.export.formats.base import Files, Format, Source
from edgestill.export.onnx.sessions import OUTPUT, PROVIDER, RUNTIME, SessionRun
from edgestill.export.run import Run
from edgestill.pipeline.cache import cache_folder
from edgestill.pipeline.errors import ExportError, first_line

if TYPE_CHECKING:
    import onnxruntime

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_RUNTIMES = {CUDA: f"{RUNTIME}-cuda", TENSORRT: f"{RUNTIME}-tensorrt"}
_ON_A_GPU = (
    "on a machine with an NVIDIA GPU: `pip install 'edgestill[gpu]'`, `pip uninstall -y onnxruntime`, `pip install "
    "--force-reinstall --no-deps onnxruntime-gpu` (both write one folder)"
)
HOW_TO_GET = {
    CUDA: _ON_A_GPU,
    TENSORRT: f"{_ON_A_GPU}, and the TensorRT it is built for, `pip install 'tensorrt-cu13<11'` for 1.31",
}
_HEAVY = ("Conv", "Gemm", "MatMul", "FusedConv", "FusedMatMul", "QLinearConv", "QGemm", "Attention")


class OnProvider(Format):
    """Another format's ONNX file, run by a provider; the CPU runs light operators without a kernel there."""

    suffix = ".onnx"

    def __init__(self, name: str, provider: str, made_from: Format) -> None:
        self.name, self.precision, self.runtime = name, made_from.precision, _RUNTIMES[provider]
        self.provider, self._made_from = provider, made_from

    def missing(self) -> str | None:
        import onnxruntime

        if self.provider not in onnxruntime.get_available_providers():
            return f"onnxruntime {onnxruntime.__version__} has no {self.provider} here; {HOW_TO_GET[self.provider]}"
        try:
            open_on(self.provider, _nothing(), 1)
        except ExportError as error:
            return f"{error}; {HOW_TO_GET[self.provider]}"
        return self._made_from.missing()

    def build(self, source: Source, config: Any) -> Files:
        return self._made_from.build(source, config)

    def variants(self, source: Source, config: Any) -> Iterator[tuple[str, Files]]:
        return self._made_from.variants(source, config)

    def open(self, path: Path, threads: int) -> Run:
        session = open_on(self.provider, path.read_bytes(), threads)
        left = nodes_by_provider(session).get(PROVIDER, Counter())
        heavy = [f"{count} {kind}" for kind, count in left.items() if kind in _HEAVY]
        if heavy:
            raise ExportError(f"{self.provider} leaves {', '.join(heavy)} of {path.name} to the CPU")
        return SessionRun(session)


def open_on(provider: str, model: bytes, threads: int) -> "onnxruntime.InferenceSession":
    """Open a session with the provider taking part.

    Raises:
        ExportError: ONNX Runtime refuses the file, or went on without the provider.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    wanted = [(name, provider_options(name)) for name in dict.fromkeys((provider, CUDA, PROVIDER))]
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():  # it prints its fallback
            warnings.simplefilter("ignore")
            _load_libraries(provider)
            session = onnxruntime.InferenceSession(model, options, providers=wanted)
    except Exception as error:  # the runtime's error types share no base class
        raise ExportError(f"ONNX Runtime refuses the file: {first_line(error)}") from error
    if session.get_providers()[0] != provider:
        raise ExportError(
            f"{provider} is in onnxruntime {onnxruntime.__version__} and did not load, so that ONNX Runtime fell back "
            f"to {', '.join(session.get_providers())}: its CUDA libraries or the GPU are missing"
        )
    return session


def _load_libraries(provider: str) -> None:
    """Load the GPU libraries from their Python packages, which lie outside the loader's search path."""
    import onnxruntime

    onnxruntime.preload_dlls()
    if provider == TENSORRT:
        with contextlib.suppress(ImportError, OSError, RuntimeError):  # the session says what is missing
            importlib.import_module("tensorrt")


def nodes_by_provider(session: "onnxruntime.InferenceSession") -> dict[str, Counter[str]]:
    """Count the nodes of each operator given to each provider, after ONNX Runtime's own fusions."""
    found: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return found


def provider_options(provider: str) -> dict[str, str]:
    """Return the options to open a provider with."""
    if provider == CUDA:
        return {"use_tf32": "0"}  # by default its fp32 products keep 10 bits of 23
    if provider != TENSORRT:
        return {}
    folder = cache_folder() / "onnxruntime-tensorrt"  # it keys its entries by GPU and version itself
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }


def _nothing() -> bytes:
    """Return a smallest ONNX file, to try to load a provider with."""
    from onnx import TensorProto, helper

    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("images", OUTPUT)]
    node = helper.make_node("Relu", ["images"], [OUTPUT])
    model = helper.make_model(
        helper.make_graph([node], "nothing", sides[:1], sides[1:]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    data: bytes = model.SerializeToString()
    return data
