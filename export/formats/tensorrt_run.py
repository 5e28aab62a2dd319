"""Runs a TensorRT engine on device buffers; splits a call into copies and computation, to be timed one by one."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from edgestill.export.formats.tensorrt_build import Shapes, logger_of
from edgestill.export.onnx.sessions import OUTPUT, feed
from edgestill.pipeline.errors import ExportError


class Device(Protocol):
    """Device with an engine's buffers, and with the stream for copies and the engine."""

    @property
    def stream_handle(self) -> int: ...

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor: ...

    def write(self, buffer: Tensor, host: np.ndarray) -> None: ...

    def read(self, buffer: Tensor) -> np.ndarray: ...

    def synchronize(self) -> None: ...


class CudaDevice:
    """Current GPU with a stream of its own: on the default stream TensorRT would synchronise more than needed."""

    def __init__(self) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device())
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    @property
    def stream_handle(self) -> int:
        return int(self._stream.cuda_stream)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        with torch.cuda.stream(self._stream):
            return torch.empty(shape, dtype=dtype, device=self._device)

    def write(self, buffer: Tensor, host: np.ndarray) -> None:
        with torch.cuda.stream(self._stream):
            buffer.copy_(torch.from_numpy(host))

    def read(self, buffer: Tensor) -> np.ndarray:
        with torch.cuda.stream(self._stream):
            found: np.ndarray = buffer.to("cpu", torch.float32).numpy()  # waits for the copy
        return found

    def synchronize(self) -> None:
        self._stream.synchronize()


class EngineRun:
    """Callable from inputs to logits [B, K] float32 by an engine; a batch above the engine's largest goes in parts.

    Raises:
        ExportError: TensorRT refuses the engine, or a call.
    """

    def __init__(self, trt: ModuleType, engine: bytes, shapes: Mapping[str, Shapes], device: Device) -> None:
        self._log = logger_of(trt)
        self._log.errors.clear()
        self._device = device
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise ExportError(f"TensorRT does not load the engine: {self._log.said()}")
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise ExportError(f"TensorRT has no room for the engine: {self._log.said()}")
        self._dtypes = {name: _dtype(trt, self._engine, name) for name in (*shapes, OUTPUT)}
        self._largest = min(side.max[0] for side in shapes.values())
        self._buffers: dict[str, Tensor] = {}  # bound to the context, kept while the shapes stay the same

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        batches = [inputs[start : start + self._largest] for start in range(0, len(inputs), self._largest)]
        found = []
        for batch in batches:
            self._copy_in(batch)
            self._execute()
            found.append(self._device.read(self._buffers[OUTPUT]))
        return np.concatenate(found)

    def parts(self, inputs: np.ndarray) -> dict[str, Callable[[], object]]:
        """Return the parts of a call with these inputs, to be timed one by one; each waits until the device is done.

        `copy_in`: inputs to the device; `execute`: the engine on the inputs there; `copy_out`: logits to the host;
        `call`: all three. They are valid until a call with other shapes.
        """
        self._copy_in(inputs)

        def copy_in() -> None:
            self._copy_in(inputs)
            self._device.synchronize()

        def execute() -> None:
            self._execute()
            self._device.synchronize()

        return {
            "copy_in": copy_in,
            "execute": execute,
            "copy_out": lambda: self._device.read(self._buffers[OUTPUT]),
            "call": lambda: self(inputs),
        }

    def _copy_in(self, inputs: np.ndarray) -> None:
        given = feed(np.require(inputs, requirements=["C", "W"]))
        if any(name not in self._buffers or self._buffers[name].shape != host.shape for name, host in given.items()):
            self._bind({name: host.shape for name, host in given.items()})
        for name, host in given.items():
            self._device.write(self._buffers[name], host)

    def _bind(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._buffers = {}
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise ExportError(f"the engine was not built for {name} {list(shape)}: {self._log.said()}")
        for name in (*shapes, OUTPUT):
            shape = tuple(self._context.get_tensor_shape(name))
            self._buffers[name] = self._device.empty(shape, self._dtypes[name])
            self._context.set_tensor_address(name, self._buffers[name].data_ptr())

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._device.stream_handle):
            raise ExportError(f"TensorRT did not run the engine: {self._log.said()}")


def _dtype(trt: ModuleType, engine: Any, name: str) -> torch.dtype:
    known = {
        trt.DataType.FLOAT: torch.float32,
        trt.DataType.HALF: torch.float16,
        trt.DataType.INT32: torch.int32,
        trt.DataType.INT64: torch.int64,
    }
    found = engine.get_tensor_dtype(name)
    if found not in known:
        raise ExportError(f"the engine has {name} as {found}; float32, float16, int32 and int64 are supported")
    return known[found]
