"""Networks with fewer channels: the widths of their layers, and a network rebuilt from these widths.

A pruned student is its architecture plus these widths; its weights are a safetensors file. No module is pickled.
"""

import itertools
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from edgestill.pipeline.randomness import drawn_from

Widths = Mapping[str, tuple[int, int]]  # layer's name -> channels in, channels out


def widths_of(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Return channels in and out of every convolution, batch norm and linear layer, by name."""
    return {name: _width(module) for name, module in _layers(network)}


def changed_widths(before: nn.Module, after: nn.Module) -> dict[str, tuple[int, int]]:
    """Return the widths in `after` that differ from those in `before`; both have the same layers."""
    old = widths_of(before)
    return {name: width for name, width in widths_of(after).items() if width != old[name]}


def narrow(network: nn.Module, widths: Widths) -> nn.Module:
    """Give the named layers of a network these widths, in place; their weights are fresh, for a file to overwrite.

    Raises:
        ValueError: the network has no such layer, or it cannot have that width.
    """
    layers = dict(_layers(network))
    for name, (into, out) in widths.items():
        if name not in layers:
            raise ValueError(f"the network has no convolution, batch norm or linear layer called {name!r}")
        holder, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(holder), attribute, _replica(name, layers[name], into, out))
    return network


def _layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            yield name, module


def _width(module: nn.Module) -> tuple[int, int]:
    if isinstance(module, nn.Conv2d):
        return module.in_channels, module.out_channels
    if isinstance(module, nn.BatchNorm2d):
        return module.num_features, module.num_features
    assert isinstance(module, nn.Linear)
    return module.in_features, module.out_features


def _replica(name: str, module: nn.Module, into: int, out: int) -> nn.Module:
    """Make a fresh layer of these widths, with the kind, settings, mode and device of the given one."""
    given = next(
        itertools.chain(module.parameters(), module.buffers()), torch.empty(0)
    )  # a batch norm may have neither
    with drawn_from(0), torch.device(given.device):
        made: nn.Module
        if isinstance(module, nn.Conv2d):
            depthwise = module.groups > 1 and module.groups == module.in_channels
            groups = into if depthwise else module.groups
            if into % groups or out % groups:
                raise ValueError(f"{name} has {groups} groups, which {into} and {out} channels do not divide into")
            made = nn.Conv2d(
                into,
                out,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                module.dilation,  # type: ignore[arg-type]
                groups,
                bias=module.bias is not None,
                padding_mode=module.padding_mode,
            )
        elif isinstance(module, nn.BatchNorm2d):
            if into != out:
                raise ValueError(f"{name} is a batch norm: {into} channels in cannot become {out}")
            made = nn.BatchNorm2d(
                out, module.eps, module.momentum, affine=module.affine, track_running_stats=module.track_running_stats
            )
        else:
            assert isinstance(module, nn.Linear)
            made = nn.Linear(into, out, bias=module.bias is not None)
    return made.to(given.dtype).train(module.training)
