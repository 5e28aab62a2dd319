"""Shallow networks: a few convolutions, each of which halves the image, all of one width; `d3w16` has 3 of 16."""

import re
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.network import PooledClassifier
from edgestill.pipeline.task import Task
from edgestill.search.space import Architecture, Gene, SearchSpace


class ShallowConfig(Frozen):
    """Choices of depth and width."""

    name: Literal["shallow"] = "shallow"
    depth: tuple[int, ...] = Field((2, 3, 4), description="of convolutions")
    width: tuple[int, ...] = Field((8, 16, 24, 32), description="of every convolution")


class Shallow(PooledClassifier):
    def __init__(self, depth: int, width: int, task: Task) -> None:
        super().__init__(task.num_classes, width, task.mean, task.std)
        channels = [task.input_shape[0], *[width] * depth]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise(channels)
        )

    def trunk(self, inputs: Tensor) -> Tensor:
        for layer in self.layers:
            inputs = layer(inputs)
        return inputs

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)[1:]


class ShallowSpace(SearchSpace):
    name: ClassVar[str] = "shallow"
    Config: ClassVar[type[Frozen]] = ShallowConfig

    def __init__(self, config: ShallowConfig) -> None:
        self.genes = (Gene("depth", config.depth), Gene("width", config.width))

    def build(self, architecture: Architecture, task: Task) -> Shallow:
        return Shallow(**architecture.choices, task=task)

    def format(self, architecture: Architecture) -> str:
        return "d{depth}w{width}".format(**architecture.choices)

    def parse(self, text: str) -> Architecture:
        found = re.fullmatch(r"d([1-9])w([1-9]\d{0,2})", text.strip())
        if found is None:
            raise self.error(text, "expected d and a depth of 1 to 9, w and a width of 1 to 999, such as d3w16")
        return self.make({"depth": int(found[1]), "width": int(found[2])})

    def embedding_dims(self) -> frozenset[int]:
        return frozenset(self.genes[1].choices)
