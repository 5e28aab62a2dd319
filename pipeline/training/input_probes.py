"""Other inputs that a network may have been trained on: another normalisation, order of channels, or size."""

# B batch, C channels, H W height and width

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.pipeline.networks.network import Normalize
from edgestill.pipeline.task import Task

_SIDES = (32, 64, 128, 224)  # pixels, that networks are commonly trained at
_LARGEST_FACTOR = 7  # of a side that is tried: 32 pixels to 224
_MARGIN = 0.1
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_MNIST = ((0.1307,), (0.3081,))


class Probe(NamedTuple):
    """A change of the inputs, and the fix where it makes the network better."""

    found: str  # about the network, such as `it expects images of 64 pixels`
    fix: str
    change: Callable[[Tensor], Tensor]  # of [B, C, H, W] in [0, 1]
    cost: float = 1.0  # of a forward pass, over that of the inputs as they are
    margin: float = 0.0  # gain in accuracy over simpler changes, for a change that is two in one


class _Normalisation(NamedTuple):
    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def probes_of(network: nn.Module, task: Task, *, takes_mean: bool, size_key: str = "") -> list[Probe]:
    """Return the changes to try on an image network.

    Args:
        takes_mean: the teacher's settings have `mean` and `std`.
        size_key: setting for the size of the images that the network gets; empty if there is none.
    """
    own = _own_normalisation(network, task)
    return [*_pixels(own, task, takes_mean), *_sizes(task, size_key)]


def _pixels(own: _Normalisation, task: Task, takes_mean: bool) -> Iterator[Probe]:
    """Yield probes of the normalisation, and of blue-first channels under each."""
    others = [other for other in _normalisations(task) if not _is_close(own, other)]
    for other in others:
        yield Probe(f"it expects {other.name}", _set(other, takes_mean), _renormalised(own, other))
    if len(own.mean) == 3:
        swap = "swap the input channels 0 and 2 of its first layer's weights"
        yield Probe("it expects the channels blue first", swap, _blue_first(_renormalised(own, own)))
        for other in others:
            found = f"it expects the channels blue first and {other.name}"
            change = _blue_first(_renormalised(own, other))
            yield Probe(found, f"{swap}, and {_set(other, takes_mean)}", change, margin=_MARGIN)


def _set(other: _Normalisation, takes_mean: bool) -> str:
    """Say how to give a network a normalisation."""
    mean, std = (f"[{', '.join(f'{value:.4g}' for value in values)}]" for values in (other.mean, other.std))
    if takes_mean:
        return f"set teacher.mean to {mean} and teacher.std to {std}"
    return f"let the network take the mean {mean} from its pixels and divide by the std {std}"


def _blue_first(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda inputs: change(inputs).flip(1)


def _sizes(task: Task, size_key: str) -> Iterator[Probe]:
    _, height, width = task.input_shape
    sides = {(2 * height, 2 * width), (height // 2, width // 2)}
    sides |= {(side, side) for side in _SIDES} if height == width else set()
    for to in sorted(sides - {(height, width)}):
        if min(to) >= 4 and to[0] <= _LARGEST_FACTOR * height:
            named = f"{to[0]} x {to[1]}"
            set_to = f"set {size_key} to {to[0] if to[0] == to[1] else list(to)}"
            fix = set_to if size_key else "give the data at that size"
            yield Probe(
                f"it expects images of about {named} pixels, and the data's are {height} x {width}",
                fix,
                lambda inputs, to=to: F.interpolate(inputs, size=to, mode="bilinear", antialias=True),  # type: ignore[misc]
                max(1.0, to[0] * to[1] / (height * width)),
            )


def _normalisations(task: Task) -> Iterator[_Normalisation]:
    channels = task.input_shape[0]
    yield _Normalisation("pixels in [0, 1] that are not normalised", (0.0,) * channels, (1.0,) * channels)
    yield _Normalisation("pixels from 0 to 255", (0.0,) * channels, (1 / 255,) * channels)
    yield _Normalisation("pixels in [-1, 1]", (0.5,) * channels, (0.5,) * channels)
    yield _Normalisation("the mean and std of the training pixels", task.mean, task.std)
    if channels == 3:
        yield _Normalisation("ImageNet's mean and std", *_IMAGENET)
        yield _Normalisation("pixels from 0 to 255 less ImageNet's mean", _IMAGENET[0], (1 / 255,) * 3)
    if channels == 1:
        yield _Normalisation("MNIST's mean and std", *_MNIST)


def _own_normalisation(network: nn.Module, task: Task) -> _Normalisation:
    """The network's own normalisation; none where it has no such layer."""
    channels = task.input_shape[0]
    for module in network.modules():
        if isinstance(module, Normalize):
            mean, std = (_of_channels(module.get_buffer(name), channels) for name in ("mean", "std"))
            return _Normalisation("its own", mean, std)
    return _Normalisation("its own", (0.0,) * channels, (1.0,) * channels)


def _of_channels(values: Tensor, channels: int) -> tuple[float, ...]:
    """A value for each of the data's channels; their mean where the network has another number of channels."""
    given: list[float] = values.flatten().tolist()
    return tuple(given) if len(given) == channels else (sum(given) / len(given),) * channels


def _renormalised(own: _Normalisation, other: _Normalisation) -> Callable[[Tensor], Tensor]:
    """Return a change of inputs after which the network's own normalisation gives the other one's result."""
    own_mean, own_std, mean, std = (
        torch.tensor(values).view(-1, 1, 1) for values in (own.mean, own.std, other.mean, other.std)
    )

    def change(inputs: Tensor) -> Tensor:
        a, b, c, d = (part.to(inputs.device) for part in (own_mean, own_std, mean, std))
        return (inputs - c) / d * b + a

    return change


def _is_close(one: _Normalisation, other: _Normalisation) -> bool:
    """True if pixels differ by less than a twentieth of a standard deviation under the two."""
    pairs = zip(one.mean + one.std, other.mean + other.std, one.std * 2, strict=True)
    return all(abs(a - b) < 0.05 * scale for a, b, scale in pairs)
