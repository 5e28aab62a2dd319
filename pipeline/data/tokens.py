"""Text to token ids and back, by a tokenizer trained on the training texts or a given tokenizer.json.

Only this file and the child that it asks use the `tokenizers` library. Id 0 is padding in every tokenizer.
"""

# N texts, T tokens

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from edgestill.pipeline.child import MEMORY_BYTES, SECONDS, ChildError, answer
from edgestill.pipeline.errors import DataError, first_line
from edgestill.pipeline.foreign import read_text_bounded
from edgestill.pipeline.frozen import Frozen, GivenPath, existing_file
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.input_kind.lm import END, MARKS, START
from edgestill.pipeline.input_kind.marks import begins_with_marks, tokens_by_id

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer

MAX_TOKENIZER_BYTES = 2**26  # the largest known ones have half of it
_CHILD = "edgestill.pipeline.data.token_child"
_PAD, _UNKNOWN = "[PAD]", "[UNK]"
_LONGEST_NAME = 100  # characters of a token's name
_LONG, _SLOW = 300, 100_000  # bytes of memory to encode a character; characters a second, a tenth of the usual


class TokenizerConfig(Frozen):
    """A tokenizer that is trained on the training texts alone, or a given one."""

    kind: Literal["wordpiece", "bpe", "characters"] = Field(
        "wordpiece",
        description="algorithm to train; wordpiece and characters turn unknown characters into [UNK], bpe encodes all "
        "bytes",
    )
    vocab_size: int = Field(4000, ge=4, le=1_000_000, description="maximum number of token ids, padding included")
    lowercase: bool = Field(True, description="lowercase texts before tokenizing, in use as in training")
    file: GivenPath | None = Field(
        None, description="tokenizer.json to use as it is, with padding at id 0; null trains a tokenizer"
    )

    @field_validator("file")
    @classmethod
    def _exists(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return path and existing_file(path, info)


class Coder:
    """A tokenizer and the length that its sequences are cut and padded to; both are in its JSON.

    A child of bounded memory and time answers every question, because the JSON may be anybody's.
    """

    def __init__(self, text: str, name: str = "the tokenizer") -> None:
        """Read the tokenizer's facts.

        Raises:
            DataError: the text is no tokenizer.json with a length to cut at.
        """
        facts = json.loads(_asked("facts", text, name))
        self.json = text
        self.length: int = facts["length"]
        self.vocab_size: int = facts["vocab_size"]
        self.sha256: str = facts["sha256"]  # of the tokenizer without truncation and padding

    @property
    def tokens(self) -> tuple[str, ...]:
        """Text of each token id, in order; "" where an id has none."""
        known = tokens_by_id(json.loads(self.json))
        return tuple(known.get(number, "") for number in range(self.vocab_size))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return ids [N, T] int64, each text cut to T tokens, or padded at the end.

        Raises:
            DataError: the tokenizer gives ids above those of its tokens, or takes too much memory or time.
        """
        ids = _asked("encoded", self.json, "the tokenizer", texts, more_bytes=8 * len(texts) * self.length)
        return np.frombuffer(ids, np.int64).reshape(len(texts), self.length).copy()

    def decode_all(self, ids: np.ndarray) -> list[str]:
        """Return the texts of sequences [N, T], as `decode` does for one.

        Raises:
            DataError: the tokenizer takes too much memory or time.
        """
        kept = json.dumps([[i for i in row if i != PADDING] for row in ids.tolist()])
        try:
            return list(json.loads(answer(f"{_CHILD}:all_decoded", self.json.encode(), kept)))
        except ChildError as error:
            raise DataError(f"the tokenizer {error}") from None

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of one sequence, as far as its ids determine it; padding is left out."""
        kept = json.dumps([int(i) for i in ids if i != PADDING])
        try:
            return answer(f"{_CHILD}:decoded", self.json.encode(), kept).decode().strip()
        except ChildError as error:
            raise DataError(f"the tokenizer {error}") from None


def has_marks(path: Path) -> bool:
    """True if the first ids of a tokenizer.json are the marks of a language task.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return begins_with_marks(json.loads(read_text_bounded(path, MAX_TOKENIZER_BYTES)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is no tokenizer.json ({first_line(error)[:100]})") from None


def token_labels(tokens: Sequence[str]) -> tuple[str, ...]:
    """Return a name for each token that is one distinct line of text: blanks and control characters are spelt out."""
    named: list[str] = []
    for number, token in enumerate(tokens):
        name = token.replace(" ", "\N{OPEN BOX}") if token.isprintable() else ascii(token)[1:-1]
        name = name[:_LONGEST_NAME] or f"id {number}"
        named.append(f"{name} (id {number})" if name in named else name)
    return tuple(named)


def make_coder(texts: Sequence[str], config: TokenizerConfig, max_length: int, *, of_language: bool = False) -> Coder:
    """Make the configured tokenizer; its sequences are as long as the longest of `texts`, and `max_length` at most.

    Equal texts give equal bytes, in any process.

    Args:
        of_language: give a tokenizer of another maker the marks of a language task.

    Raises:
        DataError: the file is no tokenizer.json, or does not pad with id 0; or the alphabet is above `vocab_size`.
    """
    if config.file is None:
        from edgestill.pipeline.data.token_child import fitted

        return Coder(fitted(_trained(texts, config), list(texts), max_length))
    given = read_text_bounded(config.file, MAX_TOKENIZER_BYTES)
    question = "marked" if of_language else "prepared"
    return Coder(_asked(question, given, str(config.file), texts, str(max_length)).decode(), str(config.file))


def _asked(
    question: str, tokenizer: str, name: str, texts: Sequence[str] | None = None, *more: str, more_bytes: int = 0
) -> bytes:
    """Ask a child a question about a tokenizer, and about texts where given; return its answer."""
    given = () if texts is None else (json.dumps(list(texts)), *more)
    longest, total = (max(map(len, texts), default=0), sum(map(len, texts))) if texts is not None else (0, 0)
    memory = MEMORY_BYTES + 20 * len(tokenizer) + _LONG * longest + 16 * total + more_bytes
    seconds = SECONDS + total / _SLOW
    try:
        return answer(f"{_CHILD}:{question}", tokenizer.encode(), *given, memory_bytes=memory, seconds=seconds)
    except ChildError as error:
        raise DataError(f"{name} {error}") from None


def _trained(texts: Sequence[str], config: TokenizerConfig) -> "Tokenizer":
    tokenizer = _TRAINERS[config.kind](texts, config)
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise DataError(
            f"data.tokenizer.vocab_size {config.vocab_size:,} is smaller than the alphabet of {config.kind}, "
            f"{tokenizer.get_vocab_size():,} with the special tokens; give it room for words too"
        )
    return tokenizer


def _bpe(texts: Sequence[str], config: TokenizerConfig) -> "Tokenizer":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = _normalizer(config)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[_PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _wordpiece(texts: Sequence[str], config: TokenizerConfig) -> "Tokenizer":
    """Train WordPiece so that equal texts give an equal vocabulary in any process.

    The library's trainer numbers the pieces inside words in the order of a hash table, and breaks ties between merges
    by number, so its vocabulary differs from process to process. Here it is given the alphabet in order, as special
    tokens, which are made ordinary ones again afterwards.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=_UNKNOWN))
    tokenizer.normalizer = _normalizer(config)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    words = {
        word
        for text in texts
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    }
    alphabet = {word[0] for word in words} | {f"##{character}" for word in words for character in word[1:]}
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size, special_tokens=[_PAD, _UNKNOWN, *sorted(alphabet)], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in alphabet]
    return Tokenizer.from_str(json.dumps(content, ensure_ascii=False))


def _characters(texts: Sequence[str], config: TokenizerConfig) -> "Tokenizer":
    """Make a token of each character of the texts, after the marks of a language task."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    marked = "".join(texts).replace(MARKS[START], "").replace(MARKS[END], "")
    known = sorted(set(marked.lower() if config.lowercase else marked))
    vocabulary = {token: number for number, token in enumerate([*MARKS, _UNKNOWN, *known])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    if config.lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    return tokenizer


_TRAINERS = {"wordpiece": _wordpiece, "bpe": _bpe, "characters": _characters}


def _normalizer(config: TokenizerConfig) -> "Normalizer":
    from tokenizers import normalizers

    return normalizers.Sequence([normalizers.NFKC(), *([normalizers.Lowercase()] * config.lowercase)])
