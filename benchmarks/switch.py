"""Switch-KD on a toy captioner: scikit-learn's digits, each told as `seven odd`.

    python benchmarks/switch.py [--seeds 3] [--epochs 12]

A student with eyes of 3 channels and a small mouth learns 600 images from the captions alone, with DBiLD, with DBiLD
and the switch, and with the KL of plain KD in DBiLD's place. Captions are finished greedily and compared whole, on 600
other images. Differences are paired by seed, with Student's 95 % interval.
"""

import argparse

import torch
import torch.nn.functional as F
from lib.bench import shown_command
from lib.captioner import Toy, toy
from reproductions import Figures, table
from sklearn.datasets import load_digits
from torch import Tensor

from edgestill.distill.losses import softened, softened_kl
from edgestill.distill.switch import switch_terms
from edgestill.pipeline.input_kind.lm import END, START, answered
from edgestill.pipeline.runs.provenance import describe_machine

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CAPTIONS = tuple(f"{word} {'odd' if n % 2 else 'even'}" for n, word in enumerate(WORDS))
CHARACTERS = ("[PAD]", "<s>", "</s>", *sorted(set("".join(CAPTIONS))))
LENGTH = max(map(len, CAPTIONS)) + 2
CASES = {
    "captions alone": {"distill_weight": 0.0, "switch_weight": 0.0},
    "DBiLD": {"switch_weight": 0.0},
    "DBiLD and switch": {},
    "KL": {"distill_weight": 0.0, "switch_weight": 0.0, "kl": 1.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [figures(seed, given.epochs) for seed in range(100, 100 + given.seeds)]
    print(f"    {shown_command()}\n\n{describe_machine()['cpu']}, 1 thread, torch {torch.__version__}\n")
    print(table(rows))


def figures(seed: int, epochs: int) -> dict[str, Figures]:
    images, texts = data(seed)
    train, test = (images[:600], texts[:600]), (images[600:1200], texts[600:1200])
    teacher = _network(seed, channels=16, depth=2, heads=4, head_width=12)
    trained(teacher, None, *train, epochs=2 * epochs, seed=seed)
    teacher.eval().requires_grad_(False)
    found = {}
    for case, weights in CASES.items():
        student = _network(seed + 1000, channels=3, depth=1, heads=2, head_width=8)
        trained(student, teacher, *train, epochs=epochs, seed=seed, **weights)
        found[case] = _told(student, *test)
    return {**found, "the teacher": _told(teacher, *test)}


def data(seed: int) -> tuple[Tensor, Tensor]:
    """Return images [N, 1, 8, 8] and their captions [N, T], in an order drawn by seed."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(seed))
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    ids = torch.zeros(len(WORDS), LENGTH, dtype=torch.int64)
    for n, caption in enumerate(CAPTIONS):
        row = [START, *(CHARACTERS.index(one) for one in caption), END]
        ids[n, : len(row)] = torch.tensor(row)
    return images[order], ids[torch.tensor(digits.target)][order]


def _network(seed: int, **sizes: int) -> Toy:
    return toy(seed, len(CHARACTERS), LENGTH, **sizes)


def trained(
    network: Toy, teacher: Toy | None, images: Tensor, texts: Tensor, *, epochs: int, seed: int, **weights: float
) -> None:
    """Train in place: by captions without a teacher, else by the terms of the switch, or of plain KD with `kl`."""
    optimizer, generator = torch.optim.AdamW(network.parameters(), lr=0.004), torch.Generator().manual_seed(seed)
    with_kl = weights.pop("kl", 0.0)
    for _ in range(epochs):
        for few in torch.split(torch.randperm(len(images), generator=generator), 32):
            optimizer.zero_grad()
            x, ids = images[few], texts[few]
            if teacher is None:
                said = network.say(network.see(x), ids)[:, :-1][answered(ids)]
                loss = F.cross_entropy(said, ids[:, 1:][answered(ids)])
            else:
                loss = torch.stack(list(switch_terms(teacher, network, x, ids, **weights).values())).sum()
                loss = loss + (with_kl * _kl(teacher, network, x, ids) if with_kl else 0.0)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _kl(teacher: Toy, student: Toy, images: Tensor, texts: Tensor) -> Tensor:
    told, said = (one.say(one.see(images), texts)[:, :-1][answered(texts)] for one in (teacher, student))
    return softened_kl(said, softened(told, 3.0), 3.0).mean()


@torch.no_grad()
def _told(network: Toy, images: Tensor, texts: Tensor) -> Figures:
    seen, ids = network.see(images), torch.zeros_like(texts)
    ids[:, 0] = START
    for place in range(1, LENGTH):
        ids[:, place] = network.say(seen, ids[:, :place])[:, -1].argmax(1)
    ended = (ids == END).cumsum(1) - (ids == END).long() > 0
    return {"exact captions, %": 100 * float((ids.masked_fill(ended, 0) == texts).all(1).float().mean())}


if __name__ == "__main__":
    main()
