"""Does the file compute what the network computes? On real examples and on ones meant to break it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from export.result import Parity
from export.sessions import runner
from pipeline.data import ImageSplit
from pipeline.errors import ExportError
from pipeline.task import PADDING

MAX_ABS_DIFFERENCE = 1e-4  # of a logit, fp32
_BATCH = 256


def check_parity(
    network: nn.Module,
    path: Path,
    splits: Mapping[str, ImageSplit],
    input_shape: tuple[int, ...],
    vocab_size: int | None = None,
) -> Parity:
    """Compare file and network on whole splits, on zeros and extremes, and at batch sizes 1 and 7.

    With a vocabulary, inputs are token ids; nothing but padding, no padding at all, and shorter sequences take the
    extremes' place.

    Raises:
        ExportError: a logit differs by more than 1e-4, or an arg max differs at all; says where.
    """
    network = network.cpu().eval()
    run = runner(path)
    worst, agreeing, count, checked = 0.0, 0, 0, []
    with torch.inference_mode():
        for kind, inputs in _inputs(splits, input_shape, vocab_size):
            expected = network(inputs).numpy()
            found = run(inputs.numpy())
            if found.shape != expected.shape or not np.isfinite(found).all():
                raise ExportError(
                    f"on {kind} the exported file gives logits {list(found.shape)} with "
                    f"{int((~np.isfinite(found)).sum())} not finite; torch gives {list(expected.shape)}"
                )
            difference = float(np.abs(found - expected).max())
            same = int((found.argmax(1) == expected.argmax(1)).sum())
            if difference > MAX_ABS_DIFFERENCE or same < len(expected):
                raise ExportError(
                    f"the exported file is not the network: on {kind} logits differ by up to {difference:.2g} "
                    f"(allowed {MAX_ABS_DIFFERENCE:g}) and {len(expected) - same} of {len(expected)} answers change"
                )
            worst, agreeing, count = max(worst, difference), agreeing + same, count + len(expected)
            if kind not in checked:
                checked.append(kind)
    return Parity(max_abs_difference=worst, top1_agreement=agreeing / count, n=count, checked=tuple(checked))


def _inputs(
    splits: Mapping[str, ImageSplit], input_shape: tuple[int, ...], vocab_size: int | None
) -> Iterator[tuple[str, Tensor]]:
    for name, split in splits.items():
        for batch in split.batches(_BATCH):
            yield name, batch.inputs
    first = next(iter(splits.values()))
    for size in (1, 7):
        yield f"batch size {size}", first.batch(torch.arange(min(size, len(first)))).inputs
    noise = torch.rand(7, *input_shape, generator=torch.Generator().manual_seed(0))
    if vocab_size is not None:
        yield "padding", torch.full((1, *input_shape), PADDING)
        ids = 1 + (noise * (vocab_size - 1)).long()
        yield "noise", ids
        for length in {1, (input_shape[0] + 1) // 2}:
            yield "shorter", ids[:, :length]
        return
    yield "zeros", torch.zeros(1, *input_shape)
    yield "ones", torch.ones(1, *input_shape)
    stripes = torch.zeros(1, *input_shape)
    stripes[..., ::2] = 1
    yield "stripes", stripes
    yield "noise", noise
