"""Table of NNI's hub: the particulars of each of its convolutional spaces. Nothing here imports NNI."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from edgestill.pipeline.errors import ArchitectureError
from edgestill.search.spaces import nni_networks as networks

Sample = dict[str, Any]  # NNI's name of a choice -> the candidate chosen


class Family(NamedTuple):
    """Particulars of a space of the hub."""

    take_apart: Callable[[Any], networks.Parts]
    widths: Callable[[Any], Any]  # NNI's space -> possible widths of the embedding: numbers, or NNI's expression
    for_224: bool = False
    settle: Callable[[Any, Sample], Sample] | None = None  # NNI's space and a sample -> the choices that matter
    mend: Callable[[Any, Sample], Sample] | None = None  # a sample that `settle` refused -> a near valid one
    defaults: dict[str, Any] = {}


def _within_depth(space: Any, sample: Sample) -> Sample:
    """Drop the choices of blocks beyond the depth of their stage."""
    block = re.compile(r"(s\d+)_i(\d+)")
    found = {label: block.match(label) for label in sample}
    return {
        label: value
        for label, value in sample.items()
        if not (place := found[label]) or int(place[2]) < sample.get(f"{place[1]}_depth", 1 + int(place[2]))
    }


def _cell_101(space: Any, sample: Sample) -> Sample:
    """Return the cell with only the vertices and edges between input and output, as NNI prunes it.

    Raises:
        ArchitectureError: the cell has too many edges, or no path from the input to the output.
    """
    sample = dict(sample)
    error = space.check_contains(sample)
    if error is not None:
        raise ArchitectureError(str(error).splitlines()[0])
    pruned = sample["cell/final"]
    vertices = 1 + sum(name.startswith("input") for name in pruned)
    return {"cell/num_nodes": vertices, **{f"cell/{name}": value for name, value in pruned.items()}}


def _mended_101(space: Any, sample: Sample) -> Sample:
    """Wire the cell's input to its output, and take edges from the fullest vertices until they are few enough."""
    edges = next(cell.max_num_edges for cell in space.features if hasattr(cell, "max_num_edges"))
    last = sample["cell/num_nodes"] - 1
    inputs = {i: list(sample[f"cell/input{i}"]) for i in range(1, last + 1)}
    inputs[last] = sorted({0, *inputs[last]})
    while sum(map(len, inputs.values())) > edges:
        max(inputs.values(), key=len).pop()
    return sample | {f"cell/input{i}": found for i, found in inputs.items()}


def _cells(joins_all: bool) -> Family:
    """Make a family like NASNet; a cell's output joins all its nodes, or the loose ends only."""

    def widths(space: Any) -> list[int]:
        choices = [space.width] if isinstance(space.width, int) else space.width
        nodes = space.num_nodes_per_cell
        return [4 * width * joined for width in choices for joined in ([nodes] if joins_all else range(1, nodes + 1))]

    return Family(networks.nasnet, widths)


FAMILIES: dict[str, Family] = {
    "NasBench201": Family(networks.nas_bench_201, lambda space: [4 * space.channels]),
    "NasBench101": Family(
        networks.nas_bench_101,
        lambda space: [space.classifier.in_features],
        settle=_cell_101,
        mend=_mended_101,
        defaults={"bn_momentum": 0.1},  # NNI's 0.003 needs a thousand steps before its statistics mean anything
    ),
    "MobileNetV3Space": Family(networks.mobilenet_v3, lambda s: s.widths[-1], for_224=True, settle=_within_depth),
    "ProxylessNAS": Family(
        networks.proxyless, lambda space: [space.classifier.in_features], for_224=True, settle=_within_depth
    ),
    "ShuffleNetSpace": Family(networks.shufflenet, lambda s: [s.stage_out_channels[-1]], for_224=True),
    "DARTS": _cells(joins_all=True),
    "PNAS": _cells(joins_all=True),
    "ENAS": _cells(joins_all=False),
    "NASNet": _cells(joins_all=False),
    "AmoebaNet": _cells(joins_all=False),
}
