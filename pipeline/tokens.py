"""Text to token ids and back: by a tokenizer trained on the training texts, or by a given tokenizer.json.

The only file that knows the `tokenizers` library. Id 0 is padding, whatever the tokenizer.
"""

# N texts, T tokens

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from pipeline.errors import DataError, first_line
from pipeline.frozen import Frozen, GivenPath, digest, existing_file
from pipeline.task import PADDING

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer

_PAD, _UNKNOWN = "[PAD]", "[UNK]"


class TokenizerConfig(Frozen):
    """A tokenizer that is trained on the training texts alone, or a given one."""

    kind: Literal["wordpiece", "bpe"] = Field(
        "wordpiece", description="wordpiece: of characters, unknown ones as [UNK]; bpe: of bytes, nothing is unknown"
    )
    vocab_size: int = Field(4000, ge=4, le=1_000_000, description="token ids at most, padding included")
    lowercase: bool = Field(True, description="before anything else, in use as in training")
    file: GivenPath | None = Field(
        None, description="a tokenizer.json to take as it is, padding at id 0; null trains one"
    )

    @field_validator("file")
    @classmethod
    def _exists(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return path and existing_file(path, info)


class Coder:
    """A tokenizer and the length that its sequences are cut and padded to; both are in its JSON."""

    def __init__(self, text: str) -> None:
        """Raises: DataError: no tokenizer.json that says how long a sequence may be."""
        self._tokenizer = _parsed(text, "the tokenizer")
        if self._tokenizer.truncation is None:
            raise DataError("the tokenizer does not say at which length it cuts")
        self.json = text
        self.length: int = self._tokenizer.truncation["max_length"]
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def sha256(self) -> str:
        """Of what gives a piece of text its id; where a sequence is cut is left out."""
        content = {key: value for key, value in json.loads(self.json).items() if key not in ("truncation", "padding")}
        return digest(content)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """[N, T] int64, each cut to T tokens and padded behind."""
        ids = np.full((len(texts), self.length), PADDING, np.int64)
        for row, encoding in zip(ids, self._tokenizer.encode_batch_fast(list(texts)), strict=True):
            row[: len(encoding.ids)] = encoding.ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of one sequence as far as its ids tell, padding left out."""
        text: str = self._tokenizer.decode([int(i) for i in ids if i != PADDING])
        return text.strip()


def make_coder(texts: Sequence[str], config: TokenizerConfig, max_length: int) -> Coder:
    """The configured tokenizer; its sequences are as long as the longest of `texts`, and `max_length` at most.

    Equal texts give equal bytes, in any process.

    Raises:
        DataError: the file is no tokenizer.json, or does not pad with id 0; the alphabet is above `vocab_size`.
    """
    tokenizer = _given(config.file) if config.file is not None else _trained(texts, config)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    longest = max(len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts)))
    tokenizer.enable_truncation(max(1, min(max_length, longest)))
    return Coder(tokenizer.to_str())


def _given(path: Path) -> "Tokenizer":
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a tokenizer.json: {error}") from None
    tokenizer = _parsed(text, str(path))
    token = tokenizer.id_to_token(PADDING)
    padding = tokenizer.padding
    if "pad" not in str(token).lower() or (padding is not None and padding["pad_id"] != PADDING):
        raise DataError(
            f"{path}: id {PADDING} is {token!r}, and edgestill keeps it for padding; take a tokenizer that pads with "
            "it, as BERT's does, or let one be trained by leaving the file out"
        )
    return tokenizer


def _parsed(text: str, name: str) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        reason = first_line(error, "nothing in it")
        raise DataError(f"{name} is no tokenizer.json ({reason})") from None


def _trained(texts: Sequence[str], config: TokenizerConfig) -> "Tokenizer":
    tokenizer = _bpe(texts, config) if config.kind == "bpe" else _wordpiece(texts, config)
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
    """The trainer numbers the pieces inside words as a hash table lists them, and breaks ties between merges by number,
    so its vocabulary differs from process to process. Here it is given the alphabet in order, as special tokens, which
    are made ordinary ones again afterwards.
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


def _normalizer(config: TokenizerConfig) -> "Normalizer":
    from tokenizers import normalizers

    return normalizers.Sequence([normalizers.NFKC(), *([normalizers.Lowercase()] * config.lowercase)])
