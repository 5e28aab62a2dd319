"""The result of the teacher's stage."""

from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.training.confusion import Confusion
from edgestill.pipeline.training.metrics import Metrics
from edgestill.pipeline.training.state import EpochRecord


class TeacherResult(Frozen):
    trained_here: bool
    validation: Metrics
    cost: Cost | None  # None: its answers came in a file, and nothing is known of it
    best_epoch: int | None
    curve: tuple[EpochRecord, ...]
    confusion: Confusion | None = None  # on validation; None: a run of an older version
    calibration_error: float | None = None
    ms_an_example: float | None = None  # median wall time of a call with one example, in torch
