"""Check of a teacher on validation: its figures, and if it is useless or misread, the likely cause and the way out.

A cause is found on some examples and proved on others, so that trying many does not find one by luck.
"""

# N examples, B batch, K classes

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.errors import CheckpointError
from edgestill.pipeline.networks.network import Classifier, evaluating
from edgestill.pipeline.task import Task
from edgestill.pipeline.timing.timing import TimingConfig, time_interleaved
from edgestill.pipeline.training.calibration import calibration
from edgestill.pipeline.training.confusion import Confusion, useless
from edgestill.pipeline.training.input_probes import Probe
from edgestill.pipeline.training.metrics import Metrics, metrics_of, tells_apart

_TIMING = TimingConfig(warmup_s=0.05, duration_s=0.2, min_samples=11, max_samples=500)
_GOOD = 0.98  # accuracy of a teacher that is read as it should be
_GAIN = 0.05  # smallest gain in accuracy that is worth a change
_FEWEST = 20  # examples that can tell a cause
_FIRST, _SECOND = (16, 128), (64, 512)  # fewest and most examples to find a cause on, and to prove it on
_BETWEEN, _FINALISTS = 96, 3  # examples, to tell the best causes apart
_BUDGET_MS = 10_000  # of finding and of proving, about
_BATCH = 64
_MOST_NAMED, _MOST_LISTED = 5, 100  # classes in a sentence, and in a setting


class TeacherFigures(NamedTuple):
    metrics: Metrics
    confusion: Confusion
    calibration_error: float
    ms_an_example: float  # median wall time of a call with one example, in torch on this device
    answers: np.ndarray  # [N]
    unknown: int = 0  # examples that it answers with NaN
    are_shares: bool = False  # True if all its answers lie in [0, 1], as no logits do


def figures_of(
    network: nn.Module, split: ImageSplit, device: torch.device, num_classes: int, unit: str = "class"
) -> TeacherFigures:
    """Measure a teacher on a split."""
    with evaluating(network), torch.inference_mode():
        pairs = [(network(b.inputs).float().cpu(), b.targets.cpu()) for b in split.batches(512, device)]
        example = split.batch(torch.arange(1), device).inputs
        [timing] = time_interleaved({"teacher": _call(network, example)}, _TIMING).values()
    logits, targets = (torch.cat(parts).numpy() for parts in zip(*pairs, strict=True))
    unknown = int(np.isnan(logits).any(1).sum())
    logits = np.nan_to_num(logits)
    answers = logits.argmax(1)
    return TeacherFigures(
        metrics_of(pairs),
        Confusion.of(answers, targets, num_classes, unit),
        calibration(logits, targets)[0],
        statistics.median(timing.samples_ms),
        answers,
        unknown,
        bool(logits.min() >= 0 and logits.max() <= 1),
    )


def fault_of(
    network: nn.Module,
    task: Task,
    split: ImageSplit,
    device: torch.device,
    figures: TeacherFigures,
    probes: Sequence[Probe],
) -> str:
    """Say the likely cause of a teacher's low accuracy, with the way out; empty if nothing is wrong with it.

    A teacher far above chance has a fault too if another order of its classes or other inputs make it surely better,
    by 5 points or more.
    """
    if figures.unknown:
        return (
            f"the teacher answers {figures.unknown:,} of {len(split):,} validation examples with NaN; check its "
            "weights and its code, such as an overflow in half precision"
        )
    if figures.metrics.accuracy >= _GOOD:
        return ""
    causes: list[_Cause] = []
    if len(split) >= _FEWEST:
        causes += _order(figures, split.targets.cpu().numpy(), task)
        causes += _inputs(network, split, device, figures, probes)
    if causes:
        return max(causes, key=lambda cause: cause.accuracy).sentence
    if not figures.confusion.is_useless:
        return ""
    tried = "order of its classes, normalisation, order of channels or size" if probes else "order of its classes"
    return (
        f"{useless(figures.confusion, 'the teacher', 'validation')}, and no other {tried} makes it better; check that "
        "its weights were trained for these classes, and that the data's labels are right"
    )


def doubt_of(figures: TeacherFigures) -> str:
    """Say what looks wrong with a teacher's answers though they may be right; empty if nothing does."""
    if not figures.are_shares:
        return ""
    return (
        "all answers of the teacher lie between 0 and 1, as those of a sigmoid do, and are taken as logits, which "
        "makes its distributions flat: let it answer with logits, or with probabilities that sum to 1"
    )


def reordered(network: nn.Module, order: Sequence[int]) -> nn.Module:
    """Put a network's classes in the data's order, in the weights of its last Linear.

    Args:
        order: the data's class that each of the network's classes is.

    Raises:
        CheckpointError: the order does not name each class once, or the network does not end in a Linear.
    """
    last = network.get_classifier() if isinstance(network, Classifier) else None
    if not isinstance(last, nn.Linear):
        raise CheckpointError("teacher.order needs a network that ends in a Linear; order the data's classes instead")
    if all(module is not last for module in network.modules()):
        raise CheckpointError("the teacher's classes were put in order by their names; give teacher.labels instead")
    if sorted(order) != list(range(last.out_features)):
        raise CheckpointError(f"teacher.order must hold each number from 0 to {last.out_features - 1} once")
    index = torch.tensor(order).argsort()
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.copy_(parameter[index.to(parameter.device)])
    return network


class _Cause(NamedTuple):
    accuracy: float  # without the fault, on the examples that prove it
    sentence: str


def _order(figures: TeacherFigures, targets: np.ndarray, task: Task) -> list[_Cause]:
    """Find the order of classes under which the answers are right most often."""
    first, second = np.array_split(np.random.default_rng(0).permutation(len(targets)), 2)
    found = _best_order(figures.answers[first], targets[first], task.num_classes)
    answers = figures.answers[second]
    before, after = answers == targets[second], found[answers] == targets[second]
    accuracy, most = float(after.mean()), max(float(before.mean()), figures.confusion.majority)
    if not _is_better(before, after) or (accuracy < 0.5 and accuracy < 5 * most):
        return []
    if Confusion.of(found[answers], targets[second], task.num_classes).is_useless:  # always one class, now the largest
        return []
    order = _best_order(figures.answers, targets, task.num_classes).tolist()
    moved = [(k, to) for k, to in enumerate(order) if k != to]
    named = ", ".join(f"class {k} is the data's {task.labels[to]!r}" for k, to in moved[:_MOST_NAMED])
    fix = f"set teacher.order to {order}" if len(order) <= _MOST_LISTED else "set teacher.order"
    said = f"its classes stand in another order: {named}{', …' if len(moved) > _MOST_NAMED else ''}"
    return [_Cause(accuracy, _sentence(figures, said, before, after, f"{fix}, or put the data's labels in its order"))]


def _best_order(answers: np.ndarray, targets: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the data's class for each answer, [K], one to one, with most answers right; unmoved where it is equal."""
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (answers, targets), 1)
    order: np.ndarray = linear_sum_assignment(counts + 0.5 / num_classes * np.eye(num_classes), maximize=True)[1]
    return order


def _inputs(
    network: nn.Module, split: ImageSplit, device: torch.device, figures: TeacherFigures, probes: Sequence[Probe]
) -> list[_Cause]:
    """Find the change of the inputs under which the network is right most often."""
    tried = _affordable(probes, figures)
    if not tried:
        return []
    drawn = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    quarter = len(split) // 4
    count = min(_count(sum(probe.cost for probe in tried), figures, _FIRST), quarter)
    first, between = drawn[:count], drawn[count : count + min(_BETWEEN, quarter)]
    rest = drawn[count + len(between) :]
    targets, unchanged = split.targets.cpu().numpy(), figures.answers

    def gain(probe: Probe, index: Tensor) -> float:
        """Share of examples that the change wins, less those that it loses and the probe's margin."""
        before, truth = unchanged[index.numpy()], targets[index.numpy()]
        try:
            after = _answers(network, split, index, device, probe)
        except Exception:  # of a network for one size alone, by whichever library runs it
            return -1.0
        return float((after == truth).mean() - (before == truth).mean()) - probe.margin

    gains = [(gain(probe, first), -number) for number, probe in enumerate(tried)]
    finalists = [tried[-number] for found, number in sorted(gains, reverse=True)[:_FINALISTS] if found > 0]
    if not finalists:
        return []
    best = max(finalists, key=lambda probe: gain(probe, torch.cat([first, between])))
    second = rest[: _count(best.cost, figures, _SECOND)]
    changed, truth = _answers(network, split, second, device, best), targets[second.numpy()]
    before, after = unchanged[second.numpy()] == truth, changed == truth
    if Confusion.of(changed, truth, figures.confusion.num_classes).is_useless or not _is_better(before, after):
        return []
    return [_Cause(float(after.mean()), _sentence(figures, best.found, before, after, best.fix))]


def _answers(network: nn.Module, split: ImageSplit, index: Tensor, device: torch.device, probe: Probe) -> np.ndarray:
    """The network's answers on chosen examples, their inputs changed."""
    parts = [index[start : start + _BATCH] for start in range(0, len(index), _BATCH)]
    with evaluating(network), torch.inference_mode():
        found = [network(probe.change(split.batch(part, device).inputs)).argmax(1) for part in parts]
    return torch.cat(found).cpu().numpy()


def _affordable(probes: Sequence[Probe], figures: TeacherFigures) -> list[Probe]:
    """Leave out the probes, the most expensive first, for which the fewest examples take too long."""
    kept = list(probes)
    while kept and _FIRST[0] * figures.ms_an_example * sum(probe.cost for probe in kept) > _BUDGET_MS:
        kept.remove(max(reversed(kept), key=lambda probe: probe.cost))
    return kept


def _count(cost: float, figures: TeacherFigures, bounds: tuple[int, int]) -> int:
    """Number of examples that the budget allows, within bounds."""
    return max(bounds[0], min(bounds[1], int(_BUDGET_MS / (cost * figures.ms_an_example))))


def _is_better(before: np.ndarray, after: np.ndarray) -> bool:
    """True if the accuracy is higher by more than chance and by enough to be worth a change."""
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    return gained - lost >= _GAIN * len(before) and tells_apart(lost, gained)


def _sentence(figures: TeacherFigures, cause: str, before: np.ndarray, after: np.ndarray, fix: str) -> str:
    confusion = figures.confusion
    return (
        f"the teacher is right on {confusion.accuracy:.2%} of {confusion.n:,} validation examples (the most frequent "
        f"class: {confusion.majority:.2%}), and {cause}; so read, it is right on {after.mean():.2%} of {len(after):,} "
        f"examples instead of {before.mean():.2%}: {fix}"
    )


def _call(network: nn.Module, example: Tensor) -> Callable[[], object]:
    def call() -> None:
        network(example)
        if example.is_cuda:
            torch.cuda.synchronize(example.device)

    return call
