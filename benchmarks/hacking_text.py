"""Teacher hacking of language models where the truth is known exactly: texts of a Markov chain.

    python benchmarks/hacking_text.py [--repeats 5] [--steps 400]

A teacher learns 60 texts of the truth, or is the truth itself. A student learns the teacher's distribution of each next
letter, on texts that the teacher wrote: a fixed number of them, from many prompts or several from each of a few, or
fresh ones in each step. After every fifth step the distances KL(teacher || student) (proxy) and KL(truth || student)
(golden) are measured at the letters of 200 other texts. Each case tells in how many of the repeats golden rose while
proxy fell, by how much, and the alarm's errors. Prompts are letters: at equal size, fewer prompts mean fewer of the 8.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import torch
from lib.chains import Chain, taught, written_by
from lib.hacking_table import print_table
from torch import Tensor, nn

from edgestill.distill.losses import kl
from edgestill.pipeline.data.sequences import batch_of_texts
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.networks.network import logits_at


class Case(NamedTuple):
    name: str
    taught_by_truth: bool
    texts: int  # of the fixed set; 0: fresh ones in each step
    letters: int = 8  # that their prompts are drawn from


CASES = (
    Case("truth as teacher, 64 fixed texts", True, 64),
    Case("teacher, 64 fixed texts", False, 64),
    Case("teacher, 64 fixed texts of 2 prompts", False, 64, 2),
    Case("teacher, 512 fixed texts", False, 512),
    Case("teacher, fresh texts", False, 0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print_table(CASES, given.repeats, lambda case, seed: curves(case, seed, given.steps))


def curves(case: Case, seed: int, steps: int) -> tuple[list[float], list[float]]:
    """Distances to teacher and truth after every fifth step."""
    chain, generator = Chain(seed), torch.Generator().manual_seed(seed)
    teacher = taught(chain.network(seed, 16), chain.texts(chain.prompts(60, generator), generator), 300, seed)
    told: Callable[[Batch], Tensor] = chain.log_truth if case.taught_by_truth else _answers_of(teacher)
    tested = batch_of_texts(chain.texts(chain.prompts(200, generator), generator))
    student = chain.network(1000 + seed, 16)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.005)

    def drawn(count: int, letters: int, draw: int) -> Tensor:
        prompts = chain.prompts(count, generator)
        prompts[:, 0] = 3 + (prompts[:, 0] - 3) % letters
        return chain.texts(prompts, generator) if case.taught_by_truth else written_by(teacher, prompts, draw)

    fixed = drawn(case.texts, case.letters, seed) if case.texts else None
    proxy, golden = [], []
    for step in range(steps):
        texts = drawn(32, case.letters, step) if fixed is None else fixed[_some(len(fixed), generator)]
        batch = batch_of_texts(texts)
        optimizer.zero_grad()
        _distance(told(batch), student, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 5 == 4:
            with torch.no_grad():
                proxy.append(max(1e-9, float(_distance(told(tested), student, tested))))
                golden.append(max(1e-9, float(_distance(chain.log_truth(tested), student, tested))))
    return proxy, golden


def _answers_of(network: nn.Module) -> Callable[[Batch], Tensor]:
    def answers(batch: Batch) -> Tensor:
        with torch.no_grad():
            return logits_at(network, batch.inputs, batch.rows).log_softmax(1)

    return answers


def _distance(log_told: Tensor, student: nn.Module, batch: Batch) -> Tensor:
    return kl(log_told, logits_at(student, batch.inputs, batch.rows).log_softmax(1)).mean()


def _some(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(count, (32,), generator=generator)


if __name__ == "__main__":
    main()
