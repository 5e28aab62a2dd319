"""Words on a run's accuracy beside the majority class's: a headline is not proud of a model that knows nothing."""

from edgestill.flows.stages.results import ReportResult
from edgestill.pipeline.training.confusion import Confusion


def is_comparable(tested: ReportResult) -> bool:
    """True if points against the teacher mean something: teacher and shipped file both know the classes."""
    return not any(found is not None and found.is_useless for found in (tested.confusion, tested.teacher_confusion))


def standing(tested: ReportResult) -> str:
    """Clause of the headline on the accuracy, after a semicolon; empty for a run of an older version."""
    shipped, teacher = tested.confusion, tested.teacher_confusion
    if shipped is None or teacher is None:
        return ""
    if shipped.is_useless:
        said = f"but it is right on {shipped.accuracy:.2%}, {_no_more(shipped)}"
    elif teacher.is_useless:
        said = (
            f"but the teacher is right on {teacher.accuracy:.2%}, {_no_more(teacher)}; it is on {shipped.accuracy:.2%}"
        )
    else:
        said = f"accuracy {shipped.accuracy:.2%}, {shipped.most_frequent} {shipped.majority:.2%}"
    return f"; {said}{_never(shipped)}"


def _no_more(found: Confusion) -> str:
    return f"not surely more than the {found.most_frequent} ({found.majority:.2%})"


def _never(found: Confusion) -> str:
    if found.unit != "class":  # most tokens are rare
        return ""
    count = sum(n > 0 and not hits for n, hits in zip(found.counts, found.hits, strict=True))
    return f"; {count:,} of {found.num_classes:,} classes never recognised" if count else ""
