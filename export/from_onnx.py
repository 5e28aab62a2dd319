"""Other formats of an ONNX file from elsewhere, each compared with it; there are no labels, so nothing is judged."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from edgestill.export.benchmark.inputs import inputs_of, load_examples
from edgestill.export.bundle.read import check_onnx, open_bundle
from edgestill.export.config import ExportConfig
from edgestill.export.formats import FORMATS, Format, Source
from edgestill.export.onnx.admission import BATCHES
from edgestill.export.onnx.sessions import INPUT, MASK, OUTPUT, TOKENS, runner
from edgestill.export.parity import measure_parity
from edgestill.export.result import Absent, Parity
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.errors import EdgestillError, ExportError, first_line
from edgestill.pipeline.figures import size
from edgestill.pipeline.task import Task

_RANDOM = 64  # inputs to compare on, where nobody gave real ones


class Made(NamedTuple):
    """A format's files, compared with the ONNX file."""

    format: str
    paths: tuple[Path, ...]
    size_bytes: int
    parity: Parity


def export_onnx(
    data: bytes, task: Task, examples: np.ndarray | None, config: ExportConfig, folder: Path
) -> list[Made | Absent]:
    """Write the configured formats of a checked ONNX file below a folder, fp32 first.

    Args:
        data: its input is `images`, or `input_ids` and `attention_mask`, and its output `logits` (`with_our_names`).
        examples: real inputs [N, *input_shape], for calibration; None: formats that calibrate are not made.
    """
    found: list[Made | Absent] = []
    inputs = task.inputs.probes(_RANDOM) if examples is None else examples
    fp32 = folder / "model.onnx"
    fp32.write_bytes(data)
    source = Source(onnx=fp32, network=torch.nn.Identity(), task=task, calibration=inputs)
    for name in config.formats:
        why = _why_not(FORMATS[name], examples)
        found.append(why if why is not None else _made(FORMATS[name], source, config, folder))
    return found


def checked_model(path: Path, inputs: Path | None) -> tuple[bytes, Task, np.ndarray | None]:
    """Return a bundle's fp32 file, or an ONNX file with our names, both checked; its task, and real inputs if given.

    Raises:
        BundleError: the bundle or file is damaged, or holds something no classifier needs.
        ConfigError: the inputs' file holds something else than inputs of the task.
        ExportError: there is no fp32 file that takes floats or token ids, or the file is no classifier.
    """
    if path.suffix == ".onnx" and path.is_file():
        examples = None if inputs is None else load_examples(inputs)
        length = 1 if examples is None else examples.shape[-1]
        data = with_our_names(check_onnx(path, BATCHES, length))
        task = task_of(data, examples)
        return data, task, None if inputs is None else inputs_of(task, inputs)[0]
    with open_bundle(path) as opened:
        model, task = opened.bundle.models.get("fp32"), opened.bundle.task
        if model is None or model.interface != "raw":
            raise ExportError(
                f"{path} has no fp32 file that takes floats; `edgestill export RUN` makes it from its run"
            )
        return opened.model_bytes("fp32"), task, None if inputs is None else inputs_of(task, inputs)[0]


def with_our_names(data: bytes) -> bytes:
    """Return the model with its one input called `images` and its one output `logits`; a text's names stay.

    Raises:
        ExportError: it has other ends, or a batch of one size alone.
    """
    import onnx

    model = onnx.load_model_from_string(data)
    held = {tensor.name for tensor in model.graph.initializer}
    given, made = [value for value in model.graph.input if value.name not in held], list(model.graph.output)
    names = ", ".join(value.name for value in (*given, *made))
    if len(made) != 1 or (len(given) != 1 and {value.name for value in given} != {TOKENS, MASK}):
        raise ExportError(f"a classifier has one input, or {TOKENS} and {MASK}, and one output; this file has {names}")
    if not all(value.type.tensor_type.shape.dim[0].dim_param for value in (*given, *made)):
        raise ExportError(f"the file takes a batch of one size alone; export it with a dynamic batch ({names})")
    changes = {made[0].name: OUTPUT, **({given[0].name: INPUT} if len(given) == 1 else {})}
    for node in model.graph.node:
        node.input[:] = [changes.get(name, name) for name in node.input]
        node.output[:] = [changes.get(name, name) for name in node.output]
    for value in (*given, *made, *model.graph.value_info):
        value.name = changes.get(value.name, value.name)
    return bytes(model.SerializeToString())


def task_of(data: bytes, examples: np.ndarray | None) -> Task:
    """Return a task for a file with our names: its shapes, numbers for labels, and the examples' mean and deviation.

    Raises:
        ExportError: it is no classifier of images or of texts whose length is told.
    """
    import onnx

    graph = onnx.load_model_from_string(data).graph
    classes = graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    sides = tuple(side.dim_value for side in graph.input[0].type.tensor_type.shape.dim[1:])
    shape = sides if examples is None else tuple(examples.shape[1:])
    if classes < 2 or len(shape) not in (1, 3) or min(shape) < 1:
        raise ExportError(f"the file is no classifier of images [batch, C, H, W] or texts: {list(shape)} to {classes}")
    labels = tuple(map(str, range(classes)))
    if len(shape) == 1:
        largest = 2 if examples is None else int(examples.max()) + 1
        return Task(kind="text", labels=labels, input_shape=shape, vocab_size=largest)
    pixels = np.full((1, *shape), 0.5, np.float32) if examples is None else examples
    mean, std = pixels.mean((0, 2, 3)), np.maximum(pixels.std((0, 2, 3)), 1.0 if examples is None else 1e-3)
    return Task(labels=labels, input_shape=shape, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def _why_not(form: Format, examples: np.ndarray | None) -> Absent | None:
    missing = form.missing()
    if missing is not None:
        return Absent(format=form.name, reason=missing, skipped=True)
    if form.needs_network:
        why = "it is made from the network in torch: `edgestill export RUN` makes it"
        return Absent(format=form.name, reason=why, skipped=True)
    if form.precision == "int8" and examples is None:
        why = "it is calibrated on real examples: give --inputs FILE.npy"
        return Absent(format=form.name, reason=why, skipped=True)
    return None


def _made(form: Format, source: Source, config: ExportConfig, folder: Path) -> Made | Absent:
    stem = "model" if form.name == "fp32" else f"model.{form.name}"
    try:
        files = form.build(source, config)
        paths = [folder / f"{stem}{suffix}" for suffix in files]
        for path, data in zip(paths, files.values(), strict=True):
            path.write_bytes(data)
        split = ImageSplit(
            torch.from_numpy(source.calibration), torch.zeros(len(source.calibration)).long(), "reference"
        )
        parity = measure_parity(runner(source.onnx), form.open(paths[0], 1), {"examples": split}, source.task.inputs)
    except EdgestillError as error:
        return Absent(format=form.name, reason=str(error), skipped=False)
    except Exception as error:  # a format's library has error types of its own
        return Absent(format=form.name, reason=f"{type(error).__name__}: {first_line(error)}", skipped=False)
    return Made(form.name, tuple(paths), sum(map(len, files.values())), parity)


def lines_of(found: Sequence[Made | Absent]) -> list[str]:
    """Tell of each format its size and distance from fp32, or why it is not there."""
    return [_line(one) for one in found]


def _line(one: Made | Absent) -> str:
    if isinstance(one, Absent):
        return f"{one.format} {'skipped' if one.skipped else 'failed'}: {one.reason}"
    parity: Any = one.parity
    low, high = parity.agreement_interval
    return (
        f"{one.format}: {', '.join(path.name for path in one.paths)}, {size(one.size_bytes)}; answers as fp32 on "
        f"{parity.top1_agreement:.2%} of {parity.n:,} inputs [{100 * low:.1f}, {100 * high:.1f}], logits within "
        f"{parity.max_abs_difference:.1e}"
    )
