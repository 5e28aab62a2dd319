"""Teacher hacking where the truth is known exactly, and how often the alarm without the truth is wrong.

    python benchmarks/hacking.py [--repeats 20] [--steps 400]

The truth is a mixture of Gaussians, whose posterior is exact. A teacher is trained on a few labelled draws, or is the
truth itself; a student is taught by KL on inputs of its own, a fixed set of them (in two sizes) or fresh ones in each
step. After every fifth step the distances KL(teacher || student) (proxy) and KL(truth || student) (golden) are measured
on 2,000 other inputs. Each case tells in how many of the repeats golden rose while proxy fell, and the alarm's errors:
misses among the hacked, false alarms among the others. Intervals are Wilson's, 95 %.
"""

import argparse
from typing import NamedTuple

import torch
from lib.hacking_table import print_table
from torch import Tensor, nn

K, D = 4, 2


class Case(NamedTuple):
    name: str
    taught_by_truth: bool
    inputs: int  # of the fixed set; 0: fresh ones in each step


CASES = (
    Case("truth as teacher, 64 fixed inputs", True, 64),
    Case("teacher, 64 fixed inputs", False, 64),
    Case("teacher, 512 fixed inputs", False, 512),
    Case("teacher, fresh inputs", False, 0),
)


class Mixture:
    """Equal parts of K Gaussians of variance 1 around given means."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.means = 1.5 * torch.randn(K, D, generator=self.generator)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(K, (count,), generator=self.generator)
        return self.means[labels] + torch.randn(count, D, generator=self.generator), labels

    def log_posterior(self, x: Tensor) -> Tensor:
        return (-(x[:, None] - self.means).square().sum(2) / 2).log_softmax(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--steps", type=int, default=400)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print_table(CASES, given.repeats, lambda case, seed: _curves(case, seed, given.steps))


def _curves(case: Case, seed: int, steps: int) -> tuple[list[float], list[float]]:
    """Distances to teacher and truth after every fifth step."""
    truth = Mixture(seed)
    teacher = _trained_teacher(truth, seed)
    tested, _ = truth.draw(2000)
    fixed = truth.draw(case.inputs)[0] if case.inputs else None
    torch.manual_seed(seed)
    student = _network()
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)

    def told(x: Tensor) -> Tensor:
        with torch.no_grad():
            return truth.log_posterior(x) if case.taught_by_truth else teacher(x).log_softmax(1)

    proxy, golden = [], []
    for step in range(steps):
        x = fixed if fixed is not None else truth.draw(64)[0]
        optimizer.zero_grad()
        _kl(told(x), student(x).log_softmax(1)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 5 == 4:
            with torch.no_grad():
                answer = student(tested).log_softmax(1)
                proxy.append(max(1e-9, float(_kl(told(tested), answer))))
                golden.append(max(1e-9, float(_kl(truth.log_posterior(tested), answer))))
    return proxy, golden


def _trained_teacher(truth: Mixture, seed: int) -> nn.Module:
    torch.manual_seed(1000 + seed)
    teacher = _network()
    x, labels = truth.draw(200)
    optimizer = torch.optim.Adam(teacher.parameters(), lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(teacher(x), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return teacher


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(D, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, K))


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


if __name__ == "__main__":
    main()
