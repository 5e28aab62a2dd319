"""Sentences: a transformer of 0.9 million parameters teaches one of 130 thousand, on the same texts.

Data is the folder of SST-2's train, dev and test as tsv (sentence, label). A tenth of the training part is the
reference split; dev chooses, test measures. Both start from scratch, which takes this teacher to some 77 %.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from lib.bench import Bench
from torch import nn

from edgestill.distill.config import StudentTrainingConfig
from edgestill.pipeline.data.datasets import TextConfig
from edgestill.pipeline.data.loading import load_splits, load_test
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.data.tokens import TokenizerConfig
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.text_transformer import TextTransformer
from edgestill.pipeline.runs.checkpoint import load_weights, weights_bytes, write_atomic
from edgestill.pipeline.teachers import TeacherConfig, build_teacher
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

_TEACHER = TeacherConfig(architecture="text_transformer_2x128", dropout=0.2)
_TRAINING = {"batch_size": 64, "optimizer": "adamw"}


def make(seed: int, data: Path, cache: Path) -> Bench:
    config = TextConfig(
        path=data, columns=("sentence", "label"), max_length=48, tokenizer=TokenizerConfig(vocab_size=4000)
    )
    return make_sentences(config, seed, cache, "sst2")


def make_sentences(config: TextConfig, seed: int, cache: Path, name: str, is_imbalanced: bool = False) -> Bench:
    """Make a task of sentences; an imbalanced one is measured by balanced accuracy."""
    splits = load_splits(config, seed)
    assert splits.coder is not None

    def student() -> nn.Module:
        return TextTransformer(splits.task, depth=1, heads=2, head_width=16, feed_forward=2)

    return Bench(
        splits=splits,
        teacher=_teacher(splits, cache / f"{name}_{seed}.safetensors", seed),
        make_student=lambda student_seed: _fresh(student, student_seed),
        tests={"test": load_test(config, seed, splits.coder.json)},
        training=StudentTrainingConfig(
            epochs=12,
            learning_rate=0.01,
            weight_decay=5e-4,
            patience=0,
            metric="balanced_accuracy" if is_imbalanced else "accuracy",
            **_TRAINING,
        ),
    )


def _teacher(splits: Splits, path: Path, seed: int) -> nn.Module:
    teacher = _fresh(lambda: build_teacher(_TEACHER, splits.task), derive_seed(seed, "teacher"))
    if not path.exists():
        config = TrainingConfig(epochs=8, learning_rate=0.003, weight_decay=0.1, warmup_epochs=1, **_TRAINING)
        fit(teacher, Supervised(), splits.train, splits.validation, config, seed=seed, device=torch.device("cpu"))
        write_atomic(path, weights_bytes(teacher))
    load_weights(teacher, path)
    return teacher


def _fresh(make_network: Callable[[], nn.Module], seed: int) -> nn.Module:
    """With PyTorch's own first weights, as in a run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_network()
