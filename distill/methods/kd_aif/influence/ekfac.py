"""Influence through all Linear and Conv2d layers, with EK-FAC (Grosse et al. 2023, arXiv:2308.03296).

The library kronfluence computes it. Its scores are g_ref . H^-1 g_i, positive for examples that lower the reference
loss: the opposite of I. It damps each layer by 0.1 of the layer's mean eigenvalue; `damping` is not used. It passes
the factors from step to step as files, in a temporary folder deleted at the end.
"""

# N training examples

import copy
import tempfile
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from edgestill.distill.methods.kd_aif.influence.base import Question
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.errors import MissingDependencyError
from edgestill.pipeline.randomness import drawn_from

_BATCH = 256


def ekfac(question: Question, strategy: str = "ekfac") -> Tensor:
    """Compute the influence [N]; `strategy` is kronfluence's option.

    Raises:
        MissingDependencyError: kronfluence is not installed.
    """
    require_kronfluence()
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments

    task = _task(question)
    network = prepare_model(copy.deepcopy(question.deployable), task)
    train = TensorDataset(_inputs(question.train), question.answers.cpu())
    reference = TensorDataset(_inputs(question.reference), question.reference.targets.cpu())
    scoring = ScoreArguments(damping_factor=None, aggregate_query_gradients=True)
    # the seed is for the labels sampled for the Fisher matrix
    with tempfile.TemporaryDirectory() as folder, torch.enable_grad(), drawn_from(question.seed):
        analyzer = Analyzer(
            "influence", network, task, cpu=question.device.type == "cpu", disable_tqdm=True, output_dir=folder
        )
        analyzer.fit_all_factors(
            "factors", train, per_device_batch_size=_BATCH, factor_args=FactorArguments(strategy=strategy)
        )
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            reference,
            train,
            per_device_query_batch_size=_BATCH,
            per_device_train_batch_size=_BATCH,
            score_args=scoring,
        )
        scores = analyzer.load_pairwise_scores("scores")
    summed: Tensor = scores["all_modules"].flatten()  # over the reference examples
    return -summed.to(question.device) / len(question.reference)


def require_kronfluence() -> None:
    """Refuse to go on without kronfluence.

    Raises:
        MissingDependencyError: it is not installed; the message says how to get it.
    """
    try:
        import kronfluence  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "influence by ekfac needs the library kronfluence; pip install 'edgestill[influence]', or take another "
            "distill.methods.backend: last_layer, cg, lissa, identity"
        ) from error


def _inputs(split: ImageSplit) -> Tensor:
    return torch.cat([batch.inputs.cpu() for batch in split.batches(_BATCH)])


def _task(question: Question) -> Any:
    """Define training and reference loss as a kronfluence task; each is summed over a batch."""
    from kronfluence.task import Task

    temperature = question.temperature

    class InfluenceTask(Task):  # type: ignore[misc]
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
            inputs, answers = batch
            logits = model(inputs) / temperature
            if sample:
                drawn = torch.multinomial(F.softmax(logits.detach(), dim=1), 1).flatten()
                return temperature * F.cross_entropy(logits, drawn, reduction="sum")
            return temperature**2 * F.cross_entropy(logits, answers.to(logits.dtype), reduction="sum")

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            inputs, targets = batch
            logits = model(inputs)
            if question.reference_loss == "ce":
                return F.cross_entropy(logits, targets, reduction="sum")
            right = F.one_hot(targets, logits.shape[1]).bool()
            margins: Tensor = logits.masked_fill(right, -torch.inf).logsumexp(1) - logits[right]
            return margins.sum()

    return InfluenceTask()
