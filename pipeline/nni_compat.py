"""The only importer of NNI 3.0: it undoes the import's side effects, and lists NNI's known problems.

NNI is archived (its last release is of September 2023), hence the exact version in pyproject.toml. Known problems:

- `nni.nas` imports pytorch_lightning, which NNI does not declare; our own dependencies do.
- Importing it writes INFO lines to stdout, and lightning's and torchmetrics' loggers to stderr; both add filters of
  warnings and a variable of the environment. `load` undoes all of that.
- It warns on import that torch's newer `nn.Buffer` and loss options are no modules. It only fails to wrap them, and
  nothing of the hub uses them.
- Its contexts (labels, the architecture being built, the channel that a trial reports to) are global and not safe
  between threads. Code that uses the first two holds `CONTEXTS`, and a search holds `CHANNEL`, so that threads take
  turns; processes are not affected.
- A score function that raises ends NNI's search, and one that reports nothing is left out of the population.
- AutoFormer cannot be built on the meta device (it calls `Tensor.item()`), and it is no convolutional network.
- The tracer of its model speed-up fails on torch 2.13 and on branches in Python 3.11; a `torch.fx` graph that is
  given to the speed-up takes its place (`compression/prune.py`); it prints to stdout, which `contexts` swallows.
- `nni.compression` imports transformers and deepspeed where they are installed, for trainers that nothing here uses:
  10 s more. `load` lets it find neither. `nni.nas` must find transformers where it is: lightning's torchmetrics imports
  it if its metadata are there.
- A torchvision that does not fit the installed torch breaks lightning, and with it `nni.nas`; `torchvision_compat`
  repairs it first.
"""

import contextlib
import importlib
import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from edgestill.pipeline import torchvision_compat
from edgestill.pipeline.errors import MissingDependencyError, first_line

CONTEXTS = threading.RLock()
CHANNEL = threading.RLock()

_SILENT = logging.CRITICAL + 1
_NOT_FOR_COMPRESSION = ("transformers", "deepspeed")


def load(module: str) -> Any:
    """Import a module of NNI, such as `nni.nas.strategy`; logging, warnings and the environment stay as they were.

    Raises:
        MissingDependencyError: NNI, or a library that it needs, is not installed or does not work.
    """
    if module in sys.modules:
        return sys.modules[module]
    hidden = _NOT_FOR_COMPRESSION if module.startswith("nni.compression") else ()
    with CONTEXTS, _undone(), _hidden(hidden):
        try:
            torchvision_compat.repair()
            return importlib.import_module(module)
        # A torchvision made for another torch raises RuntimeError.
        except (ImportError, OSError, RuntimeError) as error:
            raise MissingDependencyError(
                f"NNI does not import ({type(error).__name__}: {first_line(error)}); "
                "pip install 'nni==3.0' 'pytorch-lightning>=2.6,<3', and remove a torchvision that does not fit torch"
            ) from error


@contextlib.contextmanager
def contexts() -> Iterator[None]:
    """Hold NNI's global contexts, and silence its log and its prints, within."""
    with CONTEXTS, _silent(), contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def trial() -> Iterator[None]:
    """Hold the channel that NNI's trials report to; restore it and the last trial's parameters afterwards."""
    channels, trials = load("nni.runtime.trial_command_channel"), load("nni.trial")
    with CHANNEL, _silent():
        before = channels._channel, trials._params
        try:
            yield
        finally:
            channels._channel, trials._params = before


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silence NNI's log, which has each sample and each refused one; anything important is raised or returned."""
    logger = logging.getLogger("nni")
    level = logger.level
    logger.setLevel(_SILENT)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _undone() -> Iterator[None]:
    """Undo what imports do to logging, to the filters of warnings and to the environment."""
    environment = dict(os.environ)
    before = {logger: (logger.level, logger.propagate, list(logger.handlers)) for logger in _loggers()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger in _loggers():
            level, propagate, handlers = before.get(logger, (logging.NOTSET, True, []))
            logger.setLevel(level)
            logger.propagate = propagate
            for handler in [handler for handler in logger.handlers if handler not in handlers]:
                logger.removeHandler(handler)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]


@contextlib.contextmanager
def _hidden(modules: tuple[str, ...]) -> Iterator[None]:
    """Make modules that were not imported yet look as if they were not installed."""
    absent = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None makes an import fail
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def _loggers() -> list[logging.Logger]:
    found = [logging.getLogger()]
    return found + [known for known in logging.root.manager.loggerDict.values() if isinstance(known, logging.Logger)]
