"""Result of an update of the influence."""

# N training examples

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Weighing:
    """Influence and weight of each training example, for one network."""

    influence: Tensor  # [N], of the last update; positive is harmful
    weight: Tensor  # [N], mean 1
    updates: int = 0
