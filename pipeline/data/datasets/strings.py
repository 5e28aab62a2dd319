"""Generated strings with one right answer each: sums, reversed letters, sorted letters; nothing is fetched."""

import random
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from edgestill.pipeline.data.datasets.base import LabelledTexts, RawData
from edgestill.pipeline.data.datasets.language import LanguageConfig, marked, named_by_domain
from edgestill.pipeline.errors import DataError

Kind = Literal["add", "reverse", "sort"]
_LETTERS = "abcdefgh"
_MOST_DRAWS = 50  # for each different string asked for


class StringsConfig(LanguageConfig):
    """Generated prompts with one right answer each, such as `12+7=`, `reverse cab=` and `sort cab=`."""

    name: Literal["strings"] = "strings"
    kinds: tuple[Kind, ...] = Field(("add", "reverse", "sort"), min_length=1, description="kinds of prompts")
    count: int = Field(6000, ge=30, le=1_000_000, description="number of different prompts, evenly of all kinds")
    largest: int = Field(99, ge=9, le=999_999, description="largest number in a sum")
    letters: int = Field(5, ge=2, le=64, description="largest number of letters to reverse or sort; the least is 2")
    rejected: bool = Field(
        False, description="give each prompt a wrong answer too, for methods that learn preferences: one character off"
    )
    draw: int = Field(0, ge=0, lt=2**31, description="seed that the prompts are drawn from")

    @field_validator("kinds")
    @classmethod
    def _different(cls, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        return tuple(dict.fromkeys(kinds))

    @classmethod
    def settings_for(cls, given: str) -> dict[str, Any] | None:
        return {} if given == cls.model_fields["name"].default else None


def load_strings(config: StringsConfig) -> RawData:
    """Draw different prompts of each kind, with their answers; equal settings give equal strings.

    Raises:
        DataError: there are fewer different prompts of a kind than are asked for.
    """
    each = -(-config.count // len(config.kinds))
    prompts = [(kind, prompt) for kind in config.kinds for prompt in _different(kind, each, config)]
    random.Random(f"{config.draw} order").shuffle(prompts)
    chosen = prompts[: config.count]
    texts = tuple(marked(prompt, answer_to(prompt)) for _, prompt in chosen)
    targets = np.array([config.kinds.index(kind) for kind, _ in chosen], np.int64)
    rng = random.Random(f"{config.draw} rejected")
    wrong = [marked(prompt, wrong_answer(answer_to(prompt), rng)) for _, prompt in chosen] if config.rejected else []
    names = named_by_domain([kind for kind, _ in chosen])
    return RawData(
        LabelledTexts(texts, targets, names, tuple(wrong)), None, config.kinds, test_fraction=config.test_fraction
    )


def wrong_answer(answer: str, rng: random.Random) -> str:
    """Replace one character of a right answer by another of its kind."""
    at = rng.randrange(len(answer))
    kind = "0123456789" if answer[at].isdigit() else _LETTERS
    return answer[:at] + rng.choice([one for one in kind if one != answer[at]]) + answer[at + 1 :]


def answer_to(prompt: str) -> str:
    """Return the right answer to a prompt, the exact checker of what a model answers."""
    question = prompt.removesuffix("=")
    task, _, letters = question.partition(" ")
    if task == "reverse":
        return letters[::-1]
    if task == "sort":
        return "".join(sorted(letters))
    one, _, other = question.partition("+")
    return str(int(one) + int(other))


def _different(kind: Kind, count: int, config: StringsConfig) -> Iterator[str]:
    rng, met = random.Random(f"{config.draw} {kind}"), set[str]()
    for _ in range(_MOST_DRAWS * count):
        prompt = _DRAWN[kind](rng, config)
        if prompt not in met:
            met.add(prompt)
            yield prompt
        if len(met) == count:
            return
    raise DataError(
        f"{_MOST_DRAWS * count:,} draws of kind {kind!r} gave {len(met):,} different prompts, and {count:,} are asked "
        "for; lower data.count, or raise data.largest or data.letters"
    )


def _sum(rng: random.Random, config: StringsConfig) -> str:
    return f"{rng.randint(0, config.largest)}+{rng.randint(0, config.largest)}="


def _word(rng: random.Random, config: StringsConfig) -> str:
    return "".join(rng.choices(_LETTERS, k=rng.randint(2, config.letters)))


_DRAWN: dict[str, Callable[[random.Random, StringsConfig], str]] = {
    "add": _sum,
    "reverse": lambda rng, config: f"reverse {_word(rng, config)}=",
    "sort": lambda rng, config: f"sort {_word(rng, config)}=",
}
