"""Robust Active Distillation: informative examples, against a teacher that may be wrong about some of them.

Baykal, Trinh, Iliopoulos, Menghani and Vee, "Robust Active Distillation", ICLR 2023, arXiv:2210.01213. After its
abstract: an adversary makes m of the pool's examples worthless, and p solves

    max_p  min_{|B| = m}  sum_{i not in B} p_i g_i.

The closed form below is our derivation, equal to a linear program's value in the tests. The gain g of a student's
margin, and m as the teacher's share of errors times the size of the pool, are ours too.
"""

# N examples

from typing import ClassVar

import torch
from torch import Tensor

from edgestill.distill.acquisition.base import Acquisition, Outlook, largest, margins
from edgestill.distill.methods.facts import Evidence


class Rad(Acquisition):
    """Draws without replacement by p ~ 1 / g on the I* largest gains g = 1 - margin, and nothing below them.

    On this support the easier examples are the likelier ones: every example is worth the same, p g. The share of errors
    is counted on the labels that the run began with: labels bought later are of examples chosen for being hard.
    """

    name: ClassVar[str] = "rad"
    paper: ClassVar[str] = "Baykal et al. 2023, arXiv:2210.01213"
    evidence: ClassVar[Evidence] = "ours"
    reads_errors: ClassVar[bool] = True

    def choose(self, outlook: Outlook, count: int, generator: torch.Generator) -> Tensor:
        gains = 1 - margins(outlook.probabilities)
        worthless = min(int(outlook.error_rate * len(gains)), len(gains) - 1)
        chances, _ = robust_chances(gains, worthless)
        within = min(count, int((chances > 0).sum()))
        drawn = torch.multinomial(chances, within, generator=generator) if within else torch.empty(0, dtype=torch.int64)
        left = gains.clone()
        left[drawn] = -1.0
        return torch.cat([drawn, largest(left, count - within)])  # a support smaller than the budget: the next gains


def robust_chances(gains: Tensor, worthless: int) -> tuple[Tensor, float]:
    """Solve the game: chances p [N], and its value.

    With gains in falling order and H_I = 1 / sum_{i <= I} 1 / g_i, the support ends at I* = argmax_{I > m} (I - m) H_I,
    where p_i = H_{I*} / g_i; the value is (I* - m) H_{I*}.

    Args:
        gains: [N] float64, 0 or more.
        worthless: m, fewer than N.
    """
    order = largest(gains, len(gains))
    means = 1 / (1 / gains[order]).cumsum(0)  # H; 0 from a gain of 0 on
    values = (torch.arange(1, len(gains) + 1, dtype=gains.dtype) - worthless) * means
    end = int(values.argmax()) + 1
    chances = torch.zeros_like(gains)
    if float(values[end - 1]) > 0:
        chances[order[:end]] = means[end - 1] / gains[order[:end]]
    return chances, max(0.0, float(values[end - 1]))
