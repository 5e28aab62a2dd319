"""Marks of a language task in a tokenizer of another maker: its ids move up, and the marks come before them.

Works on the content of a tokenizer.json, of any of the library's models: WordLevel, WordPiece, BPE and Unigram.
"""

from collections.abc import Mapping
from typing import Any

from edgestill.pipeline.input_kind.lm import MARKS

_SHIFT = len(MARKS)


def tokens_by_id(content: Mapping[str, Any]) -> dict[int, str]:
    """Return the text of each token id of a tokenizer.json."""
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):  # of Unigram: texts and scores, in the ids' order
        known = {number: str(pair[0]) for number, pair in enumerate(vocabulary)}
    else:
        known = {number: token for token, number in dict(vocabulary).items()}
    return known | {token["id"]: token["content"] for token in content["added_tokens"]}


def begins_with_marks(content: Mapping[str, Any]) -> bool:
    known = tokens_by_id(content)
    return tuple(known.get(number) for number in range(_SHIFT)) == MARKS


def with_marks(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tokenizer.json whose ids 0, 1, … are the marks and whose own ids follow, each moved up by as many.

    A token of its own that is written like a mark gets another name, so that the text of a mark is the mark. What its
    post-processor adds to every text is left out: texts have marks of their own.
    """
    model = dict(content["model"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = [[mark, 0.0] for mark in MARKS] + [[_renamed(token), score] for token, score in vocabulary]
        if model.get("unk_id") is not None:
            model["unk_id"] += _SHIFT
    else:
        moved = {_renamed(token): number + _SHIFT for token, number in vocabulary.items()}
        model["vocab"] = {mark: number for number, mark in enumerate(MARKS)} | moved
    if model.get("unk_token") is not None:
        model["unk_token"] = _renamed(model["unk_token"])
    marks = [
        {"id": number, "content": mark, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for number, mark in enumerate(MARKS)
    ]  # fmt: skip
    added = [token | {"id": token["id"] + _SHIFT} for token in content["added_tokens"] if token["content"] not in MARKS]
    return {**content, "model": model, "added_tokens": marks + added, "post_processor": None}


def _renamed(token: str) -> str:
    return f"[{token}]" if token in MARKS else token
