"""Contract of the forms a student can ship in; each is one file and one line in `FORMATS`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from edgestill.export.onnx.sessions import RUNTIME, Interface
from edgestill.export.run import Run
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.task import Task

Files = dict[str, bytes]
"""A format's files by suffix; the first is the one to open."""


@dataclass(frozen=True)
class Source:
    """Material to make a format from."""

    onnx: Path  # the fp32 file, checked against the network
    network: nn.Module  # the same function in torch: on the CPU, in evaluation mode
    task: Task
    calibration: np.ndarray  # [N, *input_shape], of the reference split: float32 in [0, 1], or int64 token ids
    correct_bias: bool = False  # of an 8-bit file, if the format does so (`corrects_bias`)


class Format(ABC):
    """Form a student can ship in; makes its file and runs it here.

    A format imports its library inside its methods. If the library is missing here, the format is skipped with the
    reason from `missing`; this is never an error.
    """

    name: str  # key of the table, and in configuration
    precision: str  # fp32 | fp16 | int8
    runtime: str  # onnxruntime (on a CPU) | onnxruntime-cuda | openvino | executorch | tensorrt | …
    suffix: str  # of its first file
    beside: tuple[str, ...] = ()  # of its others
    is_program: bool = False  # True if its runtime trusts its file, which no gate here checks
    needs_network: bool = False  # True if it is made from the network in torch, not from the ONNX file
    corrects_bias: bool = False  # True if it corrects biases of an 8-bit file where the source asks for it
    adds_interface: bool = False  # True if `build` adds the configured interface; else it goes into the ONNX file
    Config: ClassVar[type[Frozen]] = Frozen  # its keys under `export`
    kinds: ClassVar[frozenset[str]] = frozenset({"image", "text"})  # of input of the networks that it takes

    @property
    def is_cpu_onnx(self) -> bool:
        """True if ONNX Runtime runs its file on a CPU, as a bundle's scripts do."""
        return self.runtime == RUNTIME

    def interface(self, configured: Interface) -> Interface:
        """Return the interface of its files: the configured one if it, or ONNX Runtime, can have it; else `raw`."""
        return configured if self.adds_interface or self.runtime.partition("-")[0] == RUNTIME else "raw"

    def missing(self) -> str | None:
        """Return None if it can be built and run here; else a sentence with the missing thing and how to get it."""
        return None

    def is_made_unrun(self) -> bool:
        """True if its file can be made here although `missing` says that nothing here runs it; it never ships then."""
        return False

    @abstractmethod
    def build(self, source: Source, config: Any) -> Files:
        """Build the files; `open` takes the first.

        Args:
            config: settings of export, its own `Config` among them.

        Raises:
            ExportError: there is no such form of this network; says why.
        """

    def variants(self, source: Source, config: Any) -> Iterator[tuple[str, Files]]:
        """Yield (label, files) for each way to make this format; the best on validation is kept."""
        yield "", self.build(source, config)

    def repaired(
        self, source: Source, config: Any, variant: str, holds: Callable[[Files], bool]
    ) -> tuple[Files, dict[str, float]] | None:
        """Build an INT8 variant again with the layers at fault in float, as few as `holds` accepts.

        Returns:
            The files, and the damage of each layer left in float (`export/onnx/repair.py`); None if there is no such
            form, or the format has no way to leave a layer in float.
        """
        return None

    def quickened(
        self, source: Source, config: Any, variant: str, holds: Callable[[Files], bool]
    ) -> tuple[Files, tuple[str, ...]] | None:
        """Build an INT8 variant again with layers in float whose 8-bit form costs time.

        Returns:
            The files, and the layers left in float (`export/onnx/quicken.py`); None if that does not help, or the
            format has no way to leave a layer in float.
        """
        return None

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
