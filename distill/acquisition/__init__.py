"""Table of acquisition functions: a line each."""

from typing import TYPE_CHECKING, Literal

from edgestill.distill.acquisition.badge import Badge
from edgestill.distill.acquisition.base import Acquisition, Outlook
from edgestill.distill.acquisition.farthest import KCenter, PCoreSet
from edgestill.distill.acquisition.rad import Rad
from edgestill.distill.acquisition.random import Random
from edgestill.distill.acquisition.uncertainty import Entropy, Margin

ACQUISITIONS: dict[str, type[Acquisition]] = {
    "pcoreset": PCoreSet,
    "rad": Rad,
    "random": Random,
    "entropy": Entropy,
    "margin": Margin,
    "k_center": KCenter,
    "badge": Badge,
}

if TYPE_CHECKING:
    AcquisitionName = str
else:
    AcquisitionName = Literal[*ACQUISITIONS]

__all__ = ["ACQUISITIONS", "Acquisition", "AcquisitionName", "Outlook"]
