"""Runs a bundle's models in child processes of bounded memory and time, so that no model can end this process."""

import json
from collections.abc import Sequence

import numpy as np
from safetensors.numpy import load, save

from edgestill.export.bundle.probes import open_model
from edgestill.export.bundle.read import OpenedBundle
from edgestill.export.bundle.schema import BundleModel
from edgestill.export.formats import FORMATS
from edgestill.export.onnx.sessions import OUTPUT
from edgestill.export.run import Run
from edgestill.pipeline.child import answer

_MEMORY, _TIMES, _SECONDS = 2**32, 8, 120  # 4 GiB beside some copies of the file
_CHUNK_BYTES = 2**26  # of inputs given to a child at once, if they are run one by one


def open_foreign(opened: OpenedBundle, model: BundleModel, singly: bool = False) -> Run:
    """Open a model of a bundle from elsewhere, ready to run.

    Args:
        singly: run each input by itself, as a user with a single input would.

    Raises:
        ExportError: its runtime is not here or refuses it, or it must not be trusted.
    """
    if FORMATS[model.format].is_cpu_onnx:  # to be bounded: a GPU's driver reserves more addresses than there is memory
        return lambda inputs: _in_chunks(opened.files[model.file], inputs, singly)
    run = open_model(opened.folder, model, opened.trusted)
    return (lambda inputs: np.concatenate([run(single[None]) for single in inputs])) if singly else run


def run_bounded(
    model: bytes, inputs: np.ndarray, names: Sequence[str] = (OUTPUT,), singly: bool = False
) -> dict[str, np.ndarray]:
    """Return the outputs of a checked ONNX model by name, run in a bounded child.

    Raises:
        ChildError: the runtime refuses it, or it needs more memory or time.
    """
    asked = json.dumps({"names": list(names), "singly": singly})
    memory = _MEMORY + _TIMES * len(model) + 4 * inputs.nbytes
    given = save({"inputs": np.ascontiguousarray(inputs)})
    found: dict[str, np.ndarray] = load(
        answer("edgestill.export.onnx.child:outputs", model, given, asked, memory_bytes=memory, seconds=_SECONDS)
    )
    return found


def _in_chunks(model: bytes, inputs: np.ndarray, singly: bool) -> np.ndarray:
    size = max(1, _CHUNK_BYTES // max(1, inputs[0].nbytes)) if singly else len(inputs)
    parts = [inputs[start : start + size] for start in range(0, len(inputs), size)]
    return np.concatenate([run_bounded(model, part, singly=singly)[OUTPUT] for part in parts])
