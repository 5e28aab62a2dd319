"""Spam among 5,574 text messages, 13 % of them, by balanced accuracy: otherwise as sst2.

DATA is the folder of the one tsv file (label, text), which is split by seed.
"""

from pathlib import Path

from lib.bench import Bench, Make
from tasks.sst2 import make_sentences

from edgestill.pipeline.data.datasets import TextConfig
from edgestill.pipeline.data.tokens import TokenizerConfig


def _make(seed: int, data: Path, cache: Path) -> Bench:
    config = TextConfig(path=data, columns=("text", "label"), max_length=48, tokenizer=TokenizerConfig(vocab_size=4000))
    return make_sentences(config, seed, cache, "sms", is_imbalanced=True)


VARIANTS: dict[str, Make] = {"": _make}
