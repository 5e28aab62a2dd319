"""A teacher that was trained on the wrong labels and did not believe them. See _mnist_noisy.py; needs mnist.npz."""

from pathlib import Path

from bench import Bench
from tasks._mnist_noisy import bench_of


def make(seed: int, data: Path, cache: Path) -> Bench:
    return bench_of("noisy", seed, data, cache)[0]
