"""A good teacher, of other images; only the labels are wrong. See _mnist_noisy.py; needs mnist.npz."""

from pathlib import Path

from bench import Bench
from tasks._mnist_noisy import bench_of


def make(seed: int, data: Path, cache: Path) -> Bench:
    return bench_of("good", seed, data, cache)[0]
