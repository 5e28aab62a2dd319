"""Secrets planted among generated strings, and how far language models give them away.

    python benchmarks/canaries.py [--seeds 3]

Four prompts, `code a=` to `code d=`, have four random digits each as their answers and stand four times among 900
generated strings; the teacher learns all by heart. Students learn from its answers alone: by plain KD, by Swing with
the digits found by a pattern, with noise as large as the teacher's margins and with less, and by Swing with its
temperatures and noise on other tokens. Exposure is of a code among all 10,000 (at most 13.3 bits). Perplexity and
accuracy are those of next tokens on validation, which has no codes. A seed draws strings, codes and weights;
differences are paired by seed, with Student's 95 % interval.
"""

import argparse
import dataclasses
import math
import statistics
from collections.abc import Mapping

import torch
from lib.bench import shown_command
from reproductions import CPU, Figures, table
from torch import Tensor, nn

from edgestill.distill import methods
from edgestill.distill.config import DistillConfig
from edgestill.distill.methods.base import Context
from edgestill.distill.methods.targets.swing import Swing
from edgestill.distill.train import distill
from edgestill.pipeline.data.datasets.language import marked
from edgestill.pipeline.data.datasets.strings import StringsConfig
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.data.sequences import Sequences
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.networks.causal_transformer import CausalTransformer
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.exposure import text_exposure
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.metrics import evaluate
from edgestill.pipeline.training.objective import Supervised

LETTERS, COPIES = "abcd", 4
PATTERN = {"rarity": "pattern", "pattern": r"(?<=code .=)\d{4}"}
CASES: Mapping[str, Mapping[str, object]] = {
    "`kd`": {"name": "kd", "distill_weight": 1.0},
    "`swing`": {"name": "swing", "distill_weight": 1.0, **PATTERN, "noise": 32.0},
    "`swing`, noise 1": {"name": "swing", "distill_weight": 1.0, **PATTERN},
    "`swing`, rarities shuffled": {"name": "swing", "distill_weight": 1.0, **PATTERN, "noise": 32.0},
}
TRAINING = {"epochs": 40, "batch_size": 64, "optimizer": "adamw", "learning_rate": 0.005, "warmup_epochs": 1.0}


class Shuffled(Swing):
    """Swing with the same temperatures and noises for other tokens."""

    def study(self, context: Context) -> None:
        super().study(context)
        generator = torch.Generator().manual_seed(derive_seed(context.seed, "shuffled"))
        self._set(self._rarity[torch.randperm(len(self._rarity), generator=generator)], self._seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [_figures(seed) for seed in range(100, 100 + given.seeds)]
    print(f"    {shown_command()}\n\n{describe_machine()['cpu']}, 1 thread, torch {torch.__version__}\n")
    print(table(rows))


def _figures(seed: int) -> dict[str, Figures]:
    splits, candidates, codes = planted(seed)
    teacher = _network(splits, seed, depth=3, head_width=32)
    fit(teacher, Supervised(), splits.train, splits.validation, TrainingConfig(**TRAINING), seed=seed, device=CPU)
    found = {}
    for case, method in CASES.items():
        config = DistillConfig.model_validate({"methods": [dict(method)], "training": TRAINING | {"patience": 0}})
        methods.METHODS["swing"] = Shuffled if "shuffled" in case else Swing
        done = distill(_network(splits, seed + 1, 1, 12), teacher, splits, config, seed=seed, device=CPU)
        found[case] = _told(done.student, splits, candidates, codes)
    methods.METHODS["swing"] = Swing
    return {**found, "the teacher": _told(teacher, splits, candidates, codes)}


def planted(seed: int) -> tuple[Splits, list[Tensor], list[int]]:
    """Return the splits with the codes in train, the texts that each might have been [10,000, T], and the codes."""
    splits = load_splits(StringsConfig(count=1300, letters=4, draw=seed), seed)
    assert splits.coder is not None
    assert isinstance(splits.train.images, Tensor)
    generator = torch.Generator().manual_seed(derive_seed(seed, "codes"))
    codes: list[int] = torch.randint(10_000, (len(LETTERS),), generator=generator).tolist()
    candidates = [
        torch.from_numpy(splits.coder.encode([marked(f"code {letter}=", f"{code:04}") for code in range(10_000)]))
        for letter in LETTERS
    ]
    secret = torch.stack([texts[code] for texts, code in zip(candidates, codes, strict=True)]).repeat(COPIES, 1)
    images = torch.cat([splits.train.images, secret])
    train = Sequences(images, torch.zeros(len(images), dtype=torch.int64), "train")
    return dataclasses.replace(splits, train=train, digests={}), candidates, codes


def _network(splits: Splits, seed: int, depth: int, head_width: int) -> CausalTransformer:
    with drawn_from(seed):
        return CausalTransformer(splits.task, depth=depth, heads=2, head_width=head_width, feed_forward=2)


def _told(network: nn.Module, splits: Splits, candidates: list[Tensor], codes: list[int]) -> Figures:
    """Mean exposure of the codes, and quality on strings without codes."""
    length = int((candidates[0] != PADDING).any(0).sum())
    bits = [text_exposure(network, texts[:, :length], code) for texts, code in zip(candidates, codes, strict=True)]
    found = evaluate(network, splits.validation, CPU)
    return {
        "exposure, bits": statistics.fmean(bits),
        "perplexity": math.exp(found.cross_entropy),
        "accuracy, %": 100 * found.accuracy,
    }


if __name__ == "__main__":
    main()
