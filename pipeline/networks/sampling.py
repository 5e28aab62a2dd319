"""Continuations of prompts, drawn from a causal network token by token."""

# B texts, T tokens of the longest text, V token ids

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.input_kind.lm import END
from edgestill.pipeline.networks.attention import Cache
from edgestill.pipeline.networks.network import evaluating, look

Read = Callable[[Tensor], Tensor]  # the next columns of the texts [B, t] to the logits of the token after them [B, V]
Choose = Callable[[Tensor], Tensor]  # logits [B, V] to the next tokens [B]


class Drawn(NamedTuple):
    """Texts that a network continued."""

    ids: Tensor  # [B, T] int64: each prompt, the tokens drawn behind it, and padding
    log_probs: Tensor  # [B, T] logarithm of each drawn token's probability at temperature 1; 0 elsewhere


def drawn(
    network: nn.Module,
    prompts: Tensor,
    ends: Tensor,
    choose: Choose,
    *,
    most: int | None = None,
) -> Drawn:
    """Continue each prompt until END, until `most` tokens are drawn, or until it is as long as `prompts` is wide.

    All texts grow by a column at a time. Where a prompt is longer than others, the column is its own token, so that no
    text is padded in front and one cache serves all.

    Args:
        prompts: [B, T] int64, padded behind.
        ends: [B] number of tokens of each prompt, from 1; T continues nothing.
        choose: is asked once a column, for all texts.
    """
    width = prompts.shape[1]
    places = torch.arange(width, device=prompts.device)
    ids = torch.where(places < ends[:, None], prompts, PADDING)
    log_probs = torch.zeros(ids.shape, device=ids.device)
    last = ends + (width if most is None else most)
    going, start = ends < width, int(ends.min())
    device = ids.device.type
    with evaluating(network), torch.no_grad(), torch.autocast(device, enabled=False):
        read, new = _reader(network), ids[:, :start]
        for column in range(start, width if bool(going.any()) else start):
            logits = read(new).float()
            token = choose(logits)
            log_prob = logits.log_softmax(1).gather(1, token[:, None])[:, 0]
            own = going & (ends <= column)
            ids[:, column] = torch.where(own, token, ids[:, column])
            log_probs[:, column] = torch.where(own, log_prob, 0.0)
            going = going & ~(own & (token == END)) & (column + 1 < last)
            if not bool(going.any()):
                break
            new = ids[:, column : column + 1]
    return Drawn(ids, log_probs)


def by_chance(generator: torch.Generator, temperature: float) -> Choose:
    """Draw tokens from the softmax at a temperature > 0, never padding.

    Args:
        generator: on the CPU, so that the draws do not depend on the device.
    """

    def choose(logits: Tensor) -> Tensor:
        scaled = logits / temperature
        scaled[:, PADDING] = -torch.inf
        reached = scaled.softmax(1).cumsum(1)
        at = torch.rand(len(logits), 1, generator=generator).to(logits.device)
        return torch.searchsorted(reached, at * reached[:, -1:], right=True).clamp_max(logits.shape[1] - 1)[:, 0]

    return choose


def _reader(network: nn.Module) -> Read:
    """Read by a cache of keys and values where the network has one, else the whole texts again."""
    return _whole(network) if getattr(network, "cache_shape", None) is None else _cached(network)


def _cached(network: Any) -> Read:
    layers, heads, width = network.cache_shape
    past: Tensor | None = None

    def read(new: Tensor) -> Tensor:
        nonlocal past
        cache = Cache(torch.zeros(len(new), layers, 2, heads, 0, width, device=new.device) if past is None else past)
        states = network.states(new, cache)
        past = cache.present()
        return cast(Tensor, network.get_classifier()(states[:, -1]))

    return read


def _whole(network: nn.Module) -> Read:
    seen: list[Tensor] = []

    def read(new: Tensor) -> Tensor:
        seen.append(new)
        ids = torch.cat(seen, 1)
        text = torch.arange(len(ids), device=ids.device)
        last = torch.stack([text, torch.full_like(text, ids.shape[1] - 1)], 1)
        return look(network, ids, last).logits

    return read
