"""Compares a bundle's INT8 answers on this processor with those on its maker's, by the probes beside the file.

A part of the scripts that ship: it needs numpy and onnxruntime, and reads safetensors without their library.
"""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

OTHERWISE = "this processor computes INT8 differently: use fp32"
INT8_TOLERANCE = 5e-2  # of the largest stored logit, at least 1; export.probes says why
_PROBES, _PROBED = "probes.safetensors", "inputs"
_MOST_PROBE_BYTES, _MOST_HEADER_BYTES = 2**28, 2**20
_TENSOR_TYPES = {"F32": "<f4", "I64": "<i8"}


def open_default(folder: Path, card: Mapping[str, Any]) -> Any:
    """Open the bundle's default model; if INT8 is computed differently here, open fp32 instead, with a note."""
    models = card["models"]
    chosen, fp32 = models[card["default"]], models.get("fp32", {}).get("file", "")
    session = open_on_cpu(folder / chosen["file"])
    note = int8_note(chosen, folder, session)
    if OTHERWISE in note and fp32.endswith(".onnx") and (folder / fp32).is_file():
        print(f"note: {note}; {fp32} answers instead", file=sys.stderr)
        return open_on_cpu(folder / fp32)
    if note:
        print(f"warning: {note}", file=sys.stderr)
    return session


def open_on_cpu(path: Path) -> Any:
    """Open a file as an application on a device would."""
    import onnxruntime  # late, for a profile measures this import

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def int8_note(model: Mapping[str, Any], folder: Path, session: Any = None) -> str:
    """Return a clause if an INT8 model answers the probes differently than stored, or cannot be checked; else "".

    Args:
        model: its entry in bundle.json.
        session: an open one of its file, if there is one.
    """
    if model.get("precision") != "int8":
        return ""
    try:
        session = session or open_on_cpu(folder / model["file"])
        probes = read_probe_file(folder / _PROBES)
        expected = probes[model["format"]]
        found = session.run(["logits"], probe_feed(session, probes[_PROBED]))[0]
    except Exception as error:  # the runtime's error types share no base class
        return f"whether INT8 is computed here as it was at its maker's is not known: {_PROBES} does not tell ({error})"
    said = off_by(found, expected, INT8_TOLERANCE)
    return f"{model['file']}: {OTHERWISE} ({said})" if said else ""


def off_by(found: np.ndarray, expected: np.ndarray, tolerance: float) -> str:
    """Describe the distance of logits from the stored ones if it is too large, or NaN; else ""."""
    allowed = tolerance * max(1.0, float(np.abs(expected).max()))
    worst = float(np.abs(found - expected).max()) if found.shape == expected.shape else math.inf
    if worst <= allowed:
        return ""
    return f"logits are off by up to {worst:.2g} on {len(expected)} probe inputs, {allowed:.2g} is allowed"


def probe_feed(session: Any, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Return the probes in the file's form: token ids and their mask, 8-bit images, or floats in [0, 1]."""
    given = session.get_inputs()[0]
    if inputs.dtype == np.int64:
        tokens = {"input_ids": inputs, "attention_mask": (inputs != 0).astype(np.int64)}
        return tokens | empty_cache(session, len(inputs))
    if given.type == "tensor(uint8)":
        return {given.name: np.round(inputs * 255).astype(np.uint8).transpose(0, 2, 3, 1)}
    return {given.name: inputs}


def empty_cache(session: Any, batch: int) -> dict[str, np.ndarray]:
    """Return a language model's cache of no token, by its name; nothing for other files."""
    past = next((item.shape[1:] for item in session.get_inputs() if item.name == "past"), None)
    if past is None:
        return {}
    return {"past": np.zeros((batch, *(side if isinstance(side, int) else 0 for side in past)), np.float32)}


def read_probe_file(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a safetensors file: eight bytes of length, a JSON header, raw numbers.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: it is no such file, or larger than probes are.
    """
    if not path.is_file() or path.stat().st_size > _MOST_PROBE_BYTES:
        raise ValueError(f"no plain file of at most {_MOST_PROBE_BYTES:,} bytes")
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if length > min(_MOST_HEADER_BYTES, len(data) - 8):
        raise ValueError("its header is too long")
    numbers, found = data[8 + length :], {}
    for name, tensor in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = tensor["data_offsets"]
            count = math.prod(tensor["shape"])
            if not 0 <= begin <= end <= len(numbers):
                raise ValueError(f"{name[:80]!r} lies outside the file")
            values = np.frombuffer(numbers[begin:end], _TENSOR_TYPES[tensor["dtype"]])
            if len(values) != count:
                raise ValueError(f"{name[:80]!r} has another shape")
            found[name] = values.reshape(tensor["shape"])
    return found
