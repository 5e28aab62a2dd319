"""Digits of which a fifth are labelled wrongly, with three teachers; needs mnist.npz.

`_good` is trained on other images: only the labels are wrong. `_memorised` learnt the wrong labels by heart and teaches
them. `_noisy` was trained on the wrong labels and did not believe them.
"""

from pathlib import Path

from lib.bench import Bench
from tasks._mnist_noisy import bench_of

VARIANTS = {
    f"_{regime}": lambda seed, data, cache, regime=regime: _make(regime, seed, data, cache)
    for regime in ("good", "memorised", "noisy")
}


def _make(regime: str, seed: int, data: Path, cache: Path) -> Bench:
    return bench_of(regime, seed, data, cache)[0]
