"""Methods that cannot be used together."""

from collections.abc import Iterator, Sequence

from edgestill.distill.methods.base import SLOTS, Method


def conflicts(methods: Sequence[Method]) -> list[str]:
    """Describe in a sentence each reason why the methods cannot be used together."""
    return [*_slot_conflicts(methods), *_own_conflicts(methods), *_teacher_conflicts(methods)]


def _slot_conflicts(methods: Sequence[Method]) -> Iterator[str]:
    """Describe in a sentence each method listed twice, and each slot filled by two."""
    names = [method.name for method in methods]
    yield from (f"method {name!r} is listed twice" for name in dict.fromkeys(names) if names.count(name) > 1)
    for whole in (method for method in methods if "objective" in method.fills):
        yield from (
            f"method {whole.name!r} is the whole objective, labels and teacher, which leaves no place for "
            f"{other.name!r}; choose one"
            for other in methods
            if other is not whole and other.fills & {"target", "divergence", "weight"}
        )
    for slot in SLOTS:
        rivals = dict.fromkeys(method.name for method in methods if slot in method.fills)
        if len(rivals) > 1 and slot != "feature":  # feature losses add up
            yield f"methods {' and '.join(map(repr, rivals))} both fill the slot {slot!r}; choose one"


def _own_conflicts(methods: Sequence[Method]) -> Iterator[str]:
    for method in methods:
        yield from method.conflicts([other for other in methods if other is not method])


def _teacher_conflicts(methods: Sequence[Method]) -> list[str]:
    """Describe each pair of a method that studies the given teacher and another that replaces this teacher."""
    return [
        f"method {other.name!r} studies the given teacher, and {method.name!r} as configured trains another in its "
        "place; leave one out or let the teacher be"
        for method in methods
        if method.replaces_teacher
        for other in methods
        if other is not method and other.studies_teacher
    ]
