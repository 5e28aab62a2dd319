"""TensorRT on an NVIDIA GPU. The ONNX file and a recipe ship; the engine is built where it runs, and kept.

An engine is tied to its GPU, driver and version (`tensorrt_engines.py`), and loading one runs its content. So none is
shipped, and only engines built here are loaded.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, ValidationError, model_validator

from edgestill.export.files import read_regular
from edgestill.export.formats.base import Files, Format, Source
from edgestill.export.formats.tensorrt_build import HOW_TO_GET, Shapes, build_engine, load_tensorrt
from edgestill.export.formats.tensorrt_engines import EngineKey, EngineStore, Gpu, this_gpu
from edgestill.export.formats.tensorrt_run import CudaDevice, Device, EngineRun
from edgestill.export.onnx.sessions import runner
from edgestill.export.run import Run
from edgestill.export.strict_json import MAX_BYTES, parse_json
from edgestill.pipeline.cache import cache_folder
from edgestill.pipeline.errors import BundleError, ExportError, first_line
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.task import Task

MAX_RELATIVE_DIFFERENCE = 0.05  # of the logits' root mean square, engine against ONNX Runtime on the same file


class TensorRTConfig(Frozen):
    """Batch sizes of an engine: any up to the largest, fastest at the optimal one."""

    optimal_batch: int = Field(1, ge=1, description="batch size that the engine's kernels are chosen for")
    max_batch: int = Field(
        64, ge=1, le=4096, description="largest batch size of the engine; larger batches go in parts"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.optimal_batch > self.max_batch:
            raise ValueError(f"optimal_batch {self.optimal_batch} is above max_batch {self.max_batch}")
        return self


class TensorRTKeys(Frozen):
    """Key of the formats under `export`, beside the keys of those that they are made from."""

    tensorrt: TensorRTConfig = TensorRTConfig()


class Recipe(Frozen):
    """Recipe to build an engine from the ONNX file."""

    schema_name: Literal["edgestill.tensorrt/1"] = Field("edgestill.tensorrt/1", alias="schema")
    shapes: dict[str, Shapes]
    relative_difference: float  # from ONNX Runtime's logits of the same file, where the recipe was made; RMS
    examples: int
    made_on: Gpu


class TensorRT(Format):
    """Engine of another format's ONNX file."""

    runtime = "tensorrt"
    suffix = ".onnx"
    beside = (".json",)
    Config = TensorRTKeys

    def __init__(self, name: str, made_from: Format) -> None:
        self.name, self.precision, self._made_from = name, made_from.precision, made_from

    def missing(self) -> str | None:
        try:
            self.library()
        except ExportError as error:
            return str(error)
        if not torch.cuda.is_available():
            return f"TensorRT needs a GPU, and torch {torch.__version__} sees none; {HOW_TO_GET}"
        return self._made_from.missing()

    def build(self, source: Source, config: TensorRTKeys) -> Files:
        return self._checked(self._made_from.build(source, config), source, config)

    def variants(self, source: Source, config: TensorRTKeys) -> Iterator[tuple[str, Files]]:
        for label, files in self._made_from.variants(source, config):
            yield label, self._checked(files, source, config)

    def open(self, path: Path, threads: int) -> Run:
        recipe = path.with_suffix(".json")
        try:
            shapes = Recipe.model_validate(parse_json(read_regular(recipe, MAX_BYTES), recipe.name)).shapes
        except (BundleError, ValidationError) as error:
            raise ExportError(f"{recipe.name} is no recipe of a TensorRT engine: {first_line(error)}") from error
        return self._run(path.read_bytes(), shapes)

    def _checked(self, files: Files, source: Source, config: TensorRTKeys) -> Files:
        """Return the file and its recipe, after comparing its engine's answers with ONNX Runtime's."""
        onnx, examples = files[self.suffix], source.calibration
        shapes = shapes_of(source.task, config.tensorrt)
        relative = _relative_difference(self._run(onnx, shapes)(examples), runner(onnx, exact=True)(examples))
        if not relative <= MAX_RELATIVE_DIFFERENCE:
            raise ExportError(
                f"the TensorRT engine differs from its ONNX file: on {len(examples)} reference examples logits "
                f"differ by {relative:.2g} of their root mean square (allowed {MAX_RELATIVE_DIFFERENCE:g})"
            )
        recipe = Recipe(shapes=shapes, relative_difference=relative, examples=len(examples), made_on=self.gpu())
        return {self.suffix: onnx, ".json": recipe.model_dump_json(indent=1, by_alias=True).encode()}

    def library(self) -> ModuleType:
        return load_tensorrt()

    def gpu(self) -> Gpu:
        return this_gpu(self.library().__version__)

    def device(self) -> Device:
        return CudaDevice()

    def _run(self, onnx: bytes, shapes: dict[str, Shapes]) -> EngineRun:
        trt = self.library()
        key = EngineKey(gpu=self.gpu(), onnx_sha256=hashlib.sha256(onnx).hexdigest(), shapes=shapes)
        store = EngineStore(cache_folder() / "tensorrt")
        engine = store.kept(key, lambda timing_cache: build_engine(trt, onnx, shapes, timing_cache))
        return EngineRun(trt, engine, shapes, self.device())


def shapes_of(task: Task, config: TensorRTConfig) -> dict[str, Shapes]:
    """Return the shape range of each input: any batch up to the largest, any length of text up to the task's."""
    batches = (1, config.optimal_batch, config.max_batch)
    least = (1,) if task.inputs.length else task.input_shape
    sides = zip(batches, (least, task.input_shape, task.input_shape), strict=True)
    return dict.fromkeys(task.inputs.ports, Shapes(*((batch, *shape) for batch, shape in sides)))


def _relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """RMS of the differences over the RMS of the logits around their means; NaN if one is not finite."""
    spread = expected - expected.mean(axis=1, keepdims=True)
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(spread**2)))
