"""The parts of a foreign network: its last Linear, whose input is the embedding, and the features before pooling."""

# B batch, C channels, H W height and width, T tokens, D width, K classes

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from edgestill.pipeline.errors import CheckpointError, nearest

Call = Callable[[nn.Module, Tensor], Any]  # (network, its inputs) to its answers


class Parts(NamedTuple):
    """Names of modules, for `get_submodule`."""

    classifier: str | None  # the last Linear that the forward pass runs
    features: str | None  # its output is [B, C, H, W] or [B, T, D]


class _Event(NamedTuple):
    name: str
    module: nn.Module
    given: Tensor | None
    made: Tensor


def answers_of(found: Any) -> Tensor:
    """Return the logits of what a network returns: a tensor, a named `logits`, or the first of several.

    Raises:
        CheckpointError: there is no tensor [B, K].
    """
    if isinstance(found, dict):
        found = found.get("logits", next(iter(found.values()), None))
    elif hasattr(found, "logits"):
        found = found.logits
    while isinstance(found, tuple | list) and found:
        found = found[0]
    if not isinstance(found, Tensor) or found.dim() != 2:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise CheckpointError(f"the teacher answers with {shape}; a classifier gives logits [batch, classes]")
    return found


def find_parts(
    network: nn.Module, call: Call, example: Tensor, classifier: str | None = None, features: str | None = None
) -> tuple[Parts, Tensor]:
    """Run the network, in evaluation mode, once on an example; return its parts and its answers.

    Args:
        classifier, features: names of modules that the user gave, in place of what would be found.

    Raises:
        CheckpointError: there is no such module, or it was not run.
    """
    # a script's own modules take no hooks
    names = {m: name for name, m in network.named_modules() if name and not isinstance(m, torch.jit.ScriptModule)}
    for key, given in (("classifier", classifier), ("features", features)):
        if given is not None and given not in names.values():
            raise CheckpointError(
                f"teacher.{key}: the network has no module {given!r}; {nearest(given, names.values())}"
            )
    events: list[_Event] = []

    def record(module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        if isinstance(made, Tensor):
            first = given[0] if given and isinstance(given[0], Tensor) else None
            events.append(_Event(names[module], module, first, made))

    handles = [module.register_forward_hook(record) for module in names]
    try:
        with torch.no_grad():
            answers = answers_of(call(network, example))
    finally:
        for handle in handles:
            handle.remove()
    last = _last_linear(events, answers.shape[1], classifier)
    before = events if last is None else events[: _place(events, last)]
    return Parts(None if last is None else last.name, _features(before, features)), answers


@contextmanager
def taking(network: nn.Module, parts: Parts) -> Iterator[dict[str, Tensor]]:
    """Keep the embedding and the features of the forward pass within, where the network has them."""
    taken: dict[str, Tensor] = {}

    def embedding(module: nn.Module, given: tuple[Any, ...]) -> None:
        taken["embedding"] = given[0]

    def features(module: nn.Module, given: Any, made: Tensor) -> None:
        if made.dim() > 2:
            taken["features"] = made

    handles = []
    if parts.classifier is not None:
        handles.append(network.get_submodule(parts.classifier).register_forward_pre_hook(embedding))
    if parts.features is not None:
        handles.append(network.get_submodule(parts.features).register_forward_hook(features))
    try:
        yield taken
    finally:
        for handle in handles:
            handle.remove()


def _last_linear(events: list[_Event], classes: int, named: str | None) -> _Event | None:
    """Return the classifier's event; None if its input is no embedding [B, D], or it does not give the answers."""
    linears = [e for e in events if e.name == named or (named is None and isinstance(e.module, nn.Linear))]
    if named is not None and (not linears or linears[-1].given is None or linears[-1].given.dim() != 2):
        raise CheckpointError(f"teacher.classifier: {named} takes no embedding [batch, width] in a forward pass")
    if not linears:
        return None
    last = linears[-1]
    fits = last.given is not None and last.given.dim() == 2 and last.made.shape[-1] == classes
    return last if fits or named is not None else None


def _features(events: list[_Event], named: str | None) -> str | None:
    maps = [e for e in events if e.made.dim() in (3, 4) and e.made.is_floating_point()]
    if named is not None:
        if not any(e.name == named for e in maps):
            raise CheckpointError(f"teacher.features: {named} gives no [B, C, H, W] or [B, T, D] before the classifier")
        return named
    wide = [e for e in maps if _is_wide(e.made)]
    after = maps[_place(maps, wide[-1]) + 1 :] if wide else maps
    has_shrunk = bool(after) and _has_weights(after[0]) and (not wide or _is_wide(after[0].given))
    found = [e for e in after if _has_weights(e)] if has_shrunk else wide or maps
    return found[-1].name if found else None


def _place(events: list[_Event], event: _Event) -> int:
    return next(number for number, one in enumerate(events) if one is event)


def _is_wide(tensor: Tensor | None) -> bool:
    """True for maps of several positions."""
    return tensor is not None and tensor.dim() > 2 and tensor[0].numel() > max(tensor.shape[1], tensor.shape[-1])


def _has_weights(event: _Event) -> bool:
    """True for a layer with weights: one that makes a single position did so by a stride, not by pooling."""
    return next(event.module.parameters(), None) is not None
