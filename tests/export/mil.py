"""Computes Core ML programs of small image networks, as Core ML itself runs on Apple's systems alone."""

from typing import Any

import numpy as np
import torch
from torch.nn import functional


def run_program(model: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Compute the outputs of a model's program, in float32.

    Raises:
        KeyError: an operator is not of those here.
    """
    from coremltools.converters.mil.frontend.milproto.load import load

    program = load(model.get_spec(), model.get_spec().specificationVersion, model.weights_dir)
    function = program.functions["main"]
    values: dict[str, Any] = {name: torch.from_numpy(array) for name, array in inputs.items()}
    for operation in function.operations:
        if operation.op_type == "const":  # read where it is used
            continue
        made = OPERATORS[operation.op_type]({key: _value(given, values) for key, given in operation.inputs.items()})
        values[operation.outputs[0].name] = made
    return {output.name: values[output.name].numpy() for output in function.outputs}


def _value(given: Any, values: dict[str, Any]) -> Any:
    """A variable's value; of a tuple of them, theirs. Numbers are float32."""
    if isinstance(given, list | tuple):
        return [_value(one, values) for one in given]
    if given is None or given.name in values:
        return None if given is None else values[given.name]
    found = given.val
    if isinstance(found, np.ndarray):
        return torch.from_numpy(found.astype(np.float32) if found.dtype == np.float16 else found)
    return float(found) if isinstance(found, np.floating) else found


def _convolved(given: dict[str, Any]) -> torch.Tensor:
    assert given["pad_type"] in ("custom", "valid")
    top, bottom, left, right = given["pad"].tolist() if given["pad_type"] == "custom" else (0, 0, 0, 0)
    padded = functional.pad(given["x"], (left, right, top, bottom))
    steps, spacing = given["strides"].tolist(), given["dilations"].tolist()
    return functional.conv2d(padded, given["weight"], given.get("bias"), steps, 0, spacing, int(given["groups"]))


def _axes(given: dict[str, Any]) -> tuple[int, ...]:
    return tuple(given["axes"].tolist())


def _unpacked(given: dict[str, Any]) -> torch.Tensor:
    """8-bit weights with a scale a channel, as floats."""
    data = given["quantized_data"].float()
    sides = [1] * data.ndim
    sides[int(given["axis"])] = -1
    scale, zero = (torch.as_tensor(given[name]).float().reshape(sides) for name in ("scale", "zero_point"))
    return (data - zero) * scale


OPERATORS: dict[str, Any] = {
    "constexpr_affine_dequantize": _unpacked,
    "cast": lambda given: given["x"].float(),
    "sub": lambda given: given["x"] - given["y"],
    "mul": lambda given: given["x"] * given["y"],
    "real_div": lambda given: given["x"] / given["y"],
    "add": lambda given: given["x"] + given["y"],
    "relu": lambda given: given["x"].relu(),
    "conv": _convolved,
    "reduce_mean": lambda given: given["x"].mean(_axes(given), bool(given["keep_dims"])),
    "linear": lambda given: functional.linear(given["x"], given["weight"], given.get("bias")),
}
