"""What every form that a student can ship in is asked for; one form a file, and one line in `FORMATS`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import numpy as np
from torch import nn

from pipeline.errors import ExportError
from pipeline.task import Task

if TYPE_CHECKING:  # configuration checks its names against the table
    from export.config import ExportConfig

Run = Callable[[np.ndarray], np.ndarray]
"""Images [B, C, H, W] float32 in [0, 1], or token ids [B, T] int64, to logits [B, K] float32."""


@runtime_checkable
class Parted(Protocol):
    """A `Run` on a device of its own, whose calls consist of copies and of what the device does between them."""

    def __call__(self, inputs: np.ndarray) -> np.ndarray: ...

    def parts(self, inputs: np.ndarray) -> dict[str, Callable[[], object]]:
        """`copy_in`, `execute`, `copy_out`, each to be timed by itself, and `call`, all of them."""


@dataclass(frozen=True)
class Source:
    """What a format is made from."""

    onnx: Path  # the fp32 file, checked against the network
    network: nn.Module  # the same function in torch: on the CPU, in evaluation mode
    task: Task
    calibration: np.ndarray  # [N, *input_shape], of the reference split: float32 in [0, 1], or int64 token ids


class Format(ABC):
    """A form that a student can ship in: how its file is made, and how it is run here.

    A format imports its library inside its methods. One whose library is missing here is skipped with the reason that
    `missing` gives; that is never an error.
    """

    name: ClassVar[str]  # key of the table, and in configuration
    precision: ClassVar[str]  # fp32 | fp16 | int8
    runtime: ClassVar[str]  # onnxruntime (on a CPU) | onnxruntime-cuda | openvino | executorch | tensorrt | …
    suffix: ClassVar[str]  # of its first file
    beside: ClassVar[tuple[str, ...]] = ()  # of its others

    def __init__(self, config: "ExportConfig") -> None:
        self.config = config

    def missing(self) -> str | None:
        """None where it can be built and run here; else one sentence: what is missing and how to get it."""
        return None

    @abstractmethod
    def build(self, source: Source) -> dict[str, bytes]:
        """The files by suffix (`.onnx`), the one that is opened first.

        Raises:
            ExportError: there is no such form of this network; says why.
        """

    def variants(self, source: Source) -> Iterator[tuple[str, dict[str, bytes]]]:
        """(what sets it apart, files) of each way to make this format; the best on validation is kept."""
        yield "", self.build(source)

    @abstractmethod
    def open(self, path: Path, threads: int) -> Run:
        """Runs the first file, with its others beside it under the same stem.

        Raises:
            ExportError: the runtime refuses the file; says why.
        """

    def open_exact(self, path: Path, threads: int) -> Run:
        """As `open`, but 8-bit products do not saturate on any processor: what the file means, to be stored."""
        return self.open(path, threads)

    def saturable(self, path: Path) -> int | None:
        """How many products of an INT8 file may saturate on processors without VNNI; None: it is not for such ones."""
        return None

    def elsewhere(self, path: Path, threads: int) -> Run:
        """Runs a saturable file as processors of the other kind do: exact where this one saturates, or the other way.

        Raises:
            ExportError: that is not imitated; says why.
        """
        raise ExportError(f"{self.runtime}'s kernels on other processors are not imitated")
