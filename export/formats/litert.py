"""LiteRT's .tflite, for phones, boards and microcontrollers: the network by torch.export, for one input at a time."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgestill.export.calibration import require_sound
from edgestill.export.formats.base import Files, Format, Source
from edgestill.export.onnx.sessions import feed
from edgestill.export.onnx.write import signature
from edgestill.export.quiet import quiet
from edgestill.export.run import Run
from edgestill.pipeline.errors import ExportError, first_line
from edgestill.pipeline.input_kind.base import PADDING

HOW_TO_GET = "`pip install 'edgestill[litert]'` in an environment of its own (docs/howto/targets.md)"
_LIBRARIES = ("litert_torch", "ai_edge_quantizer.quantizer", "ai_edge_litert.interpreter")
_SIGNATURE = "serving_default"


class LiteRT(Format):
    """LiteRT form. A file takes one input at a time, and text of the task's length; shorter text is padded."""

    runtime = "ai_edge_litert"
    suffix = ".tflite"
    is_program = True
    needs_network = True

    def __init__(self, name: str, precision: str, recipe: str | None = None) -> None:
        """Name the recipe of LiteRT's quantiser that makes the file from the one in fp32; None: that one itself."""
        self.name, self.precision, self._recipe = name, precision, recipe

    def missing(self) -> str | None:
        try:
            with quiet():
                for library in _LIBRARIES:
                    importlib.import_module(library)
        except (ImportError, OSError, RuntimeError, AttributeError) as error:  # it uses torch's internals
            reason = first_line(error, type(error).__name__)
            return f"LiteRT does not import beside torch {torch.__version__} ({reason}); {HOW_TO_GET}"
        return None

    def build(self, source: Source, config: Any) -> Files:
        try:
            with quiet():
                data = _fp32(source)
                if self._recipe is not None:
                    data = _quantized(data, self._recipe, source)
        except ExportError:
            raise
        except Exception as error:  # its passes' error types share no base class
            raise ExportError(f"the network has no LiteRT form: {first_line(error)}") from error
        return {self.suffix: data}

    def open(self, path: Path, threads: int) -> Run:
        from ai_edge_litert.interpreter import Interpreter

        try:
            with quiet():
                interpreter = Interpreter(model_content=path.read_bytes(), num_threads=threads)
                interpreter.allocate_tensors()
                places = _places(interpreter)
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"LiteRT refuses {path.name}: {first_line(error)}") from error
        return _runner(interpreter, *places)


def _runner(interpreter: Any, given: list[dict[str, Any]], answer: int) -> Run:
    """Return a `Run` that calls the interpreter for each input, in turn."""

    def run(inputs: np.ndarray) -> np.ndarray:
        found = []
        for single in np.split(inputs, len(inputs)):
            for place, value in zip(given, _fitting(single, given[0]), strict=True):
                interpreter.set_tensor(place["index"], value)
            interpreter.invoke()
            found.append(interpreter.get_tensor(answer))
        return np.concatenate(found)

    return run


def _places(interpreter: Any) -> tuple[list[dict[str, Any]], int]:
    """Return the details of the signature's inputs in order, and the output's index."""
    runner = interpreter.get_signature_runner(_SIGNATURE)
    inputs, (output,) = runner.get_input_details(), runner.get_output_details().values()
    return [inputs[name] for name in sorted(inputs)], int(output["index"])


def _fitting(single: np.ndarray, place: dict[str, Any]) -> list[np.ndarray]:
    """Return one input in the file's form: text is padded to its length, and ids have 32 bits."""
    if single.dtype != np.int64:
        return [np.ascontiguousarray(array) for array in feed(single).values()]
    padded = np.full(tuple(place["shape"]), PADDING, np.int64)
    padded[:, : single.shape[1]] = single
    return [array.astype(place["dtype"]) for array in feed(padded).values()]


def _fp32(source: Source) -> bytes:
    import litert_torch

    network, example, _ = signature(source.network, source.task.inputs)
    data = litert_torch.convert(network, tuple(tensor[:1] for tensor in example)).model_content()
    return bytes(data)


def _quantized(data: bytes, recipe: str, source: Source) -> bytes:
    from ai_edge_quantizer import quantizer

    made = quantizer.Quantizer(bytearray(data), _RECIPES[recipe]())
    calibration = None
    if made.need_calibration:
        require_sound(source.calibration, source.task)
        examples = (_named(example[None]) for example in source.calibration)
        calibration = made.calibrate({_SIGNATURE: list(examples)}, num_threads=1)
    found = bytes(made.quantize(calibration, enable_progress_report=False).quantized_model)
    if found == data:
        raise ExportError(
            "the quantisation changed nothing: LiteRT's quantiser found no layer of the network to quantise"
        )
    return found


def _named(single: np.ndarray) -> dict[str, np.ndarray]:
    """Return one input by the names of the file's signature."""
    given = feed(single).values()
    return {
        f"args_{place}": array.astype(np.int32) if array.dtype == np.int64 else array
        for place, array in enumerate(given)
    }


def _of_library(name: str) -> Callable[[], Any]:
    def recipe() -> Any:
        from ai_edge_quantizer import recipe as recipes

        return getattr(recipes, name)()

    return recipe


def _static(name: str) -> Callable[[], Any]:
    """Return a recipe of the library's with inputs and outputs left in float, as every other file has them."""

    def recipe() -> Any:
        from ai_edge_quantizer import qtyping, recipe_manager
        from ai_edge_quantizer.algorithm_manager import AlgorithmName

        recipes = recipe_manager.RecipeManager()
        recipes.load_quantization_recipe(_of_library(name)())
        for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            recipes.add_quantization_config(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
        return recipes.get_quantization_recipe()

    return recipe


def _float16() -> Any:
    """Return the recipe of weights in 16 bits; arithmetic is fp32."""
    from ai_edge_quantizer import qtyping, recipe_manager
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    recipes = recipe_manager.RecipeManager()
    recipes.add_weight_only_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        num_bits=16,
        granularity=qtyping.QuantGranularity.TENSORWISE,
        algorithm_key=AlgorithmName.FLOAT_CASTING,
    )
    return recipes.get_quantization_recipe()


_RECIPES: dict[str, Callable[[], Any]] = {
    "fp16": _float16,
    "int8": _static("static_wi8_ai8"),
    "w8": _of_library("weight_only_wi8_afp32"),
    "w8a16": _static("static_wi8_ai16"),
}
