"""Checks of a format: it keeps the contract of `export/formats/base.py`."""

import copy
import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgestill.export.calibration import CalibrationConfig, calibration_examples
from edgestill.export.config import ExportConfig
from edgestill.export.formats import FORMATS, Format, Source
from edgestill.export.onnx.sessions import runner
from edgestill.export.onnx.write import to_onnx
from edgestill.export.run import Run
from edgestill.pipeline.conformance.samples import image_task
from edgestill.pipeline.conformance.suite import Check, NotHereError, require
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.task import Task

PRECISIONS = ("fp32", "fp16", "int8")
QUICK = ExportConfig(calibration=CalibrationConfig(method="minmax"))
MOVED = {"fp32": 0.0, "fp16": 0.02, "int8": 0.25}  # of a logit, by the largest one
ELSEWHERE = {"fp32": 1e-5, "fp16": 0.02}  # by another runtime's arithmetic


def it_is_listed_under_its_own_name_which_chooses_it(form: Format) -> None:
    require(FORMATS.get(form.name) is form, f"the table has no format {form.name!r}, or another")
    chosen = ExportConfig.model_validate({"formats": [form.name]}).formats
    require(form.name in chosen, f"export.formats=[{form.name}] chooses {', '.join(chosen)}")


def it_says_what_it_is(form: Format) -> None:
    require(form.precision in PRECISIONS, f"precision is {form.precision!r}; known: {', '.join(PRECISIONS)}")
    require(form.runtime, "runtime is empty")
    for suffix in (form.suffix, *form.beside):
        require(suffix.startswith("."), f"the suffix {suffix!r} does not begin with a dot")


def what_is_missing_here_is_told_in_one_sentence(form: Format) -> None:
    missing = form.missing()
    require(missing is None or (missing and "\n" not in missing), f"missing() is {missing!r}")


def it_makes_the_files_that_it_names(form: Format) -> None:
    with built(form) as (files, _, _):
        expected = [form.suffix, *form.beside]
        require(list(files) == expected, f"build() gives {', '.join(files)}, not {', '.join(expected)}")
        require(all(isinstance(data, bytes) and data for data in files.values()), "a file is empty, or no bytes")


def it_computes_the_student_whatever_the_batch(form: Format) -> None:
    if form.is_made_unrun():
        raise NotHereError(f"its file is made and not run here: {form.missing()}")
    with built(form) as (_, run, fp32):
        assert run is not None
        require_same_function(form, run, runner(fp32), tinted(300, 2, "validation").images[:].numpy())


CHECKS: tuple[Check, ...] = (
    it_is_listed_under_its_own_name_which_chooses_it,
    it_says_what_it_is,
    what_is_missing_here_is_told_in_one_sentence,
    it_makes_the_files_that_it_names,
    it_computes_the_student_whatever_the_batch,
)


def require_same_function(form: Format, run: Run, reference: Run, images: np.ndarray) -> None:
    """Require the reference's logits at batches of 1, 7 and all, within what the format's precision allows."""
    moved = MOVED if form.runtime == "onnxruntime" else ELSEWHERE
    for size in (1, 7, len(images)):
        logits, expected = run(images[:size]), reference(images[:size])
        require(logits.shape == expected.shape, f"logits of {size} images are {list(logits.shape)}")
        require(logits.dtype == np.float32, f"logits are {logits.dtype}")
        require(np.isfinite(logits).all(), f"logits of {size} images are not finite")
        if form.precision in moved:  # of an INT8 file elsewhere, the gate decides
            share = float(np.abs(logits - expected).max() / np.abs(expected).max())
            require(share <= moved[form.precision], f"logits move by {share:.2g}; {moved[form.precision]:g} is allowed")
            if size == len(images):
                agreed = float((logits.argmax(1) == expected.argmax(1)).mean())
                require(agreed > 0.97, f"{agreed:.1%} of the answers are the student's")


def require_same_graph(found: nn.Module, expected: nn.Module, task: Task) -> None:
    """Require two networks to export as the same operators with weights of the same shapes, in as many bytes."""
    one, other = (to_onnx(network, task.inputs, 20) for network in (found, expected))
    require(_graph(one) == _graph(other), "the exported graph has other operators or weights than the plain student's")
    require(len(one) == len(other), f"the exported file has {len(one):,} bytes; the plain student's {len(other):,}")


@contextmanager
def built(form: Format) -> Iterator[tuple[dict[str, bytes], Run | None, Path]]:
    """Build the format of a tiny student and open it: files by suffix, run, path of the fp32 file.

    The run is None where the file can be made and nothing here runs it.

    Raises:
        NotHereError: its library is missing here.
    """
    missing = form.missing()
    if missing is not None and not form.is_made_unrun():
        raise NotHereError(missing)
    with tempfile.TemporaryDirectory() as folder:
        source = _source(Path(folder))
        files = form.build(source, QUICK)
        for suffix, data in files.items():
            (Path(folder) / f"model{suffix}").write_bytes(data)
        run = None if missing is not None else form.open(Path(folder) / f"model{form.suffix}", 1)
        yield files, run, source.onnx


def _source(folder: Path) -> Source:
    network, data, task = student()
    path = folder / "student.onnx"
    path.write_bytes(data)
    return Source(path, copy.deepcopy(network), task, calibration_examples(tinted(64, 3, "reference"), 64))


@functools.cache
def student() -> tuple[nn.Module, bytes, Task]:
    """Make a small student that is right on nine images of ten or so: network, ONNX file, task."""
    train = tinted(400, 1, "train")
    images = train.images[:]
    means, deviations = images.mean((0, 2, 3)), images.std((0, 2, 3))
    statistics = {"mean": tuple(means.tolist()), "std": tuple(deviations.tolist())}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        # Its own normalisation differs by channel, or an exchange of channels would go unseen.
        network = CifarResNet((1, 1, 1), (8, 12, 16), num_classes=4, mean=(0.3, 0.5, 0.6), std=(0.2, 0.3, 0.4))
        _learn(network, train)
    task = image_task(channels=3, side=12, classes=len(TINTS)).model_copy(update=statistics)
    return network, to_onnx(network, task.inputs, 20), task


TINTS = torch.tensor([[0.3, 0.0, 0.1], [0.0, 0.3, 0.1], [0.1, 0.1, 0.4], [0.2, 0.2, 0.0]])  # of a class, by channel


def tinted(count: int, seed: int, role: str) -> ImageSplit:
    """Images whose class shows as a colour, under noise."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % len(TINTS)
    tint = TINTS[targets] * (0.7 + 0.3 * torch.rand(count, 1, generator=generator))
    images = 0.5 * torch.rand(count, 3, 12, 12, generator=generator) + tint[:, :, None, None]
    return ImageSplit(images, targets, role)


def _learn(network: CifarResNet, split: ImageSplit) -> None:
    """Give the network running statistics of the split, and solve for its last layer by least squares."""
    network.train()
    for _ in range(30):
        network(split.images[:])
    network.eval()
    with torch.no_grad():
        embedding = network.forward_head(network.forward_features(split.images[:]), pre_logits=True).double()
        wide = torch.cat([embedding, torch.ones(len(embedding), 1, dtype=torch.float64)], dim=1)
        wanted = 6 * torch.nn.functional.one_hot(split.targets, network.num_classes).double() - 2
        solved = torch.linalg.lstsq(wide, wanted).solution.float()
        network.linear.weight.copy_(solved[:-1].T)
        network.linear.bias.copy_(solved[-1])


def _graph(data: bytes) -> tuple[list[str], list[tuple[int, ...]]]:
    """Operator types in order, and the shapes of all weights."""
    import onnx

    graph = onnx.load_from_string(data).graph
    return [node.op_type for node in graph.node], sorted(tuple(tensor.dims) for tensor in graph.initializer)
