"""Compares a file's answers with its network's, on real examples and on ones meant to break it."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgestill.export.diagnose import why_accuracy_differs, why_logits_differ
from edgestill.export.onnx.sessions import runner
from edgestill.export.result import Parity
from edgestill.export.run import Run
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.input_kind import InputKind
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.metrics import Metrics, wilson

MAX_ABS_DIFFERENCE = 1e-4  # of a logit, fp32, where none is beyond LARGE
LARGE = 10.0  # a logit; beyond it rounding goes with the largest one, and so does the difference allowed
MAX_RELATIVE_FP16, MIN_AGREEMENT_FP16 = 2e-2, 0.995
_TIMES_ROUNDING, _MOST_BY_ROUNDING = 4.0, 1e-3
_TIE = 1e-6  # of the largest logit; a few units in the last place of float32
_DEPENDS_ON_BATCH = 1e-3  # of a logit; another order of sums changes 100 times less
_SAME_ACCURACY = 0.005  # or two examples, where that is more
_BATCH = 256


def check_parity(
    network: nn.Module,
    path: Path,
    splits: Mapping[str, ImageSplit],
    kind: InputKind,
) -> Parity:
    """Compare the fp32 file and the network on whole splits, on their kind's extremes, and at batch sizes 1 and 7.

    Raises:
        ExportError: a logit differs by more than 1e-4 (1e-5 of the largest logit, if that is above 10; or a few times
            the network's own rounding, if that is more), or an arg max beyond a tie; says where, and why if known. Or
            the answer to an input depends on the others in its batch.
    """
    network = network.cpu().eval()
    run = runner(path)
    _require_independent_answers(network, next(iter(splits.values())))
    worst, agreeing, count, checked = 0.0, 0, 0, []
    with torch.inference_mode():
        for name, inputs in (*_examples(splits), *kind.extremes()):
            expected = network(inputs).numpy()
            found = _sound(run, name, inputs, expected)
            difference = float(np.abs(found - expected).max())
            same = int(_answers_as(found, expected).sum())
            allowed = MAX_ABS_DIFFERENCE * max(1.0, float(np.abs(expected).max()) / LARGE)
            if difference > allowed:
                allowed = max(allowed, _allowed_by_rounding(network, inputs, expected))
            if difference > allowed or same < len(expected):
                why = why_logits_differ(network, run, inputs.contiguous().numpy())
                raise ExportError(
                    f"the exported file is not the network: on {name} logits differ by up to {difference:.2g} "
                    f"(allowed {allowed:.2g}) and {len(expected) - same} of {len(expected)} answers change"
                    f"{f'; {why}' if why else ''}"
                )
            worst, agreeing, count = max(worst, difference), agreeing + same, count + len(expected)
            if name not in checked:
                checked.append(name)
    return Parity(max_abs_difference=worst, top1_agreement=agreeing / count, n=count, checked=tuple(checked))


def _allowed_by_rounding(network: nn.Module, inputs: Tensor, expected: np.ndarray) -> float:
    """Difference of a logit that another order of float32 sums explains: 0 for a network without float64.

    It is a few times the distance of the network's own float32 logits from its float64 ones, and never more than 1e-3
    of the largest logit, or of 1.
    """
    try:
        exact = copy.deepcopy(network).double()(inputs.double() if inputs.is_floating_point() else inputs)
    except RuntimeError:
        return 0.0
    rounding = float(np.abs(exact.numpy() - expected).max())
    return min(_TIMES_ROUNDING * rounding, _MOST_BY_ROUNDING * max(1.0, float(np.abs(expected).max())))


def _answers_as(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """[B] bool: True if the arg max agrees, or the two classes' expected logits differ by rounding alone."""
    lead = expected.max(1) - expected[np.arange(len(expected)), found.argmax(1)]
    tied: np.ndarray = lead <= _TIE * np.maximum(1, np.abs(expected).max(1))
    return tied


def measure_parity(
    reference: Run,
    run: Run,
    splits: Mapping[str, ImageSplit],
    kind: InputKind,
) -> Parity:
    """Measure another precision's distance from the fp32 file's logits, on whole splits and at batch sizes 1 and 7.

    Raises:
        ExportError: on those, or on their kind's extremes, its logits have another shape or are not finite.
    """
    worst, largest, agreeing, count, checked = 0.0, 0.0, 0, 0, []
    for name, inputs in _examples(splits):
        expected = reference(inputs.numpy())
        found = _sound(run, name, inputs, expected)
        worst = max(worst, float(np.abs(found - expected).max()))
        largest = max(largest, float(np.abs(expected).max()))
        agreeing, count = agreeing + int((found.argmax(1) == expected.argmax(1)).sum()), count + len(expected)
        if name not in checked:
            checked.append(name)
    for name, inputs in kind.extremes():
        _sound(run, name, inputs, reference(inputs.numpy()))
    return Parity(
        max_abs_difference=worst,
        top1_agreement=agreeing / count,
        n=count,
        checked=tuple(checked),
        reference="fp32",
        relative_difference=worst / largest if largest else 0.0,
        agreement_interval=wilson(agreeing / count, count),
    )


def require_fp16_parity(parity: Parity) -> None:
    """Refuse an fp16 file with logits further from fp32's than rounding to 16 bits explains.

    Raises:
        ExportError: a logit moved by more than 2 % of the largest one, or answers agree on less than 99.5 %, by the
            upper end of the interval.
    """
    if parity.relative_difference > MAX_RELATIVE_FP16:
        raise ExportError(
            f"logits differ from fp32's by up to {parity.relative_difference:.1%} of the largest one; rounding to 16 "
            f"bits explains {MAX_RELATIVE_FP16:.0%}"
        )
    upper = wilson(parity.top1_agreement, parity.n)[1]
    if upper < MIN_AGREEMENT_FP16:
        raise ExportError(
            f"it answers as fp32 does on {parity.top1_agreement:.2%} of {parity.n:,} inputs; rounding to 16 bits "
            f"leaves {MIN_AGREEMENT_FP16:.1%} alike"
        )


def require_accuracy(found: Metrics, expected: Metrics, run: Run, validation: ImageSplit, task: Task) -> None:
    """Require the file's accuracy on validation to equal the network's at the end of training.

    Raises:
        ExportError: they differ by more than 0.5 points and more than two examples: the network exported is not the one
            evaluated. Says why if known.
    """
    allowed = max(_SAME_ACCURACY, 2 / found.n)
    if abs(found.accuracy - expected.accuracy) <= allowed + 1e-9:
        return
    some = validation.batch(torch.arange(min(512, len(validation))))
    mean, std = (np.array(values, np.float32).reshape(-1, 1, 1) for values in (task.mean, task.std))
    given, targets = some.inputs.contiguous().numpy(), some.targets.numpy()
    why = why_accuracy_differs(run, given, targets, expected.accuracy, mean, std)
    raise ExportError(
        f"the network exported is not the network evaluated: the file is right on {found.accuracy:.2%} of {found.n:,} "
        f"validation examples, training ended with {expected.accuracy:.2%}; "
        f"{why or 'normalisation, channel order or mode must differ'}"
    )


def _require_independent_answers(network: nn.Module, split: ImageSplit) -> None:
    inputs = split.batch(torch.arange(min(8, len(split)))).inputs
    with torch.inference_mode():
        together, alone = network(inputs), torch.cat([network(single[None]) for single in inputs])
    difference = float((together - alone).abs().max())
    if not difference <= _DEPENDS_ON_BATCH * max(1.0, float(alone.abs().max())):
        raise ExportError(
            f"the network's answer to an input depends on the others in its batch (a logit by {difference:.2g}): batch "
            "norm is in training mode, or keeps no running statistics"
        )


def _sound(run: Run, name: str, inputs: Tensor, expected: np.ndarray) -> np.ndarray:
    found = run(inputs.contiguous().numpy())
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise ExportError(
            f"on {name} the exported file gives logits {list(found.shape)} with "
            f"{int((~np.isfinite(found)).sum())} not finite; torch gives {list(expected.shape)}"
        )
    return found


def _examples(splits: Mapping[str, ImageSplit]) -> Iterator[tuple[str, Tensor]]:
    for name, split in splits.items():
        for batch in split.batches(_BATCH):
            yield name, batch.inputs
    first = next(iter(splits.values()))
    for size in (1, 7):
        yield f"batch size {size}", first.batch(torch.arange(min(size, len(first)))).inputs
