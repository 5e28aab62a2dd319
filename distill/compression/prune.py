"""Structured pruning by NNI: whole channels go, by a criterion, until a share of the parameters is left.

The criteria: `l1`, the L1 norm of a filter (Li et al. 2017, arXiv:1608.08710); `fpgm`, its distance to the others of
its layer (He et al. 2019, arXiv:1811.00250); `taylor`, the squared product of weight and gradient (Molchanov et al.
2019, arXiv:1906.10771, equation 8). `l1` and `fpgm` take the same share of channels from every layer, `taylor` ranks
the channels of all layers together. NNI's pruners score the channels; its ModelSpeedup makes the smaller network
for each share that is tried until the parameters come out as wanted.

Order of removal: first the channels outside residual sums, as in the paper of `l1` (section 3.3); if those are not
enough, also channels of sums, from all operands of a sum together. The embedding keeps its width: a method's head
reads it, and methods compare it with the teacher's.
"""

# B batch, C channels, H W height and width

import copy
import functools
import logging
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgestill.distill.compression.narrow import changed_widths, narrow
from edgestill.distill.compression.tracing import traceable, traced
from edgestill.distill.config import PruneConfig
from edgestill.pipeline import nni_compat
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.errors import FailedError, first_line
from edgestill.pipeline.networks.network import Classifier, look
from edgestill.pipeline.randomness import drawn_from

TOLERANCE = 0.05  # share of the wanted number of parameters
_CLOSE, _TRIALS = 0.005, 16
_MOST = 0.9  # largest share of a layer's channels to remove

Masks = dict[str, dict[str, Tensor]]


class PruningError(FailedError):
    """The network cannot be pruned as asked; the message says why."""


class Pruned(NamedTuple):
    widths: dict[str, tuple[int, int]]  # of the layers that changed, for `narrow`
    state: dict[str, Tensor]  # of the narrowed network
    channels_removed: float  # share asked of every layer; of all layers together for taylor
    sums_pruned: bool  # True if channels of residual sums had to go too


def prune(
    network: nn.Module,
    classifier: nn.Module,
    config: PruneConfig,
    batches: Iterable[Batch],
    seed: int,
    params: float | None = None,
) -> Pruned:
    """Find the pruned network nearest to the wanted number of parameters; the given network stays as it is.

    Args:
        classifier: from embedding to class logits: the network's own, or a method's head. It is not pruned.
        batches: labelled examples; `taylor` takes the gradient of the cross-entropy on them, in evaluation mode.
        params: wanted number, the classifier's included. None: the share `config.keep` of the network's.

    Raises:
        PruningError: the network has no feature maps, cannot be traced, or cannot be made so small.
    """
    batches = list(batches)
    example = batches[0].inputs[:2].cpu()
    original = _traceable(network, example)
    fixed = _count(classifier) - _count(cast(Classifier, original).get_classifier())  # a head's beyond the own Linear's

    def size(candidate: nn.Module) -> int:
        return _count(candidate) + fixed

    wanted, met = config.keep * size(original) if params is None else params, []
    refused = ""
    with nni_compat.contexts():
        for sums, layers in enumerate(_prunable(original, example)):
            try:
                with drawn_from(seed):
                    masks = _scored(original, classifier, layers, config, batches, example)
                    found, removed = _nearest(functools.partial(_speed_up, original, example, masks), size, wanted)
            except PruningError:
                raise
            except Exception as error:  # NNI's errors share no base; it mistakes some sums for others
                refused = f"; NNI fails on it ({first_line(error, type(error).__name__)[:120]})"
                continue
            if abs(size(found) - wanted) <= TOLERANCE * wanted:
                return _checked(original, found, example, removed, bool(sums))
            met.append(size(found))
    nearest = min(met, key=lambda params: abs(params - wanted), default=size(original))
    raise PruningError(
        f"{config.method} cannot take the student from {size(original):,} to {wanted:,.0f} parameters; the nearest is "
        f"{nearest:,}: its embedding stays as wide as it is, and every layer keeps a tenth of its channels{refused}"
    )


def _traceable(network: nn.Module, inputs: Tensor) -> nn.Module:
    found = traceable(network, inputs)
    if found is None or not isinstance(cast(Classifier, found).get_classifier(), nn.Linear):
        raise PruningError("only channels of feature maps before a last Linear can be pruned; transformers have none")
    return found


def _trace(network: nn.Module, example: Tensor) -> fx.GraphModule:
    from torch.fx.passes.shape_prop import ShapeProp

    graph = traced(network, PruningError)
    ShapeProp(graph).propagate(example)
    return graph


def _prunable(network: nn.Module, example: Tensor) -> Iterator[list[str]]:
    """Yield names of convolutions to prune: first without those of residual sums, then with; never the embedding's."""
    dependency = nni_compat.load("nni.compression.speedup.dependency")
    graph = _trace(network, example)
    joined = [{node.target for node in nodes} for nodes in dependency.build_channel_dependency(graph)]

    def before(node: fx.Node) -> set[str]:
        """Return the convolutions that make the node's input, and those tied to them in their number of channels."""
        found = {parent.target for parent in dependency.find_adjacent_layers(node, graph, [nn.Conv2d], "parent")}
        return found.union(*(names for names in joined if names & found))

    nodes = list(graph.graph.nodes)
    modules = dict(network.named_modules())
    convolutions = [name for name, module in modules.items() if isinstance(module, nn.Conv2d)]
    last = cast(Classifier, network).get_classifier()
    embedding = set().union(*(before(n) for n in nodes if n.op == "call_module" and modules[n.target] is last))
    sums = set().union(*(before(n) for n in nodes if n.target in (operator.add, operator.iadd, torch.add, "add")))
    inner = [name for name in convolutions if name not in embedding | sums]
    outer = [name for name in convolutions if name not in embedding]
    if inner:
        yield inner
    if outer and outer != inner:
        yield outer


def _scored(
    network: nn.Module,
    classifier: nn.Module,
    layers: list[str],
    config: PruneConfig,
    batches: list[Batch],
    example: Tensor,
) -> Callable[[float], Masks]:
    """Score the layers' channels with NNI; return a function from the share of channels to remove to the masks."""
    pruning = nni_compat.load("nni.compression.pruning")
    dependency = nni_compat.load("nni.compression.speedup.dependency")
    own = copy.deepcopy(network)
    together = {"global_group_id": "all"} if config.method == "taylor" else {}
    # A setting a layer: NNI takes the layers of one from a set of names, in another order in every process, and what
    # a ranking over all layers removes depends on it.
    asked = [{"op_names": [name], "sparse_ratio": 0.5, **together} for name in layers]
    settings = dependency.auto_set_denpendency_group_ids(_trace(own, example), asked)
    if config.method == "taylor":
        pruner = pruning.TaylorPruner(own, settings, *_gradients(own, classifier, batches))
        metrics = _watched(pruner)
        pruner.compress()
    else:
        pruner = {"l1": pruning.L1NormPruner, "fpgm": pruning.FPGMPruner}[config.method](own, settings)
        metrics = pruner._calculate_metrics(pruner._collect_data())

    def masks(share: float) -> Masks:
        for targets in pruner._target_spaces.values():
            targets["weight"].sparse_ratio = share
        made: Masks = pruner._generate_sparsity(metrics)
        kept = {name: _with_the_best(made[name]["weight"], metrics[name]["weight"]) for name in made}
        return {name: _whole(channels, network.get_submodule(name)) for name, channels in kept.items()}

    return masks


def _with_the_best(mask: Tensor, scores: Tensor) -> Tensor:
    """Keep a layer's best tenth of channels, one at least, in its mask [C]: a ranking over all layers may empty one."""
    channels, scores = mask.flatten(), scores.flatten()
    least = max(1, round((1 - _MOST) * len(channels)))
    return channels.index_fill(0, scores.topk(least).indices, 1.0)


def _whole(channels: Tensor, layer: nn.Module) -> dict[str, Tensor]:
    """Expand the mask [C] of channels to the shape of each of the layer's parameters."""
    shapes = {name: parameter.shape for name, parameter in layer.named_parameters()}
    return {n: channels.view(-1, *[1] * (len(shape) - 1)).expand(shape).clone() for n, shape in shapes.items()}


def _gradients(network: nn.Module, classifier: nn.Module, batches: list[Batch]) -> tuple[Any, int]:
    """Return NNI's evaluator, with learning rate 0 so that weights stay as they are, and the number of its steps."""
    utils, nni = nni_compat.load("nni.compression.utils.evaluator"), nni_compat.load("nni")
    classifier = copy.deepcopy(classifier).cpu().eval()

    def step(batch: Batch, model: nn.Module) -> Tensor:
        return F.cross_entropy(classifier(look(model, batch.inputs.cpu()).embedding), batch.targets.cpu())

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, step: Any, *_: object) -> None:
        model.eval()
        for batch in batches:
            optimizer.zero_grad()
            step(batch, model).backward()
            optimizer.step()

    optimizer = nni.trace(torch.optim.SGD)(network.parameters(), lr=0.0)
    return utils.TorchEvaluator(train, optimizer, step), len(batches)


def _watched(pruner: Any) -> dict[str, dict[str, Tensor]]:
    """Return a dict that fills with NNI's scores as they come: its hooks lose them at the end of `compress`."""
    kept: dict[str, dict[str, Tensor]] = {}
    calculate = pruner._calculate_metrics

    def remember(data: Any) -> Any:
        kept.update(calculate(data))
        return kept

    pruner._calculate_metrics = remember
    return kept


def _nearest(
    attempt: Callable[[float], nn.Module], size: Callable[[nn.Module], int], wanted: float
) -> tuple[nn.Module, float]:
    """Bisect the share of removed channels; return the network found nearest to the wanted size, and its share."""
    low, high = 0.0, _MOST
    best, share_of_best = attempt(high), high
    if size(best) > wanted:
        return best, share_of_best
    for _ in range(_TRIALS):
        if abs(size(best) - wanted) <= _CLOSE * wanted:
            break
        share = (low + high) / 2
        found = attempt(share)
        low, high = (share, high) if size(found) > wanted else (low, share)
        if abs(size(found) - wanted) < abs(size(best) - wanted):
            best, share_of_best = found, share
    return best, share_of_best


def _speed_up(network: nn.Module, example: Tensor, masks: Callable[[float], Masks], share: float) -> nn.Module:
    speedup = nni_compat.load("nni.compression.speedup")
    own = copy.deepcopy(network)
    found: nn.Module = speedup.ModelSpeedup(
        own, example, masks(share), graph_module=_trace(own, example), logger=logging.getLogger("nni")
    ).speedup_model()
    return found


def _checked(original: nn.Module, found: nn.Module, example: Tensor, removed: float, sums: bool) -> Pruned:
    """Return the pruned widths and weights, after a check: a network rebuilt from them gives the logits of NNI's."""
    widths = changed_widths(original, found)
    state = {name: tensor.detach().clone() for name, tensor in found.state_dict().items()}
    rebuilt = narrow(copy.deepcopy(original), widths)
    rebuilt.load_state_dict(state)
    with torch.no_grad():
        difference = float((rebuilt.eval()(example) - found.eval()(example)).abs().max())
    if not widths or difference > 1e-5:
        raise PruningError(f"NNI's network is not what its layers' widths say: logits differ by {difference:.2g}")
    return Pruned(widths, state, removed, sums)


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
