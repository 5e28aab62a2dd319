"""Explains a disagreement between a file and its network: tries each known export mistake in turn."""

import copy
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from edgestill.export.run import Run
from edgestill.pipeline.networks.network import Normalize

_ENOUGH = 64  # inputs


class Mistake(NamedTuple):
    """Export mistake with the same effect as a change of the inputs."""

    clause: str
    made: Callable[[np.ndarray], np.ndarray]  # a file with the mistake answers x as the network answers made(x)
    undone: Callable[[np.ndarray], np.ndarray]


def why_logits_differ(network: nn.Module, run: Run, inputs: np.ndarray) -> str:
    """Explain in a clause why the file's logits differ from the network's; empty if no known mistake fits.

    Args:
        inputs: [N, C, H, W] in [0, 1]; for token ids no mistakes are known.
    """
    if inputs.dtype == np.int64:
        return ""
    inputs = inputs[:_ENOUGH]
    found, normal, right = run(inputs), _normalisation_of(network), _logits(network, inputs)
    if normal is not None:
        for mistake in _mistakes(*normal):
            made = _logits(network, mistake.made(inputs))
            if _same(made, found) and not _same(made, right):  # it changes these inputs' answers
                return mistake.clause
    trained = _logits(copy.deepcopy(network).train(), inputs)
    if _same(trained, found) and not _same(trained, right):
        return "batch norm works as in training mode, by the statistics of the batch"
    return ""


def why_accuracy_differs(
    run: Run, inputs: np.ndarray, targets: np.ndarray, expected: float, mean: np.ndarray, std: np.ndarray
) -> str:
    """Name in a clause the mistake whose undoing gives the file its expected accuracy; empty if none does.

    Args:
        mean, std: [C, 1, 1], of the training data.
    """
    if inputs.dtype == np.int64:
        return ""
    for mistake in _mistakes(mean, std):
        if float((run(mistake.undone(inputs)).argmax(1) == targets).mean()) >= expected - 0.02:
            return mistake.clause
    return ""


def _mistakes(mean: np.ndarray, std: np.ndarray) -> tuple[Mistake, ...]:
    def normalised(x: np.ndarray) -> np.ndarray:
        return np.asarray((x - mean) / std)

    def raw(x: np.ndarray) -> np.ndarray:
        return np.asarray(x * std + mean)

    def exchanged(x: np.ndarray) -> np.ndarray:
        return raw((x - std) / np.where(mean == 0, 1, mean))

    def put_back(x: np.ndarray) -> np.ndarray:
        return np.asarray(normalised(x) * mean + std)

    found = (
        Mistake("its channels are in reverse order (BGR for RGB)", lambda x: x[:, ::-1], lambda x: x[:, ::-1]),
        Mistake("it does not normalise its inputs", raw, normalised),
        Mistake("it normalises its inputs twice", normalised, raw),
        Mistake("it has mean and standard deviation exchanged", exchanged, put_back),
        Mistake("it takes pixels from 0 to 255", lambda x: x * 255, lambda x: x / 255),
        Mistake("it divides pixels by 255 once more", lambda x: x / 255, lambda x: x * 255),
    )
    return tuple(Mistake(m.clause, _as_given(m.made), _as_given(m.undone)) for m in found)


def _as_given(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.ascontiguousarray(change(x), dtype=np.float32)


def _normalisation_of(network: nn.Module) -> tuple[np.ndarray, np.ndarray] | None:
    """Return mean and standard deviation of the network's first `Normalize` layer; None without one."""
    for module in network.modules():
        if isinstance(module, Normalize):
            return module.get_buffer("mean").cpu().numpy(), module.get_buffer("std").cpu().numpy()
    return None


def _logits(network: nn.Module, inputs: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        logits: np.ndarray = network(torch.from_numpy(inputs)).numpy()
    return logits


def _same(expected: np.ndarray, found: np.ndarray) -> bool:
    return bool(np.abs(expected - found).max() < 1e-3 * max(1.0, float(np.abs(found).max())))
