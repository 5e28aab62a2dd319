"""Store of TensorRT engines: an engine runs only on the GPU, driver and version it was built with."""

import contextlib
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from edgestill.export.formats.tensorrt_build import Built
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.frozen import Frozen, digest
from edgestill.pipeline.runs.checkpoint import write_atomic


class Gpu(Frozen):
    """GPU, driver and TensorRT version: an engine and a timing cache are tied to them."""

    name: str
    compute_capability: str  # 8.6
    driver: str
    tensorrt: str


class EngineKey(Frozen):
    """Identity of a stored engine: GPU, ONNX file and input shapes. All must be equal for it to be loaded."""

    gpu: Gpu
    onnx_sha256: str
    shapes: dict[str, tuple[tuple[int, ...], ...]]  # of each input: the smallest, the optimal, the largest

    @property
    def stem(self) -> str:
        """File name without suffix: readable, and different for different keys."""
        return f"{_slug(self.gpu)}-{digest(self)[:16]}"


class _Sidecar(Frozen):
    key: EngineKey
    engine_sha256: str


class EngineStore:
    """Engines and timing caches in one folder, which may be deleted at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def kept(self, key: EngineKey, build: Callable[[bytes], Built]) -> bytes:
        """Return the engine of exactly this key: a stored one, or a new one by `build(timing_cache)`, then stored.

        A stored engine is rebuilt if its sidecar names another key or its bytes have changed.
        """
        found = self._read(key)
        if found is not None:
            return found
        built = build(self._timing_cache(key.gpu))
        sidecar = _Sidecar(key=key, engine_sha256=hashlib.sha256(built.engine).hexdigest())
        with contextlib.suppress(OSError):  # a folder that cannot be written costs time only
            write_atomic(self._path(key, ".engine"), built.engine)
            write_atomic(self._path(key, ".json"), sidecar.model_dump_json(indent=1).encode())
            write_atomic(self._timing_path(key.gpu), built.timing_cache)
        return built.engine

    def _read(self, key: EngineKey) -> bytes | None:
        try:
            sidecar = _Sidecar.model_validate_json(self._path(key, ".json").read_bytes())
            engine = self._path(key, ".engine").read_bytes()
        except (OSError, ValidationError):
            return None
        whole = hashlib.sha256(engine).hexdigest() == sidecar.engine_sha256
        return engine if whole and sidecar.key == key else None

    def _timing_cache(self, gpu: Gpu) -> bytes:
        with contextlib.suppress(OSError):
            return self._timing_path(gpu).read_bytes()
        return b""

    def _path(self, key: EngineKey, suffix: str) -> Path:
        return self._folder / f"{key.stem}{suffix}"

    def _timing_path(self, gpu: Gpu) -> Path:
        return self._folder / f"{_slug(gpu)}-{digest(gpu)[:16]}.timing"


def this_gpu(tensorrt_version: str) -> Gpu:
    """Describe torch's current GPU, with its driver's version and the given version of TensorRT.

    Raises:
        ExportError: its driver's version cannot be read.
    """
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Gpu(
        name=properties.name,
        compute_capability=f"{properties.major}.{properties.minor}",
        driver=_driver_version(),
        tensorrt=tensorrt_version,
    )


def _driver_version() -> str:
    try:
        import pynvml
    except ImportError as error:
        raise ExportError("the NVIDIA driver's version cannot be read; `pip install nvidia-ml-py`") from error
    try:
        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise ExportError(f"the NVIDIA driver does not tell its version: {error}") from error
    return version.decode() if isinstance(version, bytes) else str(version)


def _slug(gpu: Gpu) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{gpu.name} trt {gpu.tensorrt}".lower()).strip("-")
