"""Leaves in float the layers of an INT8 file whose 8-bit form costs time, where the whole is slower than it should be.

Around a layer that has no fast kernel in 8 bits, conversions to and fro cost more than the arithmetic saves. Layers are
timed in groups of neighbours, since a conversion lies between two of them: each group is left in float alone, and all
groups without which the file is faster are then left in float together.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from edgestill.export.onnx.repair import Clock, Layers
from edgestill.pipeline.errors import ExportError

GROUPS = 8
_FASTER = 1.03  # times; less is a busy machine's noise
Made = TypeVar("Made")
Medians = Callable[[Mapping[str, Made], float], Mapping[str, float]]


class Quickened(NamedTuple, Generic[Made]):
    """Network with some layers in float."""

    made: Made
    in_float: tuple[str, ...]


def quickened(
    quantizer: Layers[Made],
    fp32: Made,
    medians_ms: Medians[Made],
    holds: Callable[[Made], bool],
    min_speedup: float,
    seconds: float,
    clock: Clock = time.monotonic,
) -> Quickened[Made] | None:
    """Return a network with layers in float that is faster than the whole in 8 bits.

    None is returned if the whole is `min_speedup` times as fast as fp32 already, or if leaving layers in float does not
    help.

    Args:
        medians_ms: times networks in turns, each for so many seconds.
        holds: the gate on accuracy.
        seconds: longest time, but for a network that is being made.
    """
    begun, each = clock(), seconds / (3 * (GROUPS + 2))
    whole = quantizer.part()
    first = medians_ms({"fp32": fp32, "whole": whole}, each)
    if first["whole"] * min_speedup <= first["fp32"]:
        return None
    groups = _groups(quantizer.layers)
    made: dict[str, Made] = {}
    for place, group in enumerate(groups):
        if clock() - begun > seconds / 3:
            break
        with contextlib.suppress(ExportError):  # nothing is left to quantise, or nothing can be left out
            made[str(place)] = quantizer.part(without=group)
    alone = medians_ms({"whole": whole, **made}, each)
    slow = [place for place in made if alone[place] * _FASTER < alone["whole"]]
    if not slow:
        return None
    fastest = min(slow, key=lambda place: alone[place])
    chosen = {"one": groups[int(fastest)], "all": [layer for place in slow for layer in groups[int(place)]]}
    tried = {"one": made[fastest]}
    with contextlib.suppress(ExportError):
        tried["all"] = quantizer.part(without=chosen["all"])
    last = medians_ms({"whole": whole, **tried}, each)
    for name in sorted(tried, key=lambda name: last[name]):
        if last[name] * _FASTER < last["whole"] and holds(tried[name]):
            return Quickened(tried[name], tuple(chosen[name]))
    return None


def _groups(layers: Sequence[str]) -> list[list[str]]:
    """Cut the layers into at most GROUPS runs of neighbours of about the same length."""
    count = min(GROUPS, len(layers))
    ends = [len(layers) * place // count for place in range(count + 1)] if count else []
    return [list(layers[start:end]) for start, end in itertools.pairwise(ends)]
