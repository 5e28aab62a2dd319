"""Texts for a language model: prompts with answers from jsonl files, or running text cut into windows."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from edgestill.pipeline.data.datasets.base import DatasetConfig, LabelledTexts, RawData
from edgestill.pipeline.data.datasets.records import place_of, record_of, require_whole
from edgestill.pipeline.data.tokens import TokenizerConfig
from edgestill.pipeline.errors import DataError
from edgestill.pipeline.figures import listing
from edgestill.pipeline.foreign import read_text_bounded
from edgestill.pipeline.frozen import GivenPath, existing_path
from edgestill.pipeline.input_kind.lm import END, MARKS, START

_MOST_BYTES = 2**30  # of a file
_CHARACTERS = TokenizerConfig(kind="characters", lowercase=False)


class LanguageConfig(DatasetConfig):
    """Settings of all data for a language model."""

    kind: ClassVar[str] = "lm"

    test_fraction: float = Field(
        0.15, gt=0, lt=0.9, description="share of the texts set aside for testing, where there is no test file"
    )
    max_length: int = Field(64, ge=4, le=1024, description="maximum length of a text in tokens; longer texts are cut")
    tokenizer: TokenizerConfig = Field(
        _CHARACTERS, description="tokenizer of teacher and student: characters, or a file of an earlier run"
    )

    @field_validator("tokenizer")
    @classmethod
    def _has_the_marks(cls, tokenizer: TokenizerConfig) -> TokenizerConfig:
        if tokenizer.file is None and tokenizer.kind != "characters":
            raise ValueError(f"{tokenizer.kind!r} makes no token for where answers begin and end; set characters")
        return tokenizer

    @property
    def has_own_tokenizer(self) -> bool:
        return self.tokenizer != _CHARACTERS

    def with_tokenizer(self, path: Path) -> Self:
        return self.model_copy(update={"tokenizer": TokenizerConfig(file=path)})


class PromptsConfig(LanguageConfig):
    """Prompts with answers in .jsonl files, or running text in .txt files: a file, or a folder of parts."""

    name: Literal["prompts"] = "prompts"
    path: GivenPath = Field(
        description="folder of train, validation and test files, each .jsonl or .txt, or one file to carve all from"
    )
    prompt_key: str = Field("prompt", description="key of the prompt in a line of jsonl")
    answer_key: str = Field("response", description="key of the answer in a line of jsonl")
    rejected_key: str | None = Field(
        None, description="key of a worse answer in a line of jsonl, for methods that learn preferences; null: none"
    )
    domain_key: str | None = Field(
        None, description="key of the domain in a line of jsonl, for `ddk` and the splits; null: all are of one"
    )

    @field_validator("path")
    @classmethod
    def _exists(cls, path: Path, info: ValidationInfo) -> Path:
        return existing_path(path, info)

    @classmethod
    def settings_for(cls, given: str) -> dict[str, Any] | None:
        path = Path(given).expanduser()
        return {"path": given} if path.suffix in _READERS and path.is_file() else None


class _Pair(NamedTuple):
    prompt: str
    answer: str
    ends: bool = True  # False of a window of running text, whose end means nothing
    rejected: str | None = None
    domain: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        return self.prompt, self.answer, self.rejected or "", self.domain


def load_prompts(config: PromptsConfig) -> RawData:
    """Read the files; a folder's validation and test parts may be missing and are then carved.

    Raises:
        DataError: there is no file, a line is no prompt with an answer, or a text holds a mark of the tokenizer.
    """
    train, validation, test = (_part(config, part) for part in ("train", "validation", "test"))
    assert train is not None, "`_part` refuses a missing training file"
    domains = tuple(sorted({pair.domain for part in (train, validation, test) for pair in part or ()}))
    others = [None if part is None else _labelled(part, domains) for part in (test, validation)]
    labels = domains if config.domain_key else ("text",)
    return RawData(_labelled(train, domains), others[0], labels, others[1], test_fraction=config.test_fraction)


def _labelled(pairs: Sequence[_Pair], domains: tuple[str, ...]) -> LabelledTexts:
    """Join prompts and answers; a text's target is the number of its domain, which is a folder of its name."""
    numbers = np.array([domains.index(pair.domain) for pair in pairs], np.int64)
    return LabelledTexts(
        tuple(marked(pair.prompt, pair.answer, pair.ends) for pair in pairs),
        numbers,
        named_by_domain([pair.domain for pair in pairs]) if len(domains) > 1 else (),
        tuple(marked(pair.prompt, pair.rejected) for pair in pairs if pair.rejected is not None),
    )


def named_by_domain(domains: Sequence[str]) -> tuple[str, ...]:
    """Name each text by its domain, as by a folder, and its number."""
    return tuple(f"{domain.replace('/', ' ')}/{number}" for number, domain in enumerate(domains))


def marked(prompt: str, answer: str, ends: bool = True) -> str:
    """Join a prompt and its answer to the text that a model learns."""
    return f"{prompt}{MARKS[START]}{answer}{MARKS[END] if ends else ''}"


def _part(config: PromptsConfig, part: str) -> list[_Pair] | None:
    path = _file(config.path, part)
    if path is None:
        return None
    pairs = list(_READERS[path.suffix](read_text_bounded(path, _MOST_BYTES), path, config))
    if not pairs:
        raise DataError(f"{path} holds no text")
    for number, pair in enumerate(pairs, 1):
        if any(mark in text for text in pair.texts for mark in MARKS):
            raise DataError(f"{path}, text {number}: holds one of {', '.join(MARKS)}, marks of the tokenizer")
    return pairs


def _file(path: Path, part: str) -> Path | None:
    if not path.is_dir():
        return path if part == "train" else None
    found = next((path / f"{part}{ending}" for ending in _READERS if (path / f"{part}{ending}").is_file()), None)
    if found is None and part == "train":
        raise DataError(f"no {' or '.join(f'train{ending}' for ending in _READERS)} in {path}")
    return found


def _of_jsonl(text: str, path: Path, config: PromptsConfig) -> Iterator[_Pair]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = place_of(path, number)
        given = _texts(record_of(path, number, line), _keys(config), place)
        prompt, answer = given[config.prompt_key], given[config.answer_key]
        yield _Pair(prompt, answer, True, given.get(config.rejected_key), given.get(config.domain_key) or "")


def _keys(config: PromptsConfig) -> list[str]:
    keys = (config.prompt_key, config.answer_key, config.rejected_key, config.domain_key)
    return [key for key in keys if key is not None]


def _texts(record: Mapping[str, Any], keys: Sequence[str], place: str) -> dict[str | None, str]:
    """Return a record's texts by their keys.

    Raises:
        DataError: one is missing, or no text.
    """
    found: dict[str | None, str] = {}
    for key in keys:
        value = record.get(key)
        if not isinstance(value, str):
            lacks = f"{str(value)[:40]!r} is no text" if key in record else f"no {key!r}"
            raise DataError(f"{place}: no object with texts {listing(list(map(repr, keys)))} ({lacks})")
        require_whole(value, key, place)
        found[key] = value
    return found


def _of_running_text(text: str, path: Path, config: PromptsConfig) -> Iterator[_Pair]:
    """Cut into windows that fill a sequence after START; the last, shorter one is kept."""
    size = config.max_length - 1
    yield from (_Pair("", text[at : at + size], ends=False) for at in range(0, len(text), size))


_READERS = {".jsonl": _of_jsonl, ".txt": _of_running_text}
