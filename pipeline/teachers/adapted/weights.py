"""Files of weights from elsewhere: their names, their number of classes, and loading them into a foreign network."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from edgestill.pipeline.errors import CheckpointError
from edgestill.pipeline.runs.checkpoint import load_tensors, read_weights
from edgestill.pipeline.task import Task

_WRAPPERS = ("module.", "model.", "_orig_mod.", "net.", "network.", "teacher.", "backbone.")


class Held(NamedTuple):
    """Facts about a network that a file of weights tells."""

    outputs: int | None  # of its last matrix
    channels: int | None  # of its first convolution


def held_by(path: Path, stem: str | None = None) -> Held:
    """Read the number of outputs and of channels from a file of weights.

    Args:
        stem: name of the network's first convolution; None: nobody knows it, and no channels are told. The first one in
            a file may be another: safetensors sorts by name, and a depthwise one has a channel too.

    Raises:
        CheckpointError: the file cannot be read, or is a pickle that would run code.
    """
    tensors = read_weights(path)
    stems = (t for name, t in tensors.items() if f".{name}".endswith(f".{stem}.weight") and t.dim() == 4)
    first = next(stems, None)
    matrices = [name for name, t in tensors.items() if t.dim() == 2 and name.endswith("weight")]
    biased = [name for name in matrices if _bias_fits(tensors, name)]
    last = (_heads(biased) or _heads(matrices) or biased or matrices)[-1:]
    return Held(
        len(tensors[last[0]]) if last else None,
        int(first.shape[1]) if first is not None and first.shape[1] in (1, 3) else None,
    )


def load_foreign(network: nn.Module, path: Path, head: str | None, who: str, task: Task) -> None:
    """Load a file's weights into a foreign network; wrappers' prefixes are stripped.

    Args:
        head: name of its classifier.

    Raises:
        CheckpointError: they do not fit exactly.
    """
    own = network.state_dict()
    tensors = _unwrapped(read_weights(path), own)
    held = tensors.get(f"{head}.weight")
    mine = own.get(f"{head}.weight")
    if held is not None and mine is not None and held.dim() == mine.dim() and len(held) != len(mine):
        raise CheckpointError(
            f"{path} tells {len(held)} classes apart, and the data have {task.num_classes}; fine-tune {who} on the "
            "data first, or set teacher.finetune to true, where the family has it: a new head is then trained here "
            "with teacher.training"
        )
    load_tensors(network, tensors, path)


def load_backbone(network: nn.Module, path: Path, head: str | None) -> None:
    """Load a file's weights but for those of the head, which stays fresh.

    Raises:
        CheckpointError: the others do not fit.
    """
    own = network.state_dict()
    tensors = _unwrapped(read_weights(path), own)
    fresh = {name: own[name] for name in own if head is not None and name.startswith(f"{head}.")}
    load_tensors(network, {name: t for name, t in tensors.items() if name not in fresh} | fresh, path)


def _unwrapped(tensors: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the wrapper's prefix, and leave out what lies beside it, such as a loss's weights."""
    best, most = tensors, sum(name in own for name in tensors)
    frontier = [tensors]
    for _ in range(3):  # wrappers in wrappers
        frontier = [_stripped(one, prefix) for one in frontier for prefix in _WRAPPERS]
        for candidate in frontier:
            count = sum(name in own for name in candidate)
            if count > most:
                best, most = candidate, count
        frontier = [candidate for candidate in frontier if candidate]
    return best


def _stripped(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _bias_fits(tensors: Mapping[str, Tensor], name: str) -> bool:
    bias = tensors.get(name.removesuffix("weight") + "bias")
    return bias is not None and len(bias) == len(tensors[name])


def _heads(names: list[str]) -> list[str]:
    """Names that are a classifier's by custom."""
    return [name for name in names if {"fc", "head", "classifier", "linear"} & set(name.split("."))]
