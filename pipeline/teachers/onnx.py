"""ONNX files as teachers: black boxes that ONNX Runtime runs, `teacher: onnx:model.onnx`."""

# B batch, K classes, D embedding width

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from edgestill.pipeline.errors import CheckpointError, first_line
from edgestill.pipeline.foreign import read_bounded
from edgestill.pipeline.frozen import Frozen, GivenPath, existing_file
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.runs.checkpoint import read_metadata, read_weights
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.adapted.family import ForeignConfig
from edgestill.pipeline.teachers.adapted.labels import configured_names, match_labels
from edgestill.pipeline.teachers.adapted.onnx_graph import (
    EMBEDDING,
    INPUT,
    LOGITS,
    Graph,
    count_graph,
    for_export,
    joined,
    read_graph,
)
from edgestill.pipeline.teachers.adapted.pixels import Pixels, Sight
from edgestill.pipeline.teachers.teacher import FileTeacher, Part

_MOST_BYTES = 2**31


class OnnxConfig(ForeignConfig):
    name: Literal["onnx"] = "onnx"
    file: GivenPath = Field(description="ONNX file of a classifier of images [batch, C, H, W]")
    embedding: str | None = Field(
        None, description="node whose output is the embedding; null: methods get logits alone"
    )

    @field_validator("file")
    @classmethod
    def _exists(cls, path: Path, info: ValidationInfo) -> Path:
        return existing_file(path, info)


class OnnxNetwork(nn.Module):
    """A joined graph (`adapted/onnx_graph.py`) with its bytes as a buffer, so that weights files hold all of it."""

    def __init__(self, data: bytes, cautions: tuple[str, ...] = ()) -> None:
        """Open it.

        Raises:
            CheckpointError: ONNX Runtime does not run it.
        """
        super().__init__()
        self.register_buffer("model", torch.frombuffer(bytearray(data), dtype=torch.uint8))
        self.cautions = cautions
        self._session: Any = None
        self._has_embedding = len(self._opened().get_outputs()) > 1
        self.num_classes = 0
        self.embedding_dim: int | None = None

    @property
    def gives(self) -> frozenset[str]:
        return frozenset({"logits", "inputs", *(["embedding"] if self._has_embedding else [])})

    @property
    def onnx_bytes(self) -> bytes:
        """The file of the network, for export."""
        return for_export(bytes(self.get_buffer("model").cpu().numpy()))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.look(inputs).logits

    def look(self, inputs: Tensor) -> View:
        given = np.ascontiguousarray(inputs.detach().cpu().float().numpy())
        names = [LOGITS, EMBEDDING] if self._has_embedding else [LOGITS]
        found = [torch.from_numpy(part).to(inputs.device) for part in self._opened().run(names, {INPUT: given})]
        nothing = found[0].new_empty(len(found[0]), 0)
        return View(nothing, found[1] if self._has_embedding else nothing, found[0])

    def forward_features(self, inputs: Tensor) -> Tensor:
        return self.look(inputs).features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        raise NotImplementedError("a black box cannot go on from features; use look()")

    def get_classifier(self) -> nn.Module:
        return nn.Identity()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}  # copies open their own

    def _opened(self) -> Any:
        if self._session is None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4  # fatal alone; errors are raised
            options.intra_op_num_threads = torch.get_num_threads()
            options.add_session_config_entry("session.load_model_format", "ONNX")
            data = bytes(self.get_buffer("model").cpu().numpy())
            try:
                self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # the runtime's own errors
                raise CheckpointError(f"the teacher's ONNX file cannot be run: {first_line(error)[:200]}") from None
        return self._session


class OnnxTeacher(FileTeacher):
    name: ClassVar[str] = "onnx"
    kinds: ClassVar[frozenset[str]] = frozenset({"image"})
    Config: ClassVar[type[Frozen]] = OnnxConfig
    config: OnnxConfig

    @property
    def gives(self) -> frozenset[Part]:
        parts: frozenset[Part] = frozenset({"logits", "inputs"})
        return parts if self.config.embedding is None else parts | {"embedding"}

    def build(self, task: Task) -> nn.Module:
        """Open the file with its own weights: it has no others."""
        path = self.config.file
        given = read_graph(read_bounded(path, _MOST_BYTES, CheckpointError), path)
        pixels = Pixels(task.input_shape, self._sight(given, task))
        plain = self._tried(
            OnnxNetwork(joined(given, pixels, task.input_shape, log=False, order=None, embedding=None)), task
        )
        is_log = self.config.answers == "probabilities" or (
            self.config.answers == "auto" and bool((plain >= 0).all()) and bool(((plain.sum(1) - 1).abs() < 1e-3).all())
        )
        names = configured_names(self.config, task.labels) or _names(given)
        matched = match_labels(names, task.labels, plain.shape[1], f"the teacher {self.title}")
        cautions = (matched.caution,) if matched.caution else ()
        options: dict[str, Any] = {"log": is_log, "order": matched.order, "embedding": self.config.embedding}
        network = OnnxNetwork(joined(given, pixels, task.input_shape, **options), cautions)
        self._tried(network, task)
        return network

    def load(self, task: Task, path: Path) -> nn.Module:
        if path == self.source:
            return self.build(task)
        network = self.restored(task, read_weights(path), path)
        self.check(read_metadata(path), task, path)
        return network

    def restored(self, task: Task, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
        held = tensors.get("model")
        if held is None:
            raise CheckpointError(f"{path} is no copy of an ONNX teacher; delete the run's teacher folder")
        network = OnnxNetwork(held.numpy().tobytes())
        self._tried(network, task)
        return network

    def count(self, task: Task) -> tuple[int, int] | None:
        network = self.build(task)
        assert isinstance(network, OnnxNetwork)
        return count_graph(network.onnx_bytes)

    def refusal(self, task: Task, fitting: Sequence[str]) -> str:
        return f"teacher: {self.title} takes no {task.kind}; hf:, a function of your own, and {', '.join(fitting)} do"

    def _sight(self, given: Graph, task: Task) -> Sight:
        channels, height, width = given.shape
        size = None if height is None or width is None else (height, width)
        return self.config.seen(Sight(channels or task.input_shape[0], size, stretch=True))

    def _tried(self, network: OnnxNetwork, task: Task) -> Tensor:
        """Run two images, and note the widths; return the logits."""
        images = torch.rand(2, *task.input_shape, generator=torch.Generator().manual_seed(0))
        try:
            view = network.look(images)
        except Exception as error:  # the runtime's own errors
            raise CheckpointError(
                f"{self.config.file} cannot take 2 of the data's images at once: {first_line(error)[:200]}; export it "
                "with a dynamic batch, and set teacher.size if its images have another size"
            ) from None
        if view.logits.dim() != 2:
            raise CheckpointError(
                f"{self.config.file} answers with {list(view.logits.shape)}; logits [batch, classes] are needed"
            )
        network.num_classes = view.logits.shape[1]
        network.embedding_dim = view.embedding.shape[1] or None
        return view.logits


def _names(given: Graph) -> tuple[str, ...] | None:
    """Read the classes' names from the file's metadata, as Ultralytics and others write them; None: there are none."""
    for entry in given.model.metadata_props:
        if entry.key in ("names", "labels", "classes", "class_names") and len(entry.value) < 2**20:
            try:
                found = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                found = entry.value.split(",")
            names = list(found.values()) if isinstance(found, dict) else found
            if isinstance(names, list | tuple) and len(names) > 1:
                return tuple(str(name).strip() for name in names)
    return None
