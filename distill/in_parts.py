"""The loss of a language model with few rows of logits in memory at a time.

A row has a logit for each token id, and a step a row for each token of its answers: logits, probabilities and gradients
of both networks, kept until the backward pass, soon take more memory than all else. Here each part of the rows is
computed from the networks' last states, and again in the backward pass (Chen et al. 2016, arXiv:1604.06174).
"""

# R rows, D width, V token ids

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.networks.network import View

Terms = Callable[[View, View, Tensor, Batch], Mapping[str, Tensor]]  # means over rows, as `Recipe.terms` gives them


def loss_in_parts(
    terms: Terms, teacher: nn.Module, student: nn.Module, batch: Batch, at_once: int
) -> dict[str, Tensor]:
    """Return the terms of the loss, from parts of at most `at_once` rows; each row's terms depend on that row alone."""
    own = _states(student, batch)
    with torch.no_grad():
        told = _states(teacher, batch)
    heads = tuple(network.get_classifier() for network in (teacher, student))  # type: ignore[operator]
    totals: dict[str, Tensor] = {}
    for rows in torch.arange(len(own), device=own.device).split(at_once):  # type: ignore[no-untyped-call]
        part, share = _part(batch, rows), len(rows) / len(own)
        given = (terms, heads, part, told[rows], own[rows])
        found: dict[str, Tensor] = checkpoint(_computed, *given, use_reentrant=False, preserve_rng_state=False)
        for name, mean in found.items():
            totals[name] = totals[name] + share * mean if name in totals else share * mean
    return totals


def _computed(terms: Terms, heads: tuple[nn.Module, nn.Module], part: Batch, told: Tensor, own: Tensor) -> Any:
    with torch.no_grad():
        teacher = View(told, told, heads[0](told))
    student = View(own, own, heads[1](own))
    with torch.autocast(own.device.type, enabled=False):
        views = [View(*(value.float() for value in view)) for view in (teacher, student)]
        return dict(terms(views[0], views[1], views[1].logits, part))


def _states(network: Any, batch: Batch) -> Tensor:
    """Last states of the rows, [R, D]."""
    assert batch.rows is not None
    text, place = batch.rows.unbind(1)
    states: Tensor = network.forward_features(batch.inputs)[text, place]
    return states


def _part(batch: Batch, rows: Tensor) -> Batch:
    assert batch.rows is not None
    return Batch(batch.inputs, batch.targets[rows], batch.index[rows], view=batch.view, rows=batch.rows[rows])
