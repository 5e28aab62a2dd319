"""Prompts of a causal language model: token ids, each answered with the token that follows the last one.

A text is a prompt, START, an answer and END. Of a text without a prompt, START comes first. Positions from START on are
learnt and judged, so that a model is never judged by its guesses at a prompt.
"""

# N texts, T tokens

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from edgestill.pipeline.input_kind.base import PADDING, Damage, TaskFields, TokenIds

if TYPE_CHECKING:
    from torch import Tensor

START, END = 1, 2  # token ids
MARKS = ("[PAD]", "<s>", "</s>")  # tokens of the ids 0, 1 and 2
PAST, PRESENT = "past", "present"  # a file's cache of keys and values, before and after a call

Port = tuple[str, tuple[int, ...]]  # dtype, and sides after the batch


@dataclass(frozen=True)
class Prompts(TokenIds):
    """Token ids [T] up to the one whose successor is asked for."""

    cache: tuple[int, int, int] | None = None  # layers, heads and head width of a file's cache; None: not said

    name: ClassVar[str] = "lm"
    plural: ClassVar[str] = "prompts"
    classifier: ClassVar[str] = "A causal language model, which answers a prompt with the next token,"
    script: ClassVar[str] = "run_prompts.py"
    damages: ClassVar[Mapping[str, Damage]] = {}
    accuracy: ClassVar[str] = "next-token accuracy"
    unit: ClassVar[str] = "token"
    units: ClassVar[str] = "tokens"
    has_classes: ClassVar[bool] = False
    continues: ClassVar[bool] = True

    @classmethod
    def of(cls, task: TaskFields) -> Self:
        if len(task.input_shape) != 1 or task.vocab_size is None or task.mean or task.std:
            raise ValueError("a language task has an input_shape of (length,), a vocab_size, and neither mean nor std")
        if task.num_classes != task.vocab_size:
            raise ValueError(f"a language task has a label for each of its {task.vocab_size} token ids")
        return cls(task.input_shape, task.vocab_size, task.tokenizer_sha256, task.cache)

    def description(self) -> dict[str, Any]:
        marks = {"start": START, "end": END}
        past = {} if self.cache is None else {PAST: [*self._cache_sides("past_length")]}
        return super().description() | marks | past

    def inputs_of_file(self) -> dict[str, Port]:
        own = super().inputs_of_file()
        return own if self.cache is None else own | {PAST: ("float32", self._cache_sides(0))}

    def outputs_of_file(self) -> dict[str, Port]:
        return {} if self.cache is None else {PRESENT: ("float32", self._cache_sides(self.length))}

    def _cache_sides(self, length: Any) -> tuple[Any, ...]:
        assert self.cache is not None
        layers, heads, width = self.cache
        return layers, 2, heads, length, width


def answered(ids: "Tensor") -> "Tensor":
    """Mark the positions whose next token belongs to an answer, END included; [N, T] to bool [N, T - 1]."""
    begun = (ids == START).cumsum(1) > 0
    return begun[:, :-1] & (ids[:, 1:] != PADDING)


def prompt_ends(ids: "Tensor") -> "Tensor":
    """Return the number of tokens of each text's prompt, START included; [N, T] to [N], T where there is no START."""
    begun = (ids == START).cumsum(1) > 0
    return (~begun).sum(1) + begun.any(1).long()
