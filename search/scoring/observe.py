"""Recording of one forward pass of a candidate, as deep as its scorers need."""

# B batch, C channels, H W height and width, T tokens, D width, K classes

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgestill.pipeline.networks.network import BlockClassifier, View, look

_NAMES = ("relu", "relu6", "hardtanh", "hardswish", "silu", "gelu", "leaky_relu", "elu", "mish")
_ACTIVATIONS = frozenset(
    getattr(home, name + end)
    for home in (torch, torch.nn.functional, Tensor)
    for name in _NAMES
    for end in ("", "_")
    if hasattr(home, name + end)
)


@dataclass(frozen=True)
class Graph:
    """Forward pass with autograd's graph kept; weights are constants in it.

    Several scorers share the graph, so differentiate with `gradient`, as it does not free the graph.
    """

    inputs: Tensor  # [B, C, H, W], a leaf; for token ids, which have no gradient, their embedding [B, T, D]
    blocks: tuple[Tensor, ...]
    logits: Tensor  # [B, K]


@dataclass(frozen=True)
class Observation:
    view: View
    codes: tuple[Tensor, ...] = ()  # units of each activation that are on, [B, units] bool
    blocks: tuple[Tensor, ...] = ()  # the first block's input, then each block's output, as features
    graph: Graph | None = None


def observe(
    network: nn.Module, inputs: Tensor, *, codes: bool = False, blocks: bool = False, graph: bool = False
) -> Observation:
    """Run the network once with batch statistics, as a fresh network's running statistics mean nothing.

    The network is left in training mode with moved running statistics, and otherwise unchanged. Blocks are recorded
    only of a `BlockClassifier`.
    """
    network.train()
    activations, passed = _ActivationCodes(), list[Tensor]()
    with ExitStack() as recording:
        if codes:
            recording.enter_context(activations)
        if blocks and isinstance(network, BlockClassifier):
            recording.enter_context(_recorded(network.blocks(), passed))
        if not graph:
            recording.enter_context(torch.no_grad())
            return Observation(look(network, inputs), tuple(activations.taken), tuple(passed))
        recording.enter_context(_constant_weights(network))
        leaves: list[Tensor] = []
        if inputs.is_floating_point():
            leaves.append(inputs.detach().requires_grad_())
            view = look(network, leaves[0])
        else:
            recording.enter_context(replaced_embedding(network, lambda embedded: embedded.requires_grad_(), leaves))
            view = look(network, inputs)
    return Observation(
        View(*(tensor.detach() for tensor in view)),
        tuple(activations.taken),
        tuple(tensor.detach() for tensor in passed),
        Graph(leaves[0], tuple(passed), view.logits),
    )


def gradient(outputs: Tensor, inputs: Tensor, weights: Tensor) -> Tensor:
    """Return d <outputs, weights> / d inputs, 0 if there is no path; the graph stays for the next scorer."""
    if not (outputs.requires_grad and inputs.requires_grad):
        return torch.zeros_like(inputs)
    found = torch.autograd.grad(outputs, inputs, weights, retain_graph=True, allow_unused=True)[0]
    return torch.zeros_like(inputs) if found is None else found


@contextmanager
def replaced_embedding(network: nn.Module, replace: Callable[[Tensor], Tensor], given: list[Tensor]) -> Iterator[None]:
    """Replace the embedding of token ids by `replace` of it, detached, and append the replacement to `given`.

    Raises:
        RuntimeError: on leaving the context, if no nn.Embedding was used.
    """

    def hook(module: nn.Module, ids: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if given:  # positions or segments, looked up after the tokens
            return None
        given.append(replace(output.detach()))
        return given[0]

    handles = [m.register_forward_hook(hook) for m in network.modules() if isinstance(m, nn.Embedding)]
    try:
        yield
        if not given:
            raise RuntimeError("a network of token ids that uses no nn.Embedding has no inputs to differentiate by")
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _recorded(blocks: list[nn.Module], passed: list[Tensor]) -> Iterator[None]:
    handles = [blocks[0].register_forward_pre_hook(lambda module, given: passed.append(given[0]))]
    handles += [block.register_forward_hook(lambda module, given, output: passed.append(output)) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _constant_weights(network: nn.Module) -> Iterator[None]:
    """Make weights constants, to save memory: no scorer asks this graph for a weight's gradient."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


class _ActivationCodes(TorchFunctionMode):
    """Recorder of the units switched on (input > 0) in each activation, be it a module or a function.

    For ReLU this is the state of a linear region; for its smooth relatives, the half of the curve.
    """

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _ACTIVATIONS:  # before the call, which may overwrite its input
            self.taken.append(((args[0] if args else kwargs["input"]) > 0).flatten(1))
        return func(*args, **kwargs)
