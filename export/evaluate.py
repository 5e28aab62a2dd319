"""A file's answers on a whole split, and their accuracy."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from edgestill.export.formats import FORMATS
from edgestill.export.onnx.sessions import runner
from edgestill.export.result import ConvertedModel
from edgestill.export.run import Run
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.training.metrics import Metrics, metrics_of


class Answers(NamedTuple):
    """A file's answers on a split of N examples."""

    logits: np.ndarray  # [N, K]
    metrics: Metrics
    right: np.ndarray  # [N] bool

    @property
    def is_balanced(self) -> bool:
        """True if the mean recall chooses."""
        return self.metrics.balanced_accuracy is not None


def answers_of(run: Run, split: ImageSplit, *, balanced: bool = False) -> Answers:
    """Run a file on a whole split; give its logits and their metrics.

    Args:
        balanced: give the balanced accuracy too, to choose by it.
    """
    logits = np.concatenate([run(batch.inputs.contiguous().numpy()) for batch in split.batches(256)])
    metrics = metrics_of([(torch.from_numpy(logits), split.targets)], balanced=balanced)
    return Answers(logits, metrics, logits.argmax(1) == split.targets.numpy())


def evaluate_file(path: Path, split: ImageSplit) -> Metrics:
    """Metrics of an ONNX file on a split."""
    return evaluate_run(runner(path), split)


def evaluate_run(run: Run, split: ImageSplit) -> Metrics:
    """Metrics of a `Run` on a split."""
    return metrics_of((torch.from_numpy(run(b.inputs.numpy())), b.targets) for b in split.batches(256))


def open_files(models: Mapping[str, ConvertedModel], root: Path) -> dict[str, Run]:
    """Open the files of a student on one thread, by format.

    Args:
        root: the run's folder; the models' paths are relative to it.
    """
    return {name: FORMATS[name].open(root / model.path, 1) for name, model in models.items()}
