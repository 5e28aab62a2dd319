"""Equal layers of a network, such as a transformer's, and smaller networks of the same layers, heads and neurons."""

# D width of the network, N width of a head

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

QUARTERS = 4  # parts in which a feed-forward width is cut


class Layers(NamedTuple):
    """Equal layers of a network, one after the other."""

    path: str  # of the list of them, for `get_submodule`
    depth: int
    heads: int | None  # of each layer's attention; None: neither heads nor feed-forward can be cut


class EncoderSizes(NamedTuple):
    """Sizes of a classifier's equal layers."""

    kind: str | None  # of the inputs; None: the task's
    layers: int
    heads: int | None  # of each; None: neither heads nor feed-forward can be cut
    width: int  # of the embedding


class _Family(NamedTuple):
    """Names within a layer of what is cut: Linears, and the attributes that hold their sizes."""

    queries: tuple[str, ...]  # Linears of queries, keys and values, or one of the three, a head after the other
    out: str  # Linear that reads the heads
    head_width: str
    heads: str
    width: str  # of all heads together; "" where no attribute holds it
    into: str  # Linears of the feed-forward
    back: str


_OWN = tuple(f"attention.{name}" for name in ("query", "key", "value"))
_BERT = tuple(f"attention.self.{name}" for name in ("query", "key", "value"))
_DISTILBERT = tuple(f"attention.{name}_lin" for name in "qkv")
_HF_VIT = tuple(f"attention.{name}_proj" for name in "qkv")
_FAMILIES = (
    _Family(_OWN, "attention.out", "attention.head_width", "attention.heads", "", "feed_forward.0", "feed_forward.2"),
    _Family(
        _BERT, "attention.output.dense", "attention.self.attention_head_size", "attention.self.num_attention_heads",
        "attention.self.all_head_size", "intermediate.dense", "output.dense",
    ),
    _Family(
        _DISTILBERT, "attention.out_lin", "attention.attention_head_size", "attention.n_heads", "", "ffn.lin1",
        "ffn.lin2",
    ),
    _Family(
        _HF_VIT, "attention.o_proj", "attention.head_dim", "attention.num_attention_heads", "", "mlp.fc1", "mlp.fc2"
    ),
    _Family(("attn.qkv",), "attn.proj", "attn.head_dim", "attn.num_heads", "attn.attn_dim", "mlp.fc1", "mlp.fc2"),
)  # fmt: skip


def find_layers(network: nn.Module) -> Layers | None:
    """Find the list of equal layers with the most parameters; None if there is none.

    Layers of an attention that is not known here must hold half of the network's parameters, embeddings left out: a
    stage of a convolutional network has equal layers too.
    """
    found: list[tuple[bool, int, Layers]] = []
    for path, module in network.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential) or not _are_equal(list(module)):
            continue
        family, params = _family_of(module[0]), _count(module)
        if family is not None:
            found.append((True, params, Layers(path, len(module), _size(module[0], family.heads))))
        elif len(module) > 1 and 2 * params >= _count(network) - sum(map(_count, _embeddings(network))):
            found.append((False, params, Layers(path, len(module), None)))
    return max(found, default=(False, 0, None), key=lambda one: one[:2])[2]


def spread(count: int, kept: int) -> list[int]:
    """Return evenly spaced numbers of layers, the first and the last among them; of a single one, the first."""
    return [round(i * (count - 1) / max(1, kept - 1)) for i in range(kept)]


def keep_layers(network: nn.Module, layers: Layers, kept: Sequence[int]) -> None:
    """Leave only layers of these numbers in a network."""
    held = cast(nn.Sequential, network.get_submodule(layers.path))
    left = [held[i] for i in kept]
    holder, _, name = layers.path.rpartition(".")
    made = nn.ModuleList(left) if isinstance(held, nn.ModuleList) else nn.Sequential(*left)
    setattr(network.get_submodule(holder), name, made)


def keep_heads(layer: nn.Module, count: int) -> None:
    """Leave the `count` heads of largest importance in a layer, in their order.

    A head's importance is the Frobenius norm of O V, the product of its parts of the output's and of the values'
    matrix: the map of what the head writes, wherever it attends (Elhage et al. 2021, A Mathematical Framework for
    Transformer Circuits). It is the norm criterion of Li et al. 2017 (arXiv:1608.08710) for heads. Michel et al. 2019
    (arXiv:1905.10650) rank heads by gradients instead, which needs data.
    """
    family = _family_of(layer)
    assert family is not None
    heads, width = _size(layer, family.heads), _size(layer, family.head_width)
    kept = _largest(_of_heads(layer, family, heads), count)
    rows = (kept[:, None] * width + torch.arange(width)).flatten()
    parts = 3 // len(family.queries)
    of_all = torch.cat([rows + part * heads * width for part in range(parts)])
    for name in family.queries:
        _keep_rows(_linear(layer, name), of_all)
    _keep_columns(_linear(layer, family.out), rows)
    _set(layer, family.heads, count)
    if family.width:
        _set(layer, family.width, count * width)


def keep_neurons(layer: nn.Module, quarters: int) -> None:
    """Leave so many quarters of a layer's feed-forward neurons, those of largest importance, in their order.

    A neuron's importance is the norm of its weights in times the norm of its weights out: the Frobenius norm of the map
    of what it writes, as for heads.
    """
    family = _family_of(layer)
    assert family is not None
    into, back = _linear(layer, family.into), _linear(layer, family.back)
    importance = into.weight.detach().norm(dim=1) * back.weight.detach().norm(dim=0)
    kept = _largest(importance, max(1, round(into.out_features * quarters / QUARTERS)))
    _keep_rows(into, kept)
    _keep_columns(back, kept)


def _of_heads(layer: nn.Module, family: _Family, heads: int) -> Tensor:
    """Importance of each head: |O V|, by the matrices' products with themselves, N x N each."""
    values = _linear(layer, family.queries[-1]).weight.detach()
    out = _linear(layer, family.out).weight.detach()
    values = values[-out.shape[1] :].double().reshape(heads, -1, values.shape[1])  # [heads, N, D]
    written = out.T.double().reshape(heads, -1, out.shape[0])  # [heads, N, D]
    squares = ((values @ values.transpose(1, 2)) * (written @ written.transpose(1, 2))).sum((1, 2))
    return squares.clamp_min(0).sqrt()


def _largest(importance: Tensor, count: int) -> Tensor:
    """Numbers of the `count` largest, in order; of equal ones the first, as of a network without values."""
    if importance.is_meta:
        return torch.arange(count)
    return importance.argsort(descending=True, stable=True)[:count].sort().values


def _family_of(layer: nn.Module) -> _Family | None:
    return next((family for family in _FAMILIES if _fits(layer, family)), None)


def _fits(layer: nn.Module, family: _Family) -> bool:
    """True if the layer has all that the family names, and no other weights between its Linears."""
    linears = [*family.queries, family.out, family.into, family.back]
    modules = dict(layer.named_modules())
    if not all(isinstance(modules.get(name), nn.Linear) for name in linears):
        return False
    attention, feed_forward = family.queries[0].rpartition(".")[0], family.into.rpartition(".")[0]
    known = [*linears, f"{attention}.q_norm", f"{attention}.k_norm"]  # a head's own, which keeps its width
    for part in (attention, feed_forward):
        inside = [f"{part}.{name}" for name, _ in modules[part].named_parameters()]
        if not all(any(name.startswith(f"{one}.") for one in known) for name in inside):
            return False
    heads, width = _size(layer, family.heads), _size(layer, family.head_width)
    into, back, out = (_linear(layer, name) for name in (family.into, family.back, family.out))
    of_heads = 3 // len(family.queries) * heads * width
    is_whole = all(_linear(layer, name).out_features == of_heads for name in family.queries)
    return is_whole and out.in_features == heads * width and into.out_features == back.in_features


def _are_equal(layers: Sequence[nn.Module]) -> bool:
    """True for layers of one class whose weights have the same names and shapes."""
    forms = {(type(one), tuple((name, p.shape) for name, p in one.named_parameters())) for one in layers}
    return len(forms) == 1 and bool(next(iter(forms))[1])


def _embeddings(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.Embedding)]


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _keep_rows(linear: nn.Linear, rows: Tensor) -> None:
    linear.weight = _kept(linear.weight, 0, rows)
    if linear.bias is not None:
        linear.bias = _kept(linear.bias, 0, rows)
    linear.out_features = len(rows)


def _keep_columns(linear: nn.Linear, columns: Tensor) -> None:
    linear.weight = _kept(linear.weight, 1, columns)
    linear.in_features = len(columns)


def _kept(parameter: Tensor, dim: int, numbers: Tensor) -> nn.Parameter:
    chosen = parameter.detach().index_select(dim, numbers.to(parameter.device))
    return nn.Parameter(chosen, requires_grad=parameter.requires_grad)


def _linear(layer: nn.Module, name: str) -> nn.Linear:
    return cast(nn.Linear, layer.get_submodule(name))


def _size(layer: nn.Module, name: str) -> int:
    """Value of an attribute of a module in the layer; 0 if it has none."""
    module, _, attribute = name.rpartition(".")
    found = getattr(layer.get_submodule(module), attribute, 0)
    return found if isinstance(found, int) else 0


def _set(layer: nn.Module, name: str, value: int) -> None:
    module, _, attribute = name.rpartition(".")
    setattr(layer.get_submodule(module), attribute, value)
