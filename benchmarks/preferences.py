"""Preferences of language models: labels of the better answers alone, DCKD, ADPA, and ADPA with signs drawn at random.

    python benchmarks/preferences.py [--seeds 3]

Generated strings to reverse and to sort, each with its right answer and one that is a character off. A teacher learns
the right answers; a student learns them for a few epochs, and goes on by each method for as many. Measured on up to
300 other strings: exact answers, greedily, and the share of right answers that the student finds likelier than one that
is a character off. A seed draws strings and weights; differences are paired by seed, with Student's 95 % interval.
"""

import argparse
import copy
import random

import torch
from lib.bench import shown_command
from reproductions import CPU, Figures, table
from torch import Tensor, nn

from edgestill.distill import methods
from edgestill.distill.config import DistillConfig
from edgestill.distill.methods.language.adpa import ADPA
from edgestill.distill.methods.language.writing import Writing, written
from edgestill.distill.train import distill
from edgestill.pipeline.data.datasets.language import marked
from edgestill.pipeline.data.datasets.strings import StringsConfig, wrong_answer
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.data.sequences import PromptSplit, Sequences
from edgestill.pipeline.data.splits import Batch, Splits
from edgestill.pipeline.networks.causal_transformer import CausalTransformer
from edgestill.pipeline.networks.network import View, evaluating
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.exposure import answer_losses
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

CASES = {"labels": "none", "`dckd`": "dckd", "`adpa`": "adpa", "`adpa`, random signs": "adpa"}
TRAINING = {"batch_size": 32, "optimizer": "adamw", "learning_rate": 0.005, "warmup_epochs": 0.0}
SHORT, LONG = 8, 40  # epochs


class RandomSigns(ADPA):
    """ADPA whose advantage has the right size and a sign drawn for each row and token."""

    def advantage(self, teacher: View, batch: Batch) -> Tensor:
        found = super().advantage(teacher, batch)
        return found * (2.0 * torch.randint(2, found.shape) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [figures(seed) for seed in range(100, 100 + given.seeds)]
    print(f"    {shown_command()}\n\n{describe_machine()['cpu']}, 1 thread, torch {torch.__version__}\n")
    print(table(rows))


def figures(seed: int) -> dict[str, Figures]:
    config = StringsConfig(kinds=("reverse", "sort"), count=1500, letters=4, rejected=True, draw=seed)
    splits = load_splits(config, seed)
    teacher, student = _network(splits, seed, 2, 16), _network(splits, seed + 1, 1, 8)
    for network, epochs in ((teacher, LONG), (student, SHORT)):
        training = TrainingConfig(epochs=epochs, **TRAINING)
        fit(network, Supervised(), splits.train, splits.validation, training, seed=seed, device=CPU)
    found = {}
    for case, name in CASES.items():
        methods.METHODS["adpa"] = RandomSigns if "random" in case else ADPA
        told = DistillConfig.model_validate(
            {"methods": [name], "training": TRAINING | {"epochs": SHORT, "patience": 0}}
        )
        done = distill(copy.deepcopy(student), teacher, splits, told, seed=seed, device=CPU)
        found[case] = _told(done.student, splits)
    methods.METHODS["adpa"] = ADPA
    return {**found, "the student before": _told(student, splits), "the teacher": _told(teacher, splits)}


def _network(splits: Splits, seed: int, depth: int, head_width: int) -> CausalTransformer:
    with drawn_from(seed):
        return CausalTransformer(splits.task, depth=depth, heads=2, head_width=head_width, feed_forward=2)


@torch.no_grad()
def _told(network: nn.Module, splits: Splits) -> Figures:
    assert isinstance(splits.validation, PromptSplit)
    assert splits.validation.texts is not None
    assert splits.coder is not None
    texts = splits.validation.texts[:300]
    split = Sequences(texts, torch.zeros(len(texts), dtype=torch.int64))
    exact = (written(network, split.prompts(), Writing())[:, 0] == texts).all(1)
    prompts = split.prompts()
    asked, whole = (splits.coder.decode_all(ids.numpy()) for ids in (prompts, texts))
    rng = random.Random(0)
    wrong = [
        marked(prompt, wrong_answer(text.removeprefix(prompt), rng)) for prompt, text in zip(asked, whole, strict=True)
    ]
    with evaluating(network):
        likelier = answer_losses(network, texts) < answer_losses(network, torch.from_numpy(splits.coder.encode(wrong)))
    return {
        "exact answers, %": 100 * float(exact.float().mean()),
        "right preferred, %": 100 * float(likelier.float().mean()),
    }


if __name__ == "__main__":
    main()
