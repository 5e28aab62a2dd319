"""Every fault in every stage: a typed error and nothing that counts, or a recovery to the same; never silence."""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cut
import numpy as np
import pytest
import small
from faults import FAULTS, SAME, STAGES, WITHOUT, Fault, cells

from edgestill.flows import chain
from edgestill.flows.chain import results_of
from edgestill.flows.cli.failures import sentence_of
from edgestill.flows.config import RunConfig
from edgestill.flows.progress import Silent
from edgestill.flows.runner import Runner, new_run, run_chain, run_part
from edgestill.flows.stages.stage import Stage
from edgestill.pipeline.data import ahead
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.data.stored import RowFile, StoredImages
from edgestill.pipeline.errors import EdgestillError
from edgestill.pipeline.runs import checkpoint
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.training import fit

EVERY_STAGE = (
    "rank_check.students=4", "rank_check.epochs=1", "prune.method=l1", "prune.epochs=1", "baselines.enabled=true",
    "baselines.seeds=1", "baselines.budget=10000", "qat.mode=never",
)  # fmt: skip
FIRST = ("data", "teacher")  # stages whose cells are units; the others take a whole run
BY_NAME = {stage.name: stage for stage in chain.STAGES}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with every stage that the table names, each as small as it can be."""
    folder = tmp_path_factory.mktemp("whole")
    with new_run(small.config(small.data(folder / "x.npz"), *EVERY_STAGE), folder) as run:
        run_chain(run)
    assert tuple(run.manifest.stages) == STAGES
    return run.root


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to its teacher."""
    folder = tmp_path_factory.mktemp("begun")
    with new_run(small.config(small.data(folder / "x.npz"), *EVERY_STAGE), folder) as run:
        run_part(run, FIRST[-1])
    return run.root


class Patient:
    """A run as it was before a stage, the stage's work, and what brings a fault about."""

    def __init__(self, whole: Path, stage: Stage[Any], folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.whole, self.stage, self.patch = whole, stage, patch
        self.root = cut.before(whole, stage, folder)

    def work(self) -> Any:
        """Do the stage's work, as a run does, and return its result."""
        with RunDir.open(self.root) as run:
            config = run.config(RunConfig)
            runner = Runner(run, config, Silent(), lambda name, work: work())
            return runner(self.stage, results_of(run, config))

    def is_entered(self) -> bool:
        return self.stage.name in RunDir.view(self.root).manifest.stages

    def require_same(self, result: Any) -> None:
        expected = self.stage.read(RunDir.view(self.whole)).model_dump(mode="json")
        assert cut.timeless(result.model_dump(mode="json")) == cut.timeless(expected)
        assert self.is_entered()


def kill(patient: Patient) -> None:
    """Do the work in a process that is killed before the manifest has the stage; the caller's goes on."""
    child = os.fork()
    if not child:
        patient.patch.setattr(RunDir, "_enter", lambda *given: os.kill(os.getpid(), signal.SIGKILL))
        try:
            patient.work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not patient.is_entered()


def failing(code: int) -> Callable[..., Any]:
    def fail(*given: Any, **named: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def fill_the_disk(patient: Patient) -> None:
    patient.patch.setattr(checkpoint.os, "fsync", failing(errno.ENOSPC))


def protect_the_folder(patient: Patient) -> None:
    patient.patch.setattr(checkpoint.tempfile, "mkstemp", failing(errno.EROFS))


def lose_the_mount(patient: Patient) -> None:
    patient.patch.setattr(checkpoint.os, "replace", failing(errno.ESTALE))


def cut_a_file(patient: Patient) -> None:
    before = STAGES.index(patient.stage.name) - 1
    names = RunDir.view(patient.root).manifest.stages[STAGES[before]].files if before >= 0 else ["config.yaml"]
    largest = max((patient.root / name for name in names), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


def cut_the_manifest(patient: Patient) -> None:
    os.truncate(patient.root / "manifest.json", (patient.root / "manifest.json").stat().st_size // 2)


class _StoppedError(BaseException):
    pass


def corrupt_journals(patient: Patient) -> None:
    """Stop the stage before its end, and change a byte in the middle of each file that it would go on from."""

    def stop(*given: object) -> None:
        raise _StoppedError

    with patient.patch.context() as patch:
        patch.setattr(RunDir, "finish", stop)
        with pytest.raises(_StoppedError):
            patient.work()
    files = [
        path
        for path in (patient.root / patient.stage.name).iterdir()
        if path.suffix in (".jsonl", ".pt", ".db") and path.name != "methods.pt"
    ]
    assert files
    for path in files:
        data = bytearray(path.read_bytes())
        place = 0 if path.suffix == ".db" else len(data) // 2
        data[place] ^= 0xFF
        path.write_bytes(bytes(data))


def turn_the_clock(patient: Patient) -> None:
    looks, now = iter(range(10**9)), time.time
    patient.patch.setattr(time, "time", lambda: now() - (365 * 86400 if next(looks) % 2 else 0))


def hold(patient: Patient) -> None:
    holder = RunDir.open(patient.root)  # a lock of its own, as another process has
    patient.patch.setattr(patient, "holder", holder, raising=False)


def run_out_of_memory(patient: Patient) -> None:
    work = type(patient.stage).work

    def exhausted(*given: Any) -> None:
        work(*given)
        raise MemoryError

    patient.patch.setattr(type(patient.stage), "work", exhausted)


def lose_the_numbers(patient: Patient) -> None:
    step = fit._Step.__call__

    def lost(*given: Any) -> Any:
        terms, batch = step(*given)
        return {name: term * float("nan") for name, term in terms.items()}, batch

    patient.patch.setattr(fit._Step, "__call__", lost)


def hang(patient: Patient) -> None:
    rows = patient.root.parent / "images.rows"
    rows.write_bytes(bytes(64))
    stored = StoredImages([RowFile(rows, np.zeros((1, 16), np.uint8))], (1, 8, 8))
    patient.patch.setattr(StoredImages, "__getitem__", lambda *given: threading.Event().wait())
    patient.patch.setattr(ahead, "PATIENCE_S", 0.1)
    read = ahead.batches_ahead
    patient.patch.setattr(
        fit, "batches_ahead", lambda split, *given: read(ImageSplit(stored, split.targets[:1]), *given)
    )


BRING: dict[str, Callable[[Patient], None]] = {
    "SIGKILL": kill,
    "full disk": fill_the_disk,
    "read-only folder": protect_the_folder,
    "lost mount": lose_the_mount,
    "truncated file": cut_a_file,
    "corrupt manifest": cut_the_manifest,
    "corrupt journal": corrupt_journals,
    "clock jump": turn_the_clock,
    "two processes": hold,
    "out of memory": run_out_of_memory,
    "NaN loss": lose_the_numbers,
    "hanging data loader": hang,
}
MENDED = ("full disk",)  # whose cells show that the run goes on once the fault is gone; the others end as it does


def said(error: BaseException) -> str:
    return sentence_of(error) if isinstance(error, Exception) else ""


def all_cells() -> Iterator[Any]:
    for fault, stage in cells():
        marks = [] if stage in FIRST else [pytest.mark.engines]
        yield pytest.param(fault, stage, marks=marks, id=f"{stage}-{fault.name.replace(' ', '_')}")


@pytest.mark.parametrize(("fault", "stage"), all_cells())
def test_a_fault_is_told_by_its_type_or_mended(
    fault: Fault, stage: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: Path = request.getfixturevalue("begun" if stage in FIRST else "whole")
    patient = Patient(whole, BY_NAME[stage], tmp_path, monkeypatch)
    manifest = (patient.root / "manifest.json").read_bytes()
    with monkeypatch.context() as patch:
        patient.patch = patch
        BRING[fault.name](patient)
        outcome = fault.outcome_in(stage)
        if outcome == SAME:
            patient.require_same(patient.work())
            return
        if outcome == WITHOUT:
            result = patient.work()
            assert "NaN" in str(result) or "nan" in str(result)
            return
        with pytest.raises(Exception) as raised:  # noqa: PT011 - the next line asks for its type
            patient.work()
    assert type(raised.value).__name__ == outcome
    sentence = said(raised.value)
    assert sentence
    assert "our mistake" not in sentence
    if isinstance(raised.value, EdgestillError):
        half_configuration = (fault.name, stage) == ("truncated file", "data")  # has two problems, a line each
        assert len(sentence.splitlines()) == (2 if half_configuration else 1)
    if fault.name != "corrupt manifest":
        assert (patient.root / "manifest.json").read_bytes() == manifest or not patient.is_entered()
    if fault.name in MENDED:
        patient.require_same(patient.work())


def test_every_fault_of_the_table_is_brought_about() -> None:
    assert [fault.name for fault in FAULTS] == list(BRING)
