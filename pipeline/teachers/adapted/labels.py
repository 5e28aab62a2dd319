"""Comparison of a teacher's class names with the data's, and the order that maps one to the other."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from edgestill.pipeline.errors import CheckpointError

_NAMELESS = re.compile(r"(label|class)?[ _-]?\d+", re.IGNORECASE)  # LABEL_0, class 3, 7: numbers and no names
_SHOWN = 6


class Matched(NamedTuple):
    order: tuple[int, ...] | None  # for each class of the data the teacher's output; None: they are alike
    caution: str = ""


def match_labels(theirs: Sequence[str] | None, ours: Sequence[str], outputs: int, who: str) -> Matched:
    """Find each class of the data among the teacher's outputs, by name.

    Args:
        theirs: the teacher's names in the order of its outputs; None: it has none.
        outputs: number of its outputs.
        who: the teacher, as a sentence names it.

    Raises:
        CheckpointError: it has another number of classes, or other classes, than the data.
    """
    named = None if theirs is None or all(_NAMELESS.fullmatch(name.strip()) for name in theirs) else list(theirs)
    if theirs is not None and len(theirs) != outputs:
        raise CheckpointError(f"{len(theirs)} names are given in teacher.labels for the {outputs} outputs of {who}")
    found = None if named is None else _found(named, ours)
    if found is not None:
        if found == tuple(range(outputs)):
            return Matched(None)
        if len(ours) < outputs:
            return Matched(found, f"{who} tells {outputs} classes apart; the data's {len(ours)} are taken by name")
        return Matched(
            found, f"{who} has the classes in the order {_listed(named or ())}; they are mapped to the data's by name"
        )
    if outputs != len(ours):
        raise CheckpointError(_other_number(outputs, len(ours), who, named is not None))
    if named is None:
        return Matched(None)
    common = sorted(_spelt(named) & _spelt(ours))
    if common and not all(_NAMELESS.fullmatch(name) for name in ours):
        lacking = [name for name in ours if _plain(name) not in _spelt(named)]
        raise CheckpointError(
            f"{who} has the classes {_listed(named)}, and the data {_listed(ours)}: {_listed(lacking)} is not among "
            "them; set teacher.labels to the data's names in the order of the teacher's outputs"
        )
    return Matched(
        None,
        f"{who} names its classes {_listed(named)} and the data {_listed(ours)}; they are taken to be in the same "
        "order. If they are not, set teacher.labels to the data's names in the order of the teacher's outputs",
    )


def configured_names(config: Any, ours: Sequence[str]) -> tuple[str, ...] | None:
    """Names of a teacher's outputs by `teacher.labels`, or by `teacher.order`, the data's class that each output is.

    Raises:
        CheckpointError: the order does not name each class once.
    """
    order: tuple[int, ...] | None = getattr(config, "order", None)
    if config.labels is not None or order is None:
        return None if config.labels is None else tuple(config.labels)
    if sorted(order) != list(range(len(ours))):
        raise CheckpointError(f"teacher.order must hold each number from 0 to {len(ours) - 1} once")
    return tuple(ours[number] for number in order)


def _found(theirs: Sequence[str], ours: Sequence[str]) -> tuple[int, ...] | None:
    """Position of each of our names among theirs; None unless every name is there once."""
    places: dict[str, list[int]] = {}
    for position, name in enumerate(theirs):
        for spelling in {_plain(part) for part in (name, *name.split(","))}:
            places.setdefault(spelling, []).append(position)
    chosen = [places.get(_plain(name), []) for name in ours]
    if not all(len(positions) == 1 for positions in chosen):
        return None
    order = tuple(positions[0] for positions in chosen)
    return order if len(set(order)) == len(order) else None


def _spelt(names: Sequence[str]) -> set[str]:
    return {_plain(name) for name in names}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _other_number(outputs: int, ours: int, who: str, is_named: bool) -> str:
    imagenet = "; these are ImageNet's" * (outputs == 1000)
    names = ", and the data's names are not among its own" if is_named else ""
    return (
        f"{who} tells {outputs} classes apart{imagenet}, and the data have {ours}{names}; fine-tune it on the data "
        "first, or set teacher.finetune to true, where the family has it: a new head is then trained here with "
        "teacher.training"
    )
