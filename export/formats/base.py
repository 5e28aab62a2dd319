"""Contract of the forms a student can ship in; each is one file and one line in `FORMATS`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import nn

from edgestill.export.run import Run
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.task import Task

if TYPE_CHECKING:  # export.config imports the table of formats: a cycle at run time
    from edgestill.export.config import ExportConfig


@dataclass(frozen=True)
class Source:
    """Material to make a format from."""

    onnx: Path  # the fp32 file, checked against the network
    network: nn.Module  # the same function in torch: on the CPU, in evaluation mode
    task: Task
    calibration: np.ndarray  # [N, *input_shape], of the reference split: float32 in [0, 1], or int64 token ids


class Format(ABC):
    """Form a student can ship in; makes its file and runs it here.

    A format imports its library inside its methods. If the library is missing here, the format is skipped with the
    reason from `missing`; this is never an error.
    """

    name: ClassVar[str]  # key of the table, and in configuration
    precision: ClassVar[str]  # fp32 | fp16 | int8
    runtime: ClassVar[str]  # onnxruntime (on a CPU) | onnxruntime-cuda | openvino | executorch | tensorrt | …
    suffix: ClassVar[str]  # of its first file
    beside: ClassVar[tuple[str, ...]] = ()  # of its others

    def __init__(self, config: "ExportConfig") -> None:
        self.config = config

    def missing(self) -> str | None:
        """Return None if it can be built and run here; else a sentence with the missing thing and how to get it."""
        return None

    @abstractmethod
    def build(self, source: Source) -> dict[str, bytes]:
        """Build the files, by suffix (`.onnx`); `open` takes the first.

        Raises:
            ExportError: there is no such form of this network; says why.
        """

    def variants(self, source: Source) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Yield (label, files) for each way to make this format; the best on validation is kept."""
        yield "", self.build(source)

    @abstractmethod
    def open(self, path: Path, threads: int) -> Run:
        """Open the first file to run it, with its others beside it under the same stem.

        Raises:
            ExportError: the runtime refuses the file; says why.
        """

    def open_exact(self, path: Path, threads: int) -> Run:
        """Open as `open` does, but without saturation of 8-bit products on any processor, for reference answers."""
        return self.open(path, threads)

    def saturable(self, path: Path) -> int | None:
        """Count an INT8 file's products that may saturate on processors without VNNI; None if it has none on a CPU."""
        return None

    def elsewhere(self, path: Path, threads: int) -> Run:
        """Open a saturable file to run as on processors of the other kind: exact if this one saturates, or vice versa.

        Raises:
            ExportError: that is not imitated; says why.
        """
        raise ExportError(f"{self.runtime}'s kernels on other processors are not imitated")
