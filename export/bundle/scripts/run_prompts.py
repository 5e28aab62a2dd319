"""Continues a prompt, with the model beside this file. Needs numpy, onnxruntime and tokenizers, nothing else.

    python run.py [--most N] [--temperature T] [--seed S] PROMPT [PROMPT ...]

`-` reads prompts from standard input, one a line. The answer is the most likely continuation, or is drawn at a
temperature above 0. A prompt longer than the training texts is refused on stderr, and the exit code is then 1, or 2 if
it is the only one. The model is the one that bundle.json calls the default, unless that is INT8 and this processor
computes it otherwise than the maker's: then it is fp32's, with a note on stderr.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from edgestill.export.device.answers import empty_cache, open_default

HERE = Path(__file__).resolve().parent
PADDING, START, END = 0, 1, 2  # token ids


def main(arguments: list[str]) -> int:
    given = _parse(arguments)
    prompts = [line.rstrip("\n") for line in sys.stdin if line.strip()] if given.prompts == ["-"] else given.prompts
    card = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    session, length = open_default(HERE, card), int(card["input"]["max_length"])
    tokenizer, rng = Tokenizer.from_file(str(HERE / "tokenizer.json")), np.random.default_rng(given.seed)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    failures = 0
    for prompt in prompts:
        ids = [*tokenizer.encode(prompt).ids, START]
        if len(ids) >= length:
            print(f"{shown(prompt)!r}: {len(ids)} tokens leave no room in {length} for an answer", file=sys.stderr)
            failures += 1
            continue
        most = min(length - len(ids), given.most or length)
        answer = tokenizer.decode(list(continuation(session, ids, most, given.temperature, rng)))
        print(shown(answer if len(prompts) == 1 else f"{prompt}{answer}"))
    return 0 if not failures else 2 if len(prompts) == 1 else 1


def continuation(
    session: Any, ids: list[int], most: int, temperature: float, rng: np.random.Generator
) -> Iterator[int]:
    """Yield the tokens that follow, END left out; the file's cache keeps what was read before."""
    past, new = empty_cache(session, 1), ids
    for _ in range(most):
        tokens = np.array([new], np.int64)
        given = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), **past}
        if past:
            logits, present = session.run(["logits", "present"], given)
            past = {"past": present}
        else:  # a file without a cache reads the whole text again
            logits = session.run(["logits"], given)[0]
        token = chosen(logits[0], temperature, rng)
        if token in (END, PADDING):
            return
        yield token
        new = [token] if past else [*new, token]


def chosen(logits: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
    """Choose the most likely token, or draw one by softmax(logits / temperature)."""
    if temperature <= 0:
        return int(logits.argmax())
    powers = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    return int(rng.choice(len(powers), p=powers / powers.sum()))


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="- reads standard input, a prompt a line")
    parser.add_argument("--most", type=int, default=0, help="largest number of new tokens; default: what a text holds")
    parser.add_argument("--temperature", type=float, default=0.0, help="above 0 draws; default: the most likely token")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    return parser.parse_args(arguments)


def shown(text: str) -> str:
    """Escape unprintable characters, which could steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
