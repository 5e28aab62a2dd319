"""The faults that stages are tried by, and what is promised of each: read by the test of every cell and by the docs."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

STAGES = (
    "data", "teacher", "rank_check", "search", "tournament", "tune", "distill", "prune", "export", "profile",
    "baselines", "report",
)  # fmt: skip
TRAINED = ("teacher", "rank_check", "tournament", "tune", "distill", "prune", "baselines")  # a network is trained
JOURNALS = ("teacher", "rank_check", "search", "tournament", "tune", "distill", "prune")  # go on from files of theirs

SAME = "goes on"  # by itself or by `resume`, to the result of an undisturbed run
WITHOUT = "does without"  # the stage ends, and its result says what it lacks


class Fault(NamedTuple):
    """A fault, how a test brings it about, and what follows.

    Args:
        outcome: SAME, WITHOUT, or the name of the error that ends the run; nothing of the stage counts then.
        stages: that it can hit.
        others: outcomes of stages where it is another.
    """

    name: str
    injected: str
    outcome: str
    way_out: str
    stages: tuple[str, ...] = STAGES
    others: Mapping[str, str] = MappingProxyType({})

    def outcome_in(self, stage: str) -> str:
        """Outcome of the fault in a stage."""
        return self.others.get(stage, self.outcome)


RESUME = "`edgestill resume`"
FAULTS = (
    Fault("SIGKILL", "the process is killed when all is done and nothing entered", SAME, RESUME),
    Fault("full disk", "ENOSPC from the first write on", "OSError", f"free some space, then {RESUME}"),
    Fault("read-only folder", "EROFS from the first write on", "OSError", f"mount it for writing, then {RESUME}"),
    Fault("lost mount", "ESTALE from the first rename on", "OSError", f"mount it again, then {RESUME}"),
    Fault(
        "truncated file",
        "the largest file of the stage before is cut in half; of the first stage, the configuration",
        "RunDirError",
        f"put the file back, then {RESUME}; or a new run",
    ),
    Fault("corrupt manifest", "manifest.json is cut in half", "RunDirError", f"put it back, then {RESUME}"),
    Fault(
        "corrupt journal",
        "a byte of each journal, checkpoint and study of a killed stage is another",
        "RunDirError",
        f"delete what is named, then {RESUME}: it is done again",
        JOURNALS,
    ),
    Fault("clock jump", "the clock goes back a year and forth again, at every look", SAME, "none needed"),
    Fault("two processes", "another process holds the run", "RunDirError", "wait for it, or stop it"),
    Fault("out of memory", "MemoryError at the end of the stage's work", "MemoryError", f"free some, then {RESUME}"),
    Fault(
        "NaN loss",
        "every loss is NaN",
        "TrainingError",
        "a new run with a lower learning rate",
        TRAINED,
        {"rank_check": WITHOUT, "tournament": WITHOUT, "tune": "FailedError", "baselines": WITHOUT},
    ),
    Fault(
        "hanging data loader",
        "a read of images never ends",
        "DataError",
        f"mend the disk or the mount, then {RESUME}",
        ("teacher", "distill"),
    ),
)


def cells() -> Iterator[tuple[Fault, str]]:
    """Yield every fault with every stage that it can hit."""
    for fault in FAULTS:
        for stage in fault.stages:
            yield fault, stage
