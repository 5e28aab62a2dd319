"""The names and signatures of TensorRT's Python API that we use, read from the released bindings' wheels.

    python tests/export/tensorrt_api.py FOLDER_OF_WHEELS > tests/export/tensorrt_api.json

The bindings' wheels install without a GPU and do not import: they link three libraries that come with the driver's
side. Empty libraries of the same names, made by the C compiler from the bindings' own list of undefined symbols, let
the import through; nothing of TensorRT is called, and pybind11 tells each function's signature.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# A new name that export/ uses is entered here, and the JSON made anew.
NAMES = (
    "Builder.__init__",
    "Builder.build_serialized_network",
    "Builder.create_builder_config",
    "Builder.create_network",
    "Builder.create_optimization_profile",
    "DataType.FLOAT",
    "DataType.HALF",
    "DataType.INT32",
    "DataType.INT64",
    "IBuilderConfig.add_optimization_profile",
    "IBuilderConfig.create_timing_cache",
    "IBuilderConfig.get_timing_cache",
    "IBuilderConfig.set_timing_cache",
    "ICudaEngine.create_execution_context",
    "ICudaEngine.get_tensor_dtype",
    "IExecutionContext.execute_async_v3",
    "IExecutionContext.get_tensor_shape",
    "IExecutionContext.set_input_shape",
    "IExecutionContext.set_tensor_address",
    "ILogger.Severity.ERROR",
    "ILogger.Severity.INTERNAL_ERROR",
    "ILogger.__init__",
    "ILogger.log",
    "IOptimizationProfile.set_shape",
    "ITimingCache.serialize",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "OnnxParser.__init__",
    "OnnxParser.get_error",
    "OnnxParser.num_errors",
    "OnnxParser.parse",
    "ParserError.desc",
    "ParserError.node_name",
    "ParserError.node_operator",
    "Runtime.__init__",
    "Runtime.deserialize_cuda_engine",
)
_UNDEFINED = re.compile(rb"(?:create|get|init)[A-Za-z]*(?:_INTERNAL|Registry|ParserVersion|InferPlugins)")

_DESCRIBE = """
import json, sys
import tensorrt_bindings as trt

def describe(name):
    found = trt
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            return None
    if isinstance(found, property):
        return "property"
    return found.__doc__ if callable(found) else int(found)

names = json.load(sys.stdin)
json.dump({"version": trt.__version__, "found": {name: describe(name) for name in names}}, sys.stdout)
"""


def read_api(wheel: Path, names: tuple[str, ...] = NAMES) -> tuple[str, dict[str, object]]:
    """The release and, of each name, None where it has none: "property", an enum's value, or its signatures."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        _stand_in_libraries(Path(folder) / "tensorrt_bindings")
        run = subprocess.run(
            [sys.executable, "-c", _DESCRIBE],
            input=json.dumps(names), cwd=folder, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
    told = json.loads(run.stdout)
    found = {name: _signatures(name, what) if isinstance(what, str) else what for name, what in told["found"].items()}
    return told["version"], found


def _stand_in_libraries(package: Path) -> None:
    binary = (package / "tensorrt.so").read_bytes()
    symbols = sorted({symbol.decode() for symbol in _UNDEFINED.findall(binary)})
    source = "".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in symbols)
    for library in sorted(set(re.findall(rb"libnv(?:infer|infer_plugin|onnxparser)\.so\.\d+", binary))):
        command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(package / library.decode())]
        subprocess.run(command, input=source, text=True, check=True, timeout=60)


def _signatures(name: str, doc: str) -> object:
    """`create_network(self: Builder, flags: int = 0) -> INetworkDefinition` as `self, flags= -> INetworkDefinition`."""
    if doc == "property":
        return doc
    function = re.escape(name.rsplit(".", 1)[-1])
    lines = re.findall(rf"^(?:\d+\. )?{function}\((self.*)\) -> (.+)$", doc, re.MULTILINE)
    return [f"{_parameters(given)} -> {returns.strip().rsplit('.', 1)[-1]}" for given, returns in lines]


def _parameters(given: str) -> str:
    parameters = re.split(r", (?=\w+: |\w+$)", given)
    return ", ".join(each.split(":")[0] + ("=" if " = " in each else "") for each in parameters)


if __name__ == "__main__":
    if shutil.which("cc") is None:
        sys.exit("needs a C compiler, `cc`")
    releases = dict(read_api(wheel) for wheel in sorted(Path(sys.argv[1]).glob("tensorrt_cu1*_bindings-*.whl")))
    print(json.dumps(dict(sorted(releases.items())), indent=1))
