"""Small tasks and learnable examples for checks of plug-ins, and for tests."""

import dataclasses

import numpy as np
import torch

from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.sequences import Sequences, prompts_of
from edgestill.pipeline.data.splits import Batch, ImageSplit, Splits
from edgestill.pipeline.input_kind.lm import END, START
from edgestill.pipeline.task import KindName, Task


def image_task(channels: int = 1, side: int = 8, classes: int = 3) -> Task:
    labels = tuple(f"class {k}" for k in range(classes))
    return Task(labels=labels, input_shape=(channels, side, side), mean=(0.4,) * channels, std=(0.3,) * channels)


def text_task(length: int = 10, vocab_size: int = 20, classes: int = 3) -> Task:
    labels = tuple(f"class {k}" for k in range(classes))
    return Task(kind="text", labels=labels, input_shape=(length,), vocab_size=vocab_size)


def language_task(length: int = 10, tokens: int = 8) -> Task:
    labels = tuple(f"token {k}" for k in range(tokens))
    return Task(kind="lm", labels=labels, input_shape=(length,), vocab_size=tokens)


def task_of(inputs: KindName, channels: int = 1, side: int = 8, classes: int = 3) -> Task:
    """Make a task of this kind; of token ids, as long as `side`."""
    made = {
        "image": lambda: image_task(channels, side, classes),
        "text": lambda: text_task(side, classes=classes),
        "lm": lambda: language_task(side, classes),
    }
    return made[inputs]()


def examples(task: Task, count: int, seed: int = 0) -> ImageSplit:
    """Images whose class shows as a bright band, under noise, or texts of the task; every class is there in turn."""
    if task.vocab_size is not None:
        return _texts(task, count, seed)
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *task.input_shape, generator=generator) * 0.6
    targets = torch.arange(count) % task.num_classes
    for k in range(task.num_classes):
        images[targets == k, :, 2 * k : 2 * k + 2] += 0.2
    return ImageSplit(images, targets)


def splits(task: Task, augment: AugmentConfig | None = None, train: int = 90) -> Splits:
    def part(role: str, count: int, seed: int) -> ImageSplit:
        if task.kind == "lm":
            whole = prompts(task, count, seed)
            return whole if role == "train" else dataclasses.replace(prompts_of(whole), role=role)
        return dataclasses.replace(examples(task, count, seed), role=role)

    return Splits(
        task=task,
        train=part("train", train, 1),
        reference=part("reference", 18, 2),
        validation=part("validation", 60, 3),
        augment=augment or AugmentConfig(),
        sizes={},
        digests={},
    )


def prompts(task: Task, count: int, seed: int = 0) -> Sequences:
    """Prompts of two tokens, answered by the same two, of two domains in turn; rejected: the second token alone."""
    assert task.vocab_size is not None
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randint(END + 1, task.vocab_size, (count, 2), generator=generator)
    start, end = (torch.full((count, 1), mark) for mark in (START, END))
    padding = torch.zeros(count, task.input_shape[0] - 6, dtype=torch.int64)
    good = torch.cat([prompt, start, prompt, end, padding], 1)
    bad = torch.cat([prompt, start, prompt[:, 1:], end, padding, padding[:, :1]], 1)
    names = np.array([f"{'ab'[n % 2]}/{n}" for n in range(count)])
    return Sequences(good, torch.arange(count) % 2, "train", names, rejected=bad)


def batch(task: Task, size: int = 12, seed: int = 0) -> Batch:
    return examples(task, size, seed).batch(torch.arange(size))


def _texts(task: Task, count: int, seed: int) -> ImageSplit:
    """Sequences of any length, padded behind; half of the tokens of class k are k + 1."""
    assert task.vocab_size is not None
    generator = torch.Generator().manual_seed(seed)
    (length,), targets = task.input_shape, torch.arange(count) % task.num_classes
    tokens = torch.randint(1, task.vocab_size, (count, length), generator=generator)
    shown = (targets[:, None] + 1).clamp_max(task.vocab_size - 1)
    tokens = torch.where(torch.rand(count, length, generator=generator) < 0.5, shown, tokens)
    lengths = torch.randint(length // 2, length + 1, (count, 1), generator=generator)
    return ImageSplit(tokens * (torch.arange(length) < lengths), targets)
