"""Settings and examples to find INT8 ranges, and checks against examples with misleading ranges."""

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.task import Task

MIN_EXAMPLES = 32  # fewer would miss the widest activations of a device's inputs


class CalibrationConfig(Frozen):
    """Settings to find the ranges of INT8 activations, on reference examples (docs/explanation/export.md)."""

    method: Literal["auto", "minmax", "entropy", "percentile"] = Field(
        "auto",
        description="method to find activation ranges; auto makes all three and keeps the best file on validation",
    )
    percentile: float = Field(
        99.99, gt=50, lt=100, description="share of values in an activation range, in percent; methods percentile, auto"
    )
    examples: int = Field(
        256, ge=MIN_EXAMPLES, le=100_000, description="largest number of calibration examples, of the reference split"
    )


class Int8Config(Frozen):
    """Settings of the repair of an INT8 file that loses more accuracy than the gate allows."""

    repair: Literal["auto", "off"] = Field(
        "auto", description="auto leaves the layers at fault in float where the whole in INT8 loses too much accuracy"
    )
    seconds: float = Field(60, gt=0, le=86_400, description="longest time to look for the layers at fault of a file")
    quicken: bool = Field(
        False,
        description="leave in float layers whose INT8 form costs time, where the file is no faster here than the gate "
        "asks for",
    )
    equalize: bool = Field(
        False, description="before the repair, try the file with the channels' ranges equalised across layers"
    )
    correct_bias: bool = Field(
        False, description="before the repair, try the file with biases that give fp32's mean to each channel again"
    )

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later keys where nobody asked for them, so that earlier digests stay the same."""
        written: dict[str, Any] = handler(self)
        return {
            key: value for key, value in written.items() if key not in ("equalize", "quicken", "correct_bias") or value
        }


class Int8Keys(Frozen):
    """Keys of the INT8 formats under `export`."""

    calibration: CalibrationConfig = CalibrationConfig()
    weight_bits: Literal[7, 8] = Field(
        7, description="bits of INT8 weights; 8 where every device has VNNI, Arm or a GPU: others may saturate"
    )
    int8: Int8Config = Int8Config()

    @model_serializer(mode="wrap")
    def _without_the_default_repair(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a repair that nobody configured, so that digests from before it stay the same."""
        written: dict[str, Any] = handler(self)
        if self.int8 == Int8Config():
            written.pop("int8", None)
        return written


def calibration_examples(split: ImageSplit, count: int) -> np.ndarray:
    """Return the first `count` examples of the reference split, or all of a smaller one.

    Raises:
        ExportError: the split is not the reference split: validation chooses between the resulting files, and test must
            not be opened.
    """
    if split.role != "reference":
        raise ExportError(f"calibration must see examples of the reference split alone, and was given {split.role!r}")
    inputs = split.batch(torch.arange(min(count, len(split)))).inputs
    return np.ascontiguousarray(inputs.numpy())


def require_sound(examples: np.ndarray, task: Task) -> None:
    """Refuse calibration examples whose ranges would not fit a device's inputs.

    Raises:
        ExportError: they are too few, alike, of another shape or dtype, out of range, or unlike the training data.
    """
    if len(examples) < MIN_EXAMPLES:
        raise ExportError(
            f"calibration has {len(examples)} examples and needs {MIN_EXAMPLES}; raise data.reference_fraction or "
            "export.calibration.examples"
        )
    if examples.shape[1:] != task.input_shape:
        raise ExportError(f"calibration examples have shape {list(examples.shape[1:])}, not {list(task.input_shape)}")
    if len(np.unique(examples.reshape(len(examples), -1), axis=0)) < MIN_EXAMPLES:
        raise ExportError(f"calibration examples are all alike: fewer than {MIN_EXAMPLES} of {len(examples)} differ")
    fault = task.inputs.fault(examples, "calibration")
    if fault is not None:
        raise ExportError(fault)
