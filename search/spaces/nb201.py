"""NAS-Bench-201 (Dong and Yang 2020, arXiv:2001.00326): a cell of 4 nodes and 6 edges, 5 operations an edge.

The network is the benchmark's own: 3x3 stem, three stages of N cells at C, 2C, 4C channels with a residual block
between them, and BN-ReLU before pooling. Architectures are read and written in the benchmark's string form,
`|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`; there node j lists its edges from nodes 0 … j-1.
"""

import re
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.network import PooledClassifier
from edgestill.pipeline.task import Task
from edgestill.search.space import Architecture, Gene, SearchSpace

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = tuple((source, target) for target in (1, 2, 3) for source in range(target))


class Nb201Config(Frozen):
    """Space of all 15,625 cells of NAS-Bench-201."""

    name: Literal["nb201"] = "nb201"
    channels: int = Field(
        16, ge=1, le=1024, description="channels of the first stage; the next two have 2 and 4 times as many"
    )
    cells: int = Field(5, ge=1, le=50, description="number of cells in each of the three stages")


class Nb201Space(SearchSpace):
    name: ClassVar[str] = "nb201"

    def __init__(self, config: Nb201Config | None = None) -> None:
        self.config = config or Nb201Config()
        self.genes = tuple(Gene(_edge_name(*edge), tuple(range(len(OPERATIONS)))) for edge in EDGES)

    def build(self, architecture: Architecture, task: Task) -> "Nb201Network":
        operations = {edge: OPERATIONS[architecture.choices[_edge_name(*edge)]] for edge in EDGES}
        return Nb201Network(operations, self.config.channels, self.config.cells, task)

    def format(self, architecture: Architecture) -> str:
        def node(target: int) -> str:
            edges = (f"{OPERATIONS[architecture.choices[_edge_name(s, target)]]}~{s}" for s in range(target))
            return "|" + "|".join(edges) + "|"

        return "+".join(node(target) for target in (1, 2, 3))

    def describe(self, architecture: Architecture) -> str:
        chosen = [OPERATIONS[architecture.choices[_edge_name(*edge)]] for edge in EDGES]
        edges = ", ".join(
            f"{operation.replace('_', ' ')} from {source} to {target}"
            for operation, (source, target) in zip(chosen, EDGES, strict=True)
            if operation != "none"
        )
        return f"cells of four nodes, joined by {edges or 'nothing'}"

    def parse(self, text: str) -> Architecture:
        nodes = text.strip().split("+")
        edges = [re.findall(r"([^|~]+)~(\d+)", node) for node in nodes]
        choices: dict[str, int] = {}
        for target, found in enumerate(edges, start=1):
            for operation, source in found:
                if operation not in OPERATIONS:
                    raise self.error(text, f"operation {operation!r} is not one of {', '.join(OPERATIONS)}")
                choices[_edge_name(int(source), target)] = OPERATIONS.index(operation)
        architecture = self.make({gene.name: choices.get(gene.name, 0) for gene in self.genes})
        if set(choices) != {gene.name for gene in self.genes} or self.format(architecture) != text.strip():
            raise self.error(text, "expected the benchmark's form |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
        return architecture

    def embedding_dims(self) -> frozenset[int]:
        return frozenset({4 * self.config.channels})


class Nb201Network(PooledClassifier):
    """Benchmark's network around one cell, given as operations by edge (source, target)."""

    def __init__(self, operations: dict[tuple[int, int], str], channels: int, cells: int, task: Task) -> None:
        super().__init__(task.num_classes, 4 * channels, task.mean, task.std)
        layers: list[nn.Module] = [
            nn.Conv2d(task.input_shape[0], channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        ]
        for stage, width in enumerate((channels, 2 * channels, 4 * channels)):
            if stage:
                layers.append(_Reduction(width // 2, width))
            layers.extend(_Cell(operations, width) for _ in range(cells))
        self.layers = nn.Sequential(*layers)
        self.last_norm = nn.BatchNorm2d(4 * channels)

    def trunk(self, inputs: Tensor) -> Tensor:
        return F.relu(self.last_norm(self.layers(inputs)))

    def blocks(self) -> list[nn.Module]:
        return [layer for layer in self.layers if isinstance(layer, _Cell | _Reduction)]


class _Cell(nn.Module):
    """Cell: node j is the sum over earlier nodes i of operation (i, j); the last node is the output."""

    def __init__(self, operations: dict[tuple[int, int], str], channels: int) -> None:
        super().__init__()
        self.operations = nn.ModuleDict(
            {
                _edge_name(*edge): _OPERATION_MODULES[name](channels)
                for edge, name in operations.items()
                if name != "none"
            }
        )
        self._incoming = {
            target: tuple(source for source in range(target) if operations[source, target] != "none")
            for target in (1, 2, 3)
        }

    def forward(self, inputs: Tensor) -> Tensor:
        nodes = [inputs]
        for target in (1, 2, 3):
            terms = [self.operations[_edge_name(s, target)](nodes[s]) for s in self._incoming[target]]
            nodes.append(sum(terms[1:], terms[0]) if terms else torch.zeros_like(inputs))
        return nodes[-1]


class _ReluConvBN(nn.Module):
    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.norm(self.conv(F.relu(inputs)))
        return outputs


class _Reduction(nn.Module):
    """Benchmark's ResNetBasicblock at stride 2; odd sides are halved upwards, as by the convolution."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv_a = _ReluConvBN(in_channels, channels, 3, stride=2)
        self.conv_b = _ReluConvBN(channels, channels, 3)
        self.downsample = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True), nn.Conv2d(in_channels, channels, 1, bias=False)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        residual: Tensor = self.conv_b(self.conv_a(inputs))
        shortcut: Tensor = self.downsample(inputs)
        return residual + shortcut


_OPERATION_MODULES: dict[str, Callable[[int], nn.Module]] = {
    "skip_connect": lambda channels: nn.Identity(),
    "nor_conv_1x1": lambda channels: _ReluConvBN(channels, channels, 1),
    "nor_conv_3x3": lambda channels: _ReluConvBN(channels, channels, 3),
    "avg_pool_3x3": lambda channels: nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
}


def _edge_name(source: int, target: int) -> str:
    return f"edge{source}{target}"
