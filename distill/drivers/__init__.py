"""Table of drivers: a file and a line each."""

from edgestill.distill.drivers.active import Active
from edgestill.distill.drivers.base import Driver, DriverConfig, Lesson, Room
from edgestill.distill.drivers.federated import Federated
from edgestill.distill.drivers.generations import Generations
from edgestill.distill.drivers.once import Once
from edgestill.distill.drivers.rollout import Rollout

DRIVERS: dict[str, type[Driver]] = {
    "once": Once,
    "generations": Generations,
    "active": Active,
    "federated": Federated,
    "rollout": Rollout,
}

__all__ = ["DRIVERS", "Driver", "DriverConfig", "Lesson", "Room"]
