"""Answers in a file as a teacher, `teacher: outputs:answers.npz`: of an API, or of an ensemble made elsewhere.

A row is found by the example's id: the path below the data's folder, or the file and the place in it, such as
`train/17`; `edgestill data CONFIG --ids FILE` writes those of all examples. The network that stands for such a teacher
knows the data's own examples alone, by their content, so nothing may be augmented.
"""

# N rows, K classes, D embedding width, B batch

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from edgestill.pipeline.data.datasets.npz_sizes import ZIP_ERRORS, require_plausible
from edgestill.pipeline.data.datasets.table import Format, read_rows
from edgestill.pipeline.data.rows import picture_digest
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.data.stored import StoredImages
from edgestill.pipeline.errors import CheckpointError, first_line
from edgestill.pipeline.frozen import Frozen, GivenPath, existing_file
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.runs.checkpoint import read_weights
from edgestill.pipeline.task import Labels, Task
from edgestill.pipeline.teachers.adapted.labels import configured_names, match_labels
from edgestill.pipeline.teachers.adapted.network import Answers, are_probabilities
from edgestill.pipeline.teachers.teacher import FamilyConfig, FileTeacher, Part

_AT_ONCE = 256  # images in memory
_TABLES = (".csv", ".tsv")


class OutputsConfig(FamilyConfig):
    name: Literal["outputs"] = "outputs"
    file: GivenPath = Field(
        description=".npz file with ids [N], logits or probabilities [N, K], and perhaps embedding [N, D]; or a table "
        "of an id and a column a class"
    )
    labels: Labels | None = Field(
        None, description="class names in the order of the answers; null takes a table's header, or an .npz's labels"
    )
    answers: Answers = Field("auto", description="logits or probabilities; auto looks at them")

    @field_validator("file")
    @classmethod
    def _exists(cls, path: Path, info: ValidationInfo) -> Path:
        return existing_file(path, info)


class _Given(NamedTuple):
    """Content of a file of answers."""

    ids: list[str]
    answers: np.ndarray  # [N, K]
    embedding: np.ndarray | None  # [N, D]
    labels: tuple[str, ...] | None


class OutputsNetwork(nn.Module):
    """Answers by the content of the example; `meet` tells the contents of those that it will be asked about."""

    def __init__(self, ids: Tensor, logits: Tensor, embedding: Tensor | None, cautions: tuple[str, ...] = ()) -> None:
        """Take the digests of the ids [N, 16] uint8 and the answers in the data's order of classes [N, K]."""
        super().__init__()
        self.register_buffer("ids", ids)
        self.register_buffer("logits", logits)
        self.register_buffer("embedding", embedding)
        self.cautions = cautions
        self.num_classes = logits.shape[1]
        self.embedding_dim = None if embedding is None else embedding.shape[1]
        self.order: tuple[int, ...] | None = None  # in which the file has the classes, where it is another
        self._rows: dict[bytes, int] = {}  # of an example by the digest of its content

    @classmethod
    def of(
        cls, names: Iterable[str], logits: Tensor, embedding: Tensor | None = None, cautions: tuple[str, ...] = ()
    ) -> "OutputsNetwork":
        """Make it of the answers [N, K] to examples of these names."""
        ids = torch.from_numpy(np.frombuffer(b"".join(_digest(one.encode()) for one in names), np.uint8).copy())
        return cls(ids.view(-1, 16), logits, embedding, cautions)

    @classmethod
    def on(cls, split: ImageSplit, logits: Tensor) -> Self:
        """Make the network that answers a split's examples by the rows of `logits` [N, K]."""
        network = cls(torch.empty(0, 16, dtype=torch.uint8), logits, None)
        network._rows.update(zip(_contents(split), range(len(split)), strict=True))
        return network

    @property
    def gives(self) -> frozenset[str]:
        return frozenset({"logits", *(["embedding"] if self.embedding_dim else [])})

    def meet(self, split: ImageSplit, who: str) -> None:
        """Find the rows of a split's examples.

        Raises:
            CheckpointError: some have none.
        """
        assert split.ids is not None, "every split of a run has ids"
        known = {row.tobytes(): number for number, row in enumerate(self.get_buffer("ids").cpu().numpy())}
        rows = [known.get(_digest(str(name).encode())) for name in split.ids]
        lacking = [str(name) for name, row in zip(split.ids, rows, strict=True) if row is None]
        if lacking:
            raise CheckpointError(
                f"{who} has no row for {len(lacking):,} of the {len(rows):,} examples of {split.role or 'the data'}, "
                f"such as {lacking[0]!r}; edgestill data CONFIG --ids FILE writes the ids of all"
            )
        self._rows.update(zip(_contents(split), rows, strict=True))  # type: ignore[arg-type]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.look(inputs).logits

    def look(self, inputs: Tensor) -> View:
        try:
            index = torch.tensor([self._rows[content] for content in _digests(inputs.detach().cpu())])
        except KeyError:
            raise CheckpointError(
                "the teacher's file of answers knows the data's own examples alone, and was asked about another"
            ) from None
        logits, embedding = self.get_buffer("logits"), self.embedding
        index = index.to(logits.device)
        nothing = logits.new_empty(len(index), 0)
        return View(nothing, nothing if embedding is None else embedding[index], logits[index])  # type: ignore[index]

    def forward_features(self, inputs: Tensor) -> Tensor:
        return self.look(inputs).features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        raise NotImplementedError("answers in a file have no features to go on from; use look()")

    def get_classifier(self) -> nn.Module:
        return nn.Identity()


class OutputsTeacher(FileTeacher):
    name: ClassVar[str] = "outputs"
    kinds: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    Config: ClassVar[type[Frozen]] = OutputsConfig
    config: OutputsConfig

    @property
    def is_network(self) -> bool:
        return False

    @property
    def gives(self) -> frozenset[Part]:
        return frozenset({"logits", "embedding"} if _has_embedding(self.config.file) else {"logits"})

    def build(self, task: Task) -> nn.Module:
        """Read the file: there is no other network."""
        given, who = _read(self.config.file), f"the teacher {self.title}"
        answers = torch.from_numpy(given.answers).float()
        if self.config.answers == "probabilities" or (self.config.answers == "auto" and are_probabilities(answers)):
            answers = answers.clamp_min(torch.finfo(answers.dtype).tiny).log()
        names = configured_names(self.config, task.labels) or given.labels
        matched = match_labels(names, task.labels, answers.shape[1], who)
        logits = answers if matched.order is None else answers[:, list(matched.order)].contiguous()
        embedding = None if given.embedding is None else torch.from_numpy(given.embedding).float()
        cautions = (matched.caution,) if matched.caution else ()
        network = OutputsNetwork.of(given.ids, logits, embedding, cautions)
        network.order = matched.order
        return network

    def load(self, task: Task, path: Path) -> nn.Module:
        if path == self.source:
            return self.build(task)
        return self.restored(task, read_weights(path), path)

    def restored(self, task: Task, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
        if not {"ids", "logits"} <= tensors.keys():
            raise CheckpointError(f"{path} is no copy of a teacher's answers; delete the run's teacher folder")
        return OutputsNetwork(tensors["ids"], tensors["logits"], tensors.get("embedding"))

    def meet(self, network: nn.Module, splits: Iterable[ImageSplit]) -> None:
        assert isinstance(network, OutputsNetwork)
        for split in splits:
            network.meet(split, f"the teacher {self.title}")


def _has_embedding(path: Path) -> bool:
    if path.suffix in _TABLES:
        return False
    try:
        with np.load(path, allow_pickle=False) as file:
            return "embedding" in file.files
    except (*ZIP_ERRORS, AttributeError):  # reading it tells
        return False


def _read(path: Path) -> _Given:
    """Read a file of answers.

    Raises:
        CheckpointError: it is damaged, lacks a part, repeats an id, or holds no finite numbers.
    """
    given = _of_table(path) if path.suffix in _TABLES else _of_arrays(path)
    if len(set(given.ids)) < len(given.ids):
        twice = Counter(given.ids).most_common(1)[0][0]
        raise CheckpointError(f"{path} has two rows with the id {twice!r}; one is needed")
    for name, part in (("answers", given.answers), ("embedding", given.embedding)):
        if part is None:
            continue
        if part.ndim != 2 or part.shape[0] != len(given.ids) or not part.shape[1] or part.dtype.kind not in "fiu":
            raise CheckpointError(
                f"{path}: its {name} have the shape {list(part.shape)} of {part.dtype}; numbers of "
                f"[{len(given.ids)}, width], a row an id, are needed"
            )
        if not np.isfinite(part).all():
            row = int(np.flatnonzero(~np.isfinite(part).all(1))[0])
            raise CheckpointError(f"{path}: the {name} of {given.ids[row]!r} are no finite numbers")
    return given


def _of_arrays(path: Path) -> _Given:
    keys = ("ids", "logits", "probabilities", "embedding", "labels")
    try:
        require_plausible(path, keys)
        with np.load(path, allow_pickle=False) as file:
            found = {key: file[key] for key in keys if key in file.files}
    except (*ZIP_ERRORS, AttributeError) as error:  # numpy's, of a file that is another kind
        raise CheckpointError(f"{path} is truncated or no .npz file of numbers: {first_line(error)[:200]}") from None
    answers = found.get("logits", found.get("probabilities"))
    if "ids" not in found or answers is None:
        raise CheckpointError(f"{path} needs the arrays ids and logits (or probabilities), and perhaps embedding")
    labels = found.get("labels")
    names = None if labels is None else tuple(str(name) for name in labels.reshape(-1))
    return _Given([str(name) for name in found["ids"].reshape(-1)], answers, found.get("embedding"), names)


def _of_table(path: Path) -> _Given:
    rows = list(read_rows(path, Format("utf-8", None, None)))
    if len(rows) < 2 or len(rows[0].cells) < 3:
        raise CheckpointError(f"{path} needs a header of id and a name a class, and a row an example below it")
    header = [cell.strip() for cell in rows[0].cells]
    ids, answers = list[str](), list[list[float]]()
    for row in rows[1:]:
        if len(row.cells) != len(header):
            raise CheckpointError(f"{path}, line {row.line}: {len(row.cells)} cells for {len(header)} columns")
        ids.append(row.cells[0].strip())
        try:
            answers.append([float(cell) for cell in row.cells[1:]])
        except ValueError as error:
            raise CheckpointError(f"{path}, line {row.line}: {error}") from None
    return _Given(ids, np.array(answers), None, tuple(header[1:]))


def _contents(split: ImageSplit) -> Iterator[bytes]:
    """Yield the digest of each example's content."""
    if isinstance(split.images, StoredImages):
        yield from (row.tobytes() for row in split.images.digests())
        return
    for index in torch.split(torch.arange(len(split)), _AT_ONCE):
        yield from _digests(split.batch(index).inputs.cpu())


def _digests(inputs: Tensor) -> Iterator[bytes]:
    """Yield the digest of each input as a network gets it; pixels of whole bytes have that of their picture."""
    if not inputs.is_floating_point() or inputs.dim() != 4:
        yield from (_digest(row.contiguous().numpy().tobytes()) for row in inputs)
        return
    pixels = (inputs * 255).round().clamp(0, 255).to(torch.uint8)
    exact = (pixels.float().div_(255) == inputs).flatten(1).all(1).tolist()
    for given, row, is_exact in zip(inputs, pixels, exact, strict=True):
        yield (
            picture_digest(row.permute(1, 2, 0).numpy()) if is_exact else _digest(given.contiguous().numpy().tobytes())
        )


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
