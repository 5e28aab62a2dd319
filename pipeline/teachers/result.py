"""The result of the teacher's stage."""

from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.training.metrics import Metrics
from edgestill.pipeline.training.state import EpochRecord


class TeacherResult(Frozen):
    trained_here: bool
    validation: Metrics
    cost: Cost
    best_epoch: int | None
    curve: tuple[EpochRecord, ...]
