"""Leaves in float the layers of an INT8 file that cost it its accuracy: as few as a gate accepts.

A layer's damage is measured with it alone in 8 bits. Leaving one out of the whole would not show layers that fail
together: between a depthwise convolution of widely spread channels and the product that reads them, one tensor is
quantised for both.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from edgestill.pipeline.errors import ExportError

DAMAGE_EXAMPLES = 64
Clock = Callable[[], float]
Made = TypeVar("Made")  # a quantised network: a file's bytes, or a runtime's object
Given = TypeVar("Given", covariant=True)


class Repaired(NamedTuple, Generic[Made]):
    """Network with some layers in float."""

    made: Made
    in_float: dict[str, float]  # layer -> its damage alone: RMS of the logits' change over the RMS of their spread


class Layers(Protocol[Given]):
    """Quantiser of one network, whole or in part."""

    @property
    def layers(self) -> tuple[str, ...]: ...

    def part(self, *, only: Sequence[str] = (), without: Sequence[str] = ()) -> Given: ...


def damage_of(
    quantizer: Layers[Made],
    expected: np.ndarray,
    answers: Callable[[Made], np.ndarray],
    seconds: float,
    clock: Clock = time.monotonic,
) -> dict[str, float]:
    """Measure the damage of each layer alone; 0 for those that change nothing alone, or whose turn comes too late.

    Args:
        expected: logits of fp32 [N, K] on examples of calibration, never of validation.
        answers: gives a quantised network's logits on them.
        seconds: longest time.
    """
    begun = clock()
    spread = float(np.sqrt(np.mean((expected - expected.mean(axis=1, keepdims=True)) ** 2))) or 1.0
    found = dict.fromkeys(quantizer.layers, 0.0)
    for layer in found:
        if clock() - begun > seconds:
            break
        with contextlib.suppress(ExportError):  # it follows its neighbours, and is not quantised alone
            change = answers(quantizer.part(only=[layer])) - expected
            found[layer] = float(np.sqrt(np.mean(change**2))) / spread
    return found


def repaired(
    quantizer: Layers[Made],
    damage: Mapping[str, float],
    holds: Callable[[Made], bool],
    seconds: float,
    clock: Clock = time.monotonic,
) -> Repaired[Made] | None:
    """Return the network with the fewest of the worst layers in float that holds; None if none is found in time.

    Their number is doubled until the network holds; the fewest is then looked for between the last two.

    Args:
        holds: the gate.
        seconds: longest time, but for a network that is being tried.
    """
    begun = clock()
    worst = sorted(damage, key=lambda layer: -damage[layer])
    found: Made | None = None
    fails, holding = 0, len(worst)  # numbers of layers in float; with all of them nothing is quantised
    while holding - fails > 1 and clock() - begun <= seconds:
        count = (fails + holding) // 2 if found is not None else min(max(1, 2 * fails), holding - 1)
        made = _without(quantizer, worst[:count])
        if made is not None and holds(made):
            found, holding = made, count
        else:
            fails = count
    return None if found is None else Repaired(found, {layer: damage[layer] for layer in worst[:holding]})


def _without(quantizer: Layers[Made], layers: Sequence[str]) -> Made | None:
    try:
        return quantizer.part(without=layers)
    except ExportError:  # nothing is left to quantise
        return None
