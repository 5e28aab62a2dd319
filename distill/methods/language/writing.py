"""Answers that a language model writes to prompts, greedily or drawn by seed; those of a teacher are kept.

Texts are written in parts of fixed size, each from a seed of its own, and each part is kept as soon as it is written:
a writing that was stopped goes on at its next part, and one that is done is never asked for again.
"""

# N texts, S answers a text, T tokens, B texts of a part, V token ids

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.pipeline.data.sequences import Sequences, batch_of_texts
from edgestill.pipeline.data.splits import Batch, ImageSplit
from edgestill.pipeline.data.teacher_cache import content_key
from edgestill.pipeline.errors import ConfigError, RunDirError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.input_kind.lm import START
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.networks.sampling import drawn
from edgestill.pipeline.runs.sealed import read_sealed, write_sealed
from edgestill.pipeline.task import KindName, Task

FOLDER = "texts"  # of the cache
_PART = 256  # texts; part of what decides a text, as each part has a seed
_FORBIDDEN = [PADDING, START]


class Writing(NamedTuple):
    """Way to write."""

    samples: int = 1  # answers a prompt
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0  # mass of the likeliest tokens that are drawn from (Holtzman et al. 2020, arXiv:1904.09751)
    draw: int = 0  # seed


class WritingConfig(MethodConfig):
    """How the teacher writes."""

    samples: int = Field(1, ge=1, le=1000, description="answers that the teacher writes to a prompt")
    temperature: float = Field(
        0.0, ge=0, le=100, description="temperature that they are drawn at; 0: the likeliest token, always the same"
    )
    top_p: float = Field(1.0, gt=0, le=1, description="mass of the likeliest tokens that are drawn from")
    draw: int = Field(0, ge=0, lt=2**31, description="seed that the answers are drawn from")
    distill_weight: float = Field(
        0.0, ge=0, le=1, description="weight of the teacher's logits on its answers; the answers weigh 1 less it"
    )

    @property
    def writing(self) -> Writing:
        return Writing(self.samples, self.temperature, self.top_p, self.draw)


class Library(NamedTuple):
    """Written texts, each with the prompt that it answers."""

    texts: Tensor  # [M, T]
    of: Tensor  # [M] number of the prompt, ascending

    @classmethod
    def whole(cls, texts: Tensor) -> "Library":
        """Make a library of all texts [N, S, T], S for each of N prompts."""
        numbers = torch.arange(len(texts), device=texts.device).repeat_interleave(texts.shape[1])
        return cls(texts.flatten(0, 1), numbers)

    def select(self, kept: Tensor) -> "Library":
        return Library(self.texts[kept], self.of[kept])

    def state(self) -> dict[str, Tensor]:
        return {"texts": self.texts.int(), "of": self.of.int()}

    @classmethod
    def restored(cls, state: dict[str, Tensor], device: torch.device) -> "Library":
        return cls(*(state[name].to(device, torch.int64) for name in cls._fields))

    def drawn(self, prompts: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one text for each prompt [B] that has any."""
        firsts, ends = (torch.searchsorted(self.of, prompts, right=right) for right in (False, True))
        chances = torch.rand(len(prompts), generator=generator).to(prompts.device)
        places = firsts + (chances * (ends - firsts)).long()
        return self.texts[places[ends > firsts]]


def in_vain(method: Method, others: Sequence[Method]) -> Iterator[str]:
    """Give a sentence for each method that reads the teacher's logits where they have no weight."""
    for other in others:
        if method.spares_teacher and other.fills & {"target", "divergence"}:
            yield (
                f"method {method.name!r} with distill_weight 0 gives the teacher's logits no weight, which is what "
                f"method {other.name!r} is there for; set {method.name}.distill_weight, or leave it out"
            )


def same_answers(library: Library, train: Sequences) -> Tensor:
    """True of the written texts that are the data's own, [M]."""
    own = train.images
    assert isinstance(own, Tensor)
    return (library.texts == own[library.of]).all(1)


def taught_texts(context: Context, how: Writing) -> Tensor:
    """Return the training prompts with the teacher's answers, [N, S, T]; from the cache as far as they are there."""
    assert isinstance(context.train, Sequences)
    folder = None
    if context.outputs_folder is not None:
        key = content_key(context.teacher, context.train, FOLDER, _PART, list(how), context.device.type)
        folder = context.outputs_folder.parent / FOLDER / key
    return written(context.teacher, context.train.prompts(), how, folder)


def written(network: nn.Module, prompts: Tensor, how: Writing, folder: Path | None = None) -> Tensor:
    """Continue prompts [N, T], padded behind, to END or the length T; [N, S, T].

    Args:
        folder: keeps the parts; None: nothing is kept.
    """
    asked = prompts.repeat_interleave(how.samples, 0)
    parts = []
    for number, part in enumerate(torch.split(asked, _PART)):
        ids = None if folder is None else _kept(folder, number, part)
        if ids is None:
            ids = _continued(network, part, how, number)
            if folder is not None:
                _keep(folder, number, ids)
        parts.append(ids)
    return torch.cat(parts).view(len(prompts), how.samples, prompts.shape[1])


def _continued(network: nn.Module, prompts: Tensor, how: Writing, number: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed(how.draw, FOLDER, number))
    chances, ends = torch.rand(prompts.shape, generator=generator).to(prompts.device), (prompts != PADDING).sum(1)
    columns = iter(chances[:, int(ends.min()) :].unbind(1))  # one for each time that tokens are chosen
    return drawn(network, prompts, ends, lambda logits: chosen_tokens(logits, next(columns), how)).ids


def chosen_tokens(logits: Tensor, chances: Tensor, how: Writing) -> Tensor:
    """Choose a token for each row of logits [B, V], by chances [B] in [0, 1); never padding, nor START again."""
    logits = logits.float().clone()
    logits[:, _FORBIDDEN] = -torch.inf
    if how.temperature == 0:
        return logits.argmax(1)
    p, order = (logits / how.temperature).softmax(1).sort(dim=1, descending=True, stable=True)
    is_kept = p.cumsum(1) - p < how.top_p
    ends = (p * is_kept).cumsum(1)
    place = torch.searchsorted(ends, chances[:, None] * ends[:, -1:], right=True)
    place = torch.minimum(place, (is_kept & (p > 0)).sum(1, keepdim=True) - 1)
    return order.gather(1, place)[:, 0]


def _kept(folder: Path, number: int, prompts: Tensor) -> Tensor | None:
    """Read a part; None where there is none, or a damaged one."""
    with contextlib.suppress(RunDirError, ValueError):
        data = read_sealed(folder / f"{number:05}", folder.name)
        if data is not None:
            ids = np.frombuffer(data, np.int32).astype(np.int64).reshape(prompts.shape)
            return torch.from_numpy(ids).to(prompts.device)
    return None


def _keep(folder: Path, number: int, ids: Tensor) -> None:
    with contextlib.suppress(OSError):  # no room, or no right to write
        folder.mkdir(parents=True, exist_ok=True)
        write_sealed(folder / f"{number:05}", ids.cpu().numpy().astype(np.int32).tobytes(), folder.name)


class WritingMethod(Method):
    """Loss (1 - b) CE(written) + b D on texts whose answers the teacher wrote."""

    fills: ClassVar[frozenset[Slot]] = frozenset({"data", "weight"})
    inputs: ClassVar[KindName | None] = "lm"
    takes_rows: ClassVar[bool] = True
    studies_teacher: ClassVar[bool] = True
    config: WritingConfig
    _library: Library

    @property
    def binds_rows(self) -> bool:
        return True

    @property
    def spares_teacher(self) -> bool:
        return self.config.distill_weight == 0

    def conflicts(self, others: Sequence[Method]) -> Iterable[str]:
        return in_vain(self, others)

    def check(self, task: Task, train: ImageSplit) -> None:
        if isinstance(train, Sequences) and self.config.temperature == 0:
            if not bool(train.prompted().any()):
                raise ConfigError(
                    [f"{self.name}.temperature 0 writes one and the same answer to texts without prompts; set it to 1"]
                )
            if self.config.samples > 1:
                raise ConfigError(
                    [f"{self.name}.samples: greedy answers are all the same; set {self.name}.temperature above 0"]
                )

    def prepare(self, context: Context) -> None:
        assert isinstance(context.train, Sequences)
        self._train = context.train

    def data(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Replace the batch's texts by ones with the teacher's answers, which are no rows of the split."""
        return batch_of_texts(self._library.drawn(self._train.texts_of(batch.index), generator))

    def weight(self, teacher: View, student: View, batch: Batch) -> tuple[float, float]:
        return 1 - self.config.distill_weight, self.config.distill_weight
