"""Methods that need more than a teacher, a driver or a student's start gives."""

from collections.abc import Iterator, Sequence
from typing import Any

from edgestill.distill.methods import METHODS, Method
from edgestill.distill.methods.none import NoneConfig
from edgestill.pipeline.figures import listing

_PARTS = {
    "embedding": "the embedding",
    "features": "feature maps",
    "classifier": "the last Linear layer",
    "gradients": "gradients",
    "inputs": "answers to other inputs than the data's own",
}


def unmet(methods: Sequence[Method], gives: frozenset[str], teacher: str) -> list[str]:
    """Describe in a sentence each method that needs more than the teacher gives, with the methods that do not."""
    able = [name for name, kind in METHODS.items() if kind().needs <= gives]
    return [
        f"method {method.name!r} needs {listing([_PARTS[part] for part in sorted(method.needs - gives)])} of its "
        f"teacher, which {teacher} does not give; methods that do without: {', '.join(able)}"
        for method in methods
        if not method.needs <= gives
    ]


def lacking(distill: Any) -> Iterator[str]:
    """Yield a sentence for each method that lacks samples of the student's own, or a student to begin with."""
    sampling = distill.driver.sampling
    taken = 0 if sampling is None else sampling.samples
    for method in (METHODS[one.name](one) for one in distill.methods):
        if taken and method.binds_rows:
            yield (
                f"method {method.name!r} as set prepares something for each answer of the data, and the student's own "
                "samples have nothing of it; set distill.driver to once"
            )
        if method.own_samples > taken:
            yield (
                f"method {method.name!r} needs {method.own_samples} or more of the student's own samples of each "
                f"prompt, and distill.driver {distill.driver.name!r} as set takes {taken}; set distill.driver to "
                f"rollout, and distill.driver.samples to {method.own_samples} or more"
            )
        if method.is_of_itself and distill.start == "random":
            yield (
                f"method {method.name!r} distils a student into itself, and one with random weights knows nothing; set "
                "distill.start to a run that trained it"
            )
    if sampling is not None and sampling.share == 1 and all(isinstance(one, NoneConfig) for one in distill.methods):
        yield (
            "distill.methods: labels alone teach nothing of the student's own samples, which have none; name a method "
            "with a teacher, or set distill.driver to once"
        )
