"""Prints the label of a text, with the model beside this file. Needs numpy, onnxruntime and tokenizers, nothing else.

    python run.py TEXT [TEXT ...]

`-` reads texts from standard input, one a line. An empty text has a line on stderr, and the exit code is then 1, or 2
if it is the only one. The model is the one that bundle.json calls the default, unless that is INT8 and this processor
computes it otherwise than the maker's: then it is fp32's, with a note on stderr.
"""

import json
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from edgestill.export.device.answers import open_default

HERE = Path(__file__).resolve().parent


def main(texts: list[str]) -> int:
    if texts == ["-"]:
        texts = [line.strip() for line in sys.stdin if line.strip()]
    if not texts:
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    card = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    session, labels = open_default(HERE, card), card["task"]["labels"]
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))  # cuts texts at the training length
    failures = 0
    for text in texts:
        if not text.strip():
            print(f"{text!r}: there is nothing in this text", file=sys.stderr)
            failures += 1
            continue
        ids = np.array([tokenizer.encode(text).ids or [0]], np.int64)
        logits = session.run(["logits"], {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)})[0][0]
        label = labels[int(logits.argmax())]
        print(shown(label if len(texts) == 1 else f"{text}: {label}"))
    return 0 if not failures else 2 if len(texts) == 1 else 1


def shown(text: str) -> str:
    """Escape unprintable characters, which could steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
