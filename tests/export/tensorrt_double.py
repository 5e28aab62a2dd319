"""A stand-in for TensorRT that has a release's names and signatures and no others, and computes with ONNX Runtime.

An engine of it holds its ONNX file, so that what is done around a real engine is done around a true network: its
buffers are bound by address and its logits can be compared. Each call is held against `tensorrt_api.json`, which
`tensorrt_api.py` reads from the released wheels.
"""

import ctypes
import inspect
import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

RELEASES = json.loads(Path(__file__).with_name("tensorrt_api.json").read_text(encoding="utf-8"))
_TYPES = {1: "FLOAT", 6: "INT32", 7: "INT64", 10: "HALF"}  # by onnx.TensorProto's numbers
_PLAIN = {"bool": bool, "int": int, "str": str, "None": type(None)}


class TensorRT:
    """What `import tensorrt` gives; `calls` are the names called, in order, with what they were given."""

    def __init__(self, version, device="a"):
        self.__version__ = version
        self.released, self.used, self.calls = RELEASES[version], set(), []
        self.device = device  # whose timing caches it takes
        self.refuses_file = self.builds_nothing = self.runs_nothing = False
        self.ILogger = type(
            "ILogger", (), {"__init__": self._new_logger, "Severity": _Namespace(self, "ILogger.Severity")}
        )

    def __getattr__(self, name):
        if name in _CLASSES:
            return lambda *args, **named: self.call(f"{name}.__init__", None, args, named)
        return _Namespace(self, name)

    def _new_logger(self, logger):
        self.released_as("ILogger.__init__")
        ours = list(inspect.signature(type(logger).log).parameters)
        assert self.released_as("ILogger.log") == [f"{', '.join(ours)} -> None"]

    def released_as(self, name):
        if self.released.get(name) is None:
            raise AttributeError(f"TensorRT {self.__version__} has no {name}")
        self.used.add(name)
        return self.released[name]

    def call(self, name, owner, args, named):
        """Call the stand-in's function of that name, if the release takes such arguments."""
        signatures = self.released_as(name)
        returns = next((found for each in signatures if (found := _takes(each, args, named))), None)
        if returns is None:
            raise TypeError(f"TensorRT {self.__version__}: {name} takes {signatures}, given {args} {named}")
        self.calls.append((name, args))
        kind, function = name.split(".")
        if function == "__init__":
            return _Shown(self, _CLASSES[kind](self, *args, **named))
        result = getattr(owner, function)(*args, **named)
        if returns in _PLAIN:
            assert isinstance(result, _PLAIN[returns]), f"{name} returns {returns}"
        return _Shown(self, result) if type(result).__name__ in _CLASSES else result

    def given(self, name):
        return [args for called, args in self.calls if called == name]


def _takes(signature, args, named):
    parameters, returns = signature.split(" -> ")
    kinds = [
        inspect.Parameter(
            each.rstrip("="),
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=None if each.endswith("=") else inspect.Parameter.empty,
        )
        for each in parameters.split(", ")[1:]
    ]
    try:
        inspect.Signature(kinds).bind(*args, **named)
    except TypeError:
        return None
    return returns


class _Namespace:
    """An enumeration, whose members are numbers."""

    def __init__(self, api, name):
        self._api, self._name = api, name

    def __getattr__(self, member):
        return self._api.released_as(f"{self._name}.{member}")


class _Shown:
    """An object as its class shows it: released methods and properties alone."""

    def __init__(self, api, behind):
        self.__dict__.update(_api=api, _behind=behind)

    def __getattr__(self, name):
        api, behind = self._api, self._behind
        full = f"{type(behind).__name__}.{name}"
        if api.released_as(full) == "property":
            return getattr(behind, name)
        return lambda *args, **named: api.call(full, behind, args, named)

    def __setattr__(self, name, value):
        raise AttributeError(f"nothing of ours sets {name}")


class Builder:
    def __init__(self, api, logger):
        self.api, self.logger = api, logger

    def create_network(self, flags=0):
        asked = flags & 1 << self.api.released["NetworkDefinitionCreationFlag.STRONGLY_TYPED"]
        return INetworkDefinition(strongly_typed=bool(asked) or self.api.__version__ >= "11")

    def create_builder_config(self):
        return IBuilderConfig(self.api)

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        network, config = network._behind, config._behind
        if self.api.builds_nothing or not network.strongly_typed:
            self.logger.log(1, "Error Code 10: could not find any implementation for node conv")
            return None
        config.cache.kernels += 1
        model = onnx.load_from_string(network.onnx)
        types = {each.name: each.type.tensor_type.elem_type for each in (*model.graph.input, *model.graph.output)}
        assert set(config.profile.shapes) == {each.name for each in model.graph.input}
        head = {"version": self.api.__version__, "shapes": config.profile.shapes, "types": types}
        return memoryview(json.dumps(head).encode() + b"\n" + network.onnx)


class INetworkDefinition:
    def __init__(self, strongly_typed):
        self.strongly_typed, self.onnx = strongly_typed, None


class OnnxParser:
    def __init__(self, api, network, logger):
        self.api, self.network, self.num_errors = api, network._behind, 0

    def parse(self, model, path=None):
        if self.api.refuses_file:
            self.num_errors = 1
            return False
        self.network.onnx = bytes(model)
        return True

    def get_error(self, index):
        return ParserError()


class ParserError:
    def desc(self):
        return "no importer for this operator"

    def node_name(self):
        return "node_7"

    def node_operator(self):
        return "Tachyon"


class IOptimizationProfile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, input, min, opt, max):
        assert all(low <= best <= high for low, best, high in zip(min, opt, max, strict=True))
        self.shapes[input] = [list(min), list(opt), list(max)]


class IBuilderConfig:
    def __init__(self, api):
        self.api, self.profile, self.cache = api, None, None

    def add_optimization_profile(self, profile):
        self.profile = profile._behind
        return 0

    def create_timing_cache(self, serialized_timing_cache):
        return ITimingCache(self.api, bytes(serialized_timing_cache))

    def set_timing_cache(self, cache, ignore_mismatch):
        fits = cache._behind.fits
        if fits or ignore_mismatch:
            self.cache = cache._behind
        return fits

    def get_timing_cache(self):
        return self.cache


class ITimingCache:
    def __init__(self, api, data):
        self.header = f"{api.__version__} {api.device} "
        self.fits = not data or data.decode().startswith(self.header)
        self.kernels = int(data.decode().removeprefix(self.header)) if data and self.fits else 0

    def serialize(self):
        return memoryview(f"{self.header}{self.kernels}".encode())


class Runtime:
    def __init__(self, api, logger):
        self.api, self.logger = api, logger

    def deserialize_cuda_engine(self, serialized_engine):
        head, _, model = bytes(serialized_engine).partition(b"\n")
        if not head.startswith(b"{") or json.loads(head)["version"] != self.api.__version__:
            self.logger.log(1, "Error Code 1: Serialization (Version tag does not match)")
            return None
        return ICudaEngine(self.api, self.logger, json.loads(head), model)


class ICudaEngine:
    def __init__(self, api, logger, head, model):
        self.api, self.logger, self.head, self.model = api, logger, head, model

    def create_execution_context(self):
        return IExecutionContext(self)

    def get_tensor_dtype(self, name):
        return self.api.released[f"DataType.{_TYPES[self.head['types'][name]]}"]


class IExecutionContext:
    def __init__(self, engine):
        self.engine, self.shapes, self.addresses = engine, {}, {}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(engine.model, options, providers=["CPUExecutionProvider"])

    def set_input_shape(self, name, shape):
        low, _, high = self.engine.head["shapes"][name]
        if not all(least <= side <= most for least, side, most in zip(low, shape, high, strict=True)):
            self.engine.logger.log(1, "Error Code 3: the dimension is outside the optimization profile")
            return False
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        (classes,) = self.session.get_outputs()[0].shape[1:]
        batch = next(iter(self.shapes.values()))[0]
        return self.shapes.get(name, (batch, classes))

    def set_tensor_address(self, name, memory):
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        if self.engine.api.runs_nothing:
            self.engine.logger.log(0, "Error Code 1: Cask (an illegal memory access was encountered)")
            return False
        given = {name: self._at(name, shape) for name, shape in self.shapes.items()}
        (output,) = self.session.get_outputs()
        self._at(output.name, self.get_tensor_shape(output.name))[...] = self.session.run(None, given)[0]
        return True

    def _at(self, name, shape):
        kind = onnx.helper.tensor_dtype_to_np_dtype(self.engine.head["types"][name])
        size = int(np.prod(shape)) * kind.itemsize
        return np.frombuffer((ctypes.c_char * size).from_address(self.addresses[name]), kind).reshape(shape)


_CLASSES = {name: kind for name, kind in list(globals().items()) if inspect.isclass(kind) and re.match("I?[A-Z]", name)}
_CLASSES = {name: kind for name, kind in _CLASSES.items() if kind.__module__ == __name__ and name != "TensorRT"}
