"""Work on a tokenizer in a child process: its file may be anybody's, and can enlarge a text without limit.

`tokens.py` beside it asks children of bounded memory and time for all of it. It calls `fitted` alone by itself, for a
tokenizer trained here.
"""

import json
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from edgestill.pipeline.errors import DataError, first_line
from edgestill.pipeline.frozen import digest
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.input_kind.lm import MARKS
from edgestill.pipeline.input_kind.marks import begins_with_marks, with_marks

_AT_ONCE = 512  # texts


def facts(data: bytes) -> bytes:
    """Return JSON: the tokenizer's cut length, its number of ids, and its SHA-256 without truncation and padding.

    Raises:
        DataError: no tokenizer.json, one without a cut length, or ids far above the number of its tokens.
    """
    tokenizer = _parsed(data)
    if tokenizer.truncation is None:
        raise DataError("does not say at which length it cuts")
    content = {key: value for key, value in json.loads(data).items() if key not in ("truncation", "padding")}
    length = tokenizer.truncation["max_length"]
    return json.dumps({"length": length, "vocab_size": _ids(tokenizer), "sha256": digest(content)}).encode()


def prepared(data: bytes, texts: str, max_length: str) -> bytes:
    """Return a given tokenizer's JSON with the cut length of `fitted`.

    Raises:
        DataError: no tokenizer.json, or one that does not pad with id 0.
    """
    tokenizer = _parsed(data)
    token, padding = tokenizer.id_to_token(PADDING), tokenizer.padding
    if "pad" not in str(token).lower() or (padding is not None and padding["pad_id"] != PADDING):
        raise DataError(
            f"cannot be used: id {PADDING} is {str(token)[:40]!r}, and edgestill keeps it for padding; take a "
            "tokenizer that pads with it, as BERT's does, or let one be trained by leaving the file out"
        )
    _ids(tokenizer)
    return fitted(tokenizer, json.loads(texts), int(max_length)).encode()


def marked(data: bytes, texts: str, max_length: str) -> bytes:
    """Return a given tokenizer's JSON for a language task, with the marks before its own ids where it lacks them.

    Raises:
        DataError: no tokenizer.json, or one that the marks cannot be put into.
    """
    _ids(_parsed(data))
    content = json.loads(data)
    if begins_with_marks(content):
        return prepared(data, texts, max_length)
    tokenizer = _parsed(json.dumps(with_marks(content)).encode())
    found = tuple(tokenizer.id_to_token(number) for number in range(len(MARKS)))
    if found != MARKS:
        raise DataError(f"cannot be given the marks {', '.join(MARKS)} of a language task; take another tokenizer")
    return fitted(tokenizer, json.loads(texts), int(max_length)).encode()


def fitted(tokenizer: Tokenizer, texts: list[str], max_length: int) -> str:
    """Return the tokenizer's JSON, cutting at the length of the longest text, and at `max_length` at most.

    Raises:
        DataError: the length leaves no room for text beside the tokenizer's special tokens.
    """
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    if max_length <= special:
        raise DataError(
            f"adds {special} special tokens to every text, and data.max_length {max_length} leaves no room for the "
            f"text itself; set it to {special + 1} at the least, and to some dozens for sentences"
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    longest = max(len(ids) for ids in _encoded(tokenizer, texts))
    tokenizer.enable_truncation(max(1, min(max_length, longest)))
    text: str = tokenizer.to_str()
    return text


def encoded(data: bytes, texts: str) -> bytes:
    """Bytes of the ids [N, T] int64 of N texts, each cut, or padded at the end.

    Raises:
        DataError: the tokenizer gives ids above those of its tokens.
    """
    tokenizer, given = _parsed(data), json.loads(texts)
    cut = tokenizer.truncation
    assert cut is not None, "`prepared` sets it"
    known, length = _ids(tokenizer), cut["max_length"]
    table = np.full((len(given), length), PADDING, np.int64)
    for row, ids in zip(table, _encoded(tokenizer, given), strict=True):
        row[: len(ids)] = ids[:length]
    if table.size and table.max() >= known:
        raise DataError(f"gives the id {table.max()}; the model has ids below {known}")
    return table.tobytes()


def decoded(data: bytes, ids: str) -> bytes:
    """Return the text of one sequence of ids."""
    return str(_parsed(data).decode(json.loads(ids))).encode("utf-8", "replace")


def all_decoded(data: bytes, ids: str) -> bytes:
    """Return JSON: the texts of several sequences of ids."""
    texts = _parsed(data).decode_batch(json.loads(ids))
    return json.dumps([text.strip() for text in texts]).encode()


def _encoded(tokenizer: Tokenizer, texts: list[str]) -> Any:
    for start in range(0, len(texts), _AT_ONCE):
        for encoding in tokenizer.encode_batch_fast(texts[start : start + _AT_ONCE]):
            yield encoding.ids


def _parsed(data: bytes) -> Tokenizer:
    try:
        return Tokenizer.from_str(data.decode("utf-8"))
    except Exception as error:  # the library raises nothing narrower
        raise DataError(f"is no tokenizer.json ({first_line(error, 'nothing in it')[:200]})") from None


def _ids(tokenizer: Tokenizer) -> int:
    """Number of ids: the highest, plus one. A network has a row of weights for each."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise DataError("has no tokens")
    ids = max(vocabulary.values()) + 1
    if ids > 2 * len(vocabulary) + 1000:
        raise DataError(f"gives {ids:,} ids to {len(vocabulary):,} tokens; ids must not leave such gaps")
    return ids
