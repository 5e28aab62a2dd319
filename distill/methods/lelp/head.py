"""Classifier of subclasses that gives the classes' logits; a student with C x S outputs ships with it."""

# N examples, D embedding width, C classes, S subclasses a class

import copy
from typing import cast

from torch import Tensor, nn

from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.network import Classifier
from edgestill.pipeline.randomness import drawn_from


class FoldedHead(nn.Module):
    """Head with logit_c = log sum_s exp o_{c,s}: the log of the summed probabilities, up to a common normaliser."""

    def __init__(self, linear: nn.Linear, subclasses: int) -> None:
        super().__init__()
        self.linear = linear  # D to C * S, class by class
        self.subclasses = subclasses

    def forward(self, embedding: Tensor) -> Tensor:
        return fold(self.linear(embedding), self.subclasses)


def fold(logits: Tensor, subclasses: int) -> Tensor:
    """Fold subclass logits [N, C * S] to class logits [N, C]."""
    return logits.reshape(-1, logits.shape[1] // subclasses, subclasses).logsumexp(2)


def subclass_linear(student: nn.Module, subclasses: int, seed: int = 0) -> nn.Linear:
    """Make a Linear from the student's embedding to all subclasses, on the student's device.

    Args:
        seed: of the weights; it matters only if no others will be loaded.

    Raises:
        ConfigError: the student does not end in a Linear.
    """
    own = cast(Classifier, student).get_classifier()
    if not isinstance(own, nn.Linear):
        raise ConfigError(
            [f"a head of subclasses replaces a student's last Linear, and this one ends in a {type(own).__name__}"]
        )
    with drawn_from(seed):
        linear = nn.Linear(own.in_features, own.out_features * subclasses)
    return linear.to(own.weight.device)


def with_classifier(student: nn.Module, classifier: nn.Module) -> nn.Module:
    """Return the student with another classifier in place of its own; all other modules are shared, none is copied."""
    own = cast(Classifier, student).get_classifier()
    path = next(name for name, module in student.named_modules() if module is own).split(".")
    replica = holder = _shallow(student)
    for name in path[:-1]:
        holder._modules[name] = _shallow(cast(nn.Module, holder._modules[name]))
        holder = cast(nn.Module, holder._modules[name])
    holder._modules[path[-1]] = classifier
    return replica


def _shallow(module: nn.Module) -> nn.Module:
    replica = copy.copy(module)
    replica._modules = dict(module._modules)
    return replica
