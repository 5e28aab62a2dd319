"""Probe inputs stored in a bundle with each model's logits for them, to compare on another machine.

They are drawn from a seed, not taken from the data, so no one's examples leave with the model.
"""

from pathlib import Path

import numpy as np

from edgestill.export.bundle.schema import PROBES, Bundle, BundleModel
from edgestill.export.device.answers import INT8_TOLERANCE
from edgestill.export.formats import FORMATS
from edgestill.export.onnx.admission import BATCHES
from edgestill.export.run import Run
from edgestill.pipeline.errors import BundleError, ExportError, first_line

INPUTS = "inputs"
COUNT = BATCHES[-1]
# Allowed distance of a logit from the stored one, relative to the largest stored one (at least 1). The files are equal
# to the byte; processors differ in the order of sums and in fp16 arithmetic. Sums of bytes are exact unless they
# saturate, and saturation must be found (0.15 to 0.6 of the largest logit on ResNets). A value midway between two steps
# may be rounded either way: up to 0.031 where float arithmetic replaced all integer kernels
# (docs/explanation/export.md).
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": INT8_TOLERANCE}


def make_probes(folder: Path, bundle: Bundle) -> bytes:
    """Return the probes of a bundle, with its models in `folder`, as safetensors.

    INT8 models answer without saturation even here on a saturating processor, which is no reference for others.
    """
    from safetensors.numpy import save

    inputs = bundle.task.inputs.probes(COUNT)
    runs = {name: open_model(folder, model, trusted=True, exact=True) for name, model in bundle.models.items()}
    return save({INPUTS: inputs} | {name: run(inputs) for name, run in runs.items()})


def read_probes(data: bytes, bundle: Bundle) -> dict[str, np.ndarray]:
    """Return the inputs, and the logits of each model by its format.

    Raises:
        BundleError: not safetensors, or not the probes of this bundle.
    """
    from safetensors.numpy import load

    try:
        found: dict[str, np.ndarray] = load(data)
    except Exception as error:  # the library's own error type, and any that a hostile header causes
        raise BundleError([f"{PROBES} cannot be read: {first_line(error, 'damaged')[:200]}"]) from None
    task, inputs = bundle.task, found.get(INPUTS)
    kind = task.inputs
    if inputs is None or inputs.dtype != kind.dtype or inputs.shape != (COUNT, *kind.shape):
        raise BundleError(
            [f"{PROBES} must hold {INPUTS!r}, {kind.dtype} {[COUNT, *kind.shape]}, the inputs of this bundle's models"]
        )
    if not kind.is_within(inputs):
        raise BundleError([f"{PROBES} holds {kind.values} outside {kind.limits}"])
    expected = (COUNT, task.num_classes)
    wrong = [name for name in bundle.models if name not in found or found[name].shape != expected]
    wrong += [name for name in bundle.models if name not in wrong and not np.isfinite(found[name]).all()]
    if wrong or set(found) != {INPUTS, *bundle.models}:
        raise BundleError(
            [
                f"{PROBES} must hold {INPUTS!r} and finite logits of shape {list(expected)} of "
                f"{', '.join(bundle.models)}; it holds {', '.join(sorted(found))}"
            ]
        )
    return found


def why_not_run(model: BundleModel, trusted: bool) -> str | None:
    """Return the reason a model cannot or must not run here, which is no fault of its file; None if it can."""
    form = FORMATS[model.format]
    if form.is_program and not trusted:
        return f"a file of {form.runtime} is a program; give --public-key, the key of a signer you trust, to run it"
    return form.missing()


def open_model(
    folder: Path, model: BundleModel, trusted: bool = False, threads: int = 1, *, exact: bool = False
) -> Run:
    """Open a model of a bundle, ready to run.

    Args:
        trusted: the bundle's signer is known, so formats that are programs are opened too.
        exact: as `Format.open_exact`, for reference answers to other processors.

    Raises:
        ExportError: its runtime is not here or refuses it, or it must not be trusted.
    """
    reason = why_not_run(model, trusted)
    if reason is not None:
        raise ExportError(f"{model.file}: {reason}")
    try:
        form = FORMATS[model.format]
        return (form.open_exact if exact else form.open)(folder / model.file, threads)
    except Exception as error:  # the runtimes' error types share no base class
        raise ExportError(f"{model.file} is refused by {model.runtime}: {_line(error)}") from None


def run_checked(run: Run, model: BundleModel, inputs: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the model's logits for these inputs.

    Raises:
        ExportError: its runtime ends with an error; they are of another shape, or not finite.
    """
    try:
        found = np.asarray(run(inputs))
    except Exception as error:  # the runtimes' error types share no base class
        raise ExportError(f"{model.file} does not run on its inputs: {_line(error)}") from None
    expected = (len(inputs), num_classes)
    if found.shape != expected or not np.issubdtype(found.dtype, np.floating) or not np.isfinite(found).all():
        raise ExportError(f"{model.file} gives logits {list(found.shape)}, not {list(expected)} finite ones")
    return found


def _line(error: BaseException) -> str:
    return first_line(error, type(error).__name__)[:200]
