"""TensorBoard: event files in the run's folder, for `tensorboard --logdir runs`."""

import os
import socket
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from edgestill.pipeline.errors import MissingDependencyError
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.trackers.base import Tracked, Tracker

FOLDER = "tensorboard"  # of a run


class TensorboardConfig(Frozen):
    """Event files for TensorBoard."""

    name: Literal["tensorboard"] = "tensorboard"


class TensorboardTracker(Tracker):
    """Writer of one event file. torch's own writer has a thread, which must not be there when the search forks."""

    name: ClassVar[str] = "tensorboard"
    Config: ClassVar[type[Frozen]] = TensorboardConfig

    def __init__(self, config: TensorboardConfig, run: Tracked) -> None:
        super().__init__(config, run)
        try:
            from tensorboard.summary.writer.record_writer import RecordWriter
            from torch.utils.tensorboard import summary
        except ImportError:
            raise MissingDependencyError("it needs `pip install 'edgestill[tensorboard]'`") from None
        folder = run.root / FOLDER
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._summary: Any = summary
        self._writer = RecordWriter((folder / name).open("ab"))
        self._write(0, file_version="brain.Event:2")
        rows = "\n".join(f"| {key} | {value.replace('|', '/')} |" for key, value in run.settings.items())
        self.note("configuration", f"| setting | value |\n|---|---|\n{rows}")

    def values(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._write(step, summary=self._summary.scalar(name, value))
        self._writer.flush()

    def note(self, name: str, text: str) -> None:
        self._write(0, summary=self._summary.text(name, text))
        self._writer.flush()

    def close(self, is_finished: bool) -> None:
        self._writer.close()

    def _write(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.write(Event(wall_time=time.time(), step=step, **content).SerializeToString())
