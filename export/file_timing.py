"""Times ONNX files in ONNX Runtime, for a search's candidates and a calibration's samples."""

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from edgestill.export.onnx.sessions import OUTPUT, feed, open_session
from edgestill.pipeline.errors import ExportError, first_line
from edgestill.pipeline.timing.timing import Timing, TimingConfig, time_interleaved


class ProbeSettings(NamedTuple):
    timing: TimingConfig
    threads: int = 1
    batch: int = 1
    length: int = 1  # of text, in tokens


def time_files(files: Mapping[str, bytes], settings: ProbeSettings, seed: int = 0) -> dict[str, Timing]:
    """Time ONNX files, taking turns in a random order, so that a drift of the machine falls on all alike.

    Raises:
        ExportError: the runtime refuses a file.
    """
    names = list(files)
    random.Random(seed).shuffle(names)
    return time_interleaved({name: _call(name, files[name], settings) for name in names}, settings.timing)


def _call(name: str, data: bytes, settings: ProbeSettings) -> Callable[[], object]:
    try:
        session = open_session(data, settings.threads)
    except Exception as error:  # the runtime's error types share no base class
        raise ExportError(f"ONNX Runtime refuses {name}: {first_line(error)}") from error
    given = session.get_inputs()[0]
    if given.type == "tensor(int64)":
        inputs = feed(np.ones((settings.batch, settings.length), np.int64), session)
    else:
        inputs = feed(np.random.default_rng(0).random((settings.batch, *given.shape[1:]), dtype=np.float32))
    return lambda: session.run([OUTPUT], inputs)
