"""Take a trained classifier and a budget; give back a small student that ships.

What is listed here is public and documented (docs/reference/python.md); the rest may move. A name is imported when
it is first used, so that `import edgestill` costs nothing.
"""

# Nothing is imported here: with `python -m` the current folder is still first on the path, and a file there could pose
# as a module of the standard library.
TYPE_CHECKING = False  # type checkers take the name for typing's
if TYPE_CHECKING:
    from typing import Any

    from edgestill.distill.methods.base import Method
    from edgestill.export.formats.base import Format
    from edgestill.flows.bundle import Bundle
    from edgestill.flows.config.loading import load_config
    from edgestill.flows.config.model import RunConfig
    from edgestill.flows.outcome import Outcome
    from edgestill.flows.runner import compress
    from edgestill.pipeline.data.datasets.base import DatasetConfig as Dataset
    from edgestill.pipeline.teachers.teacher import Teacher
    from edgestill.search.scorers.base import Scorer
    from edgestill.search.space import SearchSpace

    __version__: str

_HOMES = {  # public name -> module, and the name there
    "Bundle": ("flows.bundle", "Bundle"),
    "Dataset": ("pipeline.data.datasets.base", "DatasetConfig"),
    "Format": ("export.formats.base", "Format"),
    "Method": ("distill.methods.base", "Method"),
    "Outcome": ("flows.outcome", "Outcome"),
    "RunConfig": ("flows.config.model", "RunConfig"),
    "Scorer": ("search.scorers.base", "Scorer"),
    "SearchSpace": ("search.space", "SearchSpace"),
    "Teacher": ("pipeline.teachers.teacher", "Teacher"),
    "compress": ("flows.runner", "compress"),
    "load_config": ("flows.config.loading", "load_config"),
}

__all__ = [
    "Bundle",
    "Dataset",
    "Format",
    "Method",
    "Outcome",
    "RunConfig",
    "Scorer",
    "SearchSpace",
    "Teacher",
    "__version__",
    "compress",
    "load_config",
]


def __getattr__(name: str) -> "Any":
    import importlib

    if name == "__version__":
        from importlib import metadata

        return metadata.version("edgestill")
    if name not in _HOMES:
        raise AttributeError(f"module 'edgestill' has no attribute {name!r}")
    module, there = _HOMES[name]
    found = globals()[name] = getattr(importlib.import_module(f"edgestill.{module}"), there)
    return found


def __dir__() -> list[str]:
    return __all__
