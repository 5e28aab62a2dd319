"""Methods that need more than a teacher gives."""

from collections.abc import Sequence

from edgestill.distill.methods import METHODS, Method
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
