"""Engines of the search: the same results and journals on any of them, and a lost worker costs its own candidate."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgestill.pipeline.child import environment
from edgestill.pipeline.engines.dask import DaskConfig
from edgestill.pipeline.engines.machine import LocalConfig, ProcessesConfig
from edgestill.pipeline.engines.ray import RayConfig
from edgestill.pipeline.errors import UserError
from edgestill.pipeline.frozen import digest
from edgestill.search.config import SearchConfig
from edgestill.search.scorers import SCORERS
from edgestill.search.search import find_student
from edgestill.search.spaces import ResNetConfig, ResNetSpace

pytestmark = pytest.mark.engines

SPACE = ResNetConfig(blocks=((1, 2), (1, 2), (1,)), widths=((4, 6), (6, 8), (16,)))
MODULE = '''
import os
import time
from pathlib import Path
from typing import ClassVar

from edgestill.pipeline.errors import MissingDependencyError
from edgestill.search.scorers.base import Scorer


class Waiting(Scorer):
    """Says which process has a candidate, and keeps it while the file `wait` is there."""

    name: ClassVar[str] = "params"

    def __call__(self, student):
        folder = Path(os.environ["ENGINES_TEST"])
        (folder / f"pid-{os.getpid()}").touch()
        while (folder / "wait").exists():
            time.sleep(0.02)
        return float(student.cost.params)


class Wrong(Scorer):
    name: ClassVar[str] = "params"

    def __call__(self, student):
        raise MissingDependencyError("the library of this score is not installed")
'''


@pytest.fixture
def find(make_task, make_batch):
    task = make_task(channels=1, side=8, classes=4)
    batch = make_batch(task, 16)

    def run(engine, workers=1, **changes):
        journal = []
        given = {"space": SPACE, "scorer": "diswot", "baselines": ("nwot",), "draws": 1, "evaluations": 10}
        config = SearchConfig(**given | changes, workers=workers)
        teacher = ResNetSpace().build(ResNetSpace().parse("2-2-2/4-8-16"), task)
        result = find_student(config, task, batch, teacher, seed=0, record=journal.append, engine=engine)
        return result, [{name: value for name, value in e.items() if name != "seconds"} for e in journal]

    return run


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The module above, importable here and by workers started from here."""
    (tmp_path / "engines_plugin.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("ENGINES_TEST", str(tmp_path))
    import engines_plugin

    yield engines_plugin
    del sys.modules["engines_plugin"]


@pytest.fixture
def cluster(module, tmp_path):
    """A Dask scheduler and two workers, each a process that was started by itself; yields the address."""
    pytest.importorskip("distributed")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{found.getsockname()[1]}"
    own = environment()
    own["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)])
    port = address.rsplit(":", 1)[1]
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
    worker = ["worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path)]
    started = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", f"distributed.cli.dask_{kind}", *arguments], env=own,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for kind, *arguments in (scheduler, worker, worker)
    ]  # fmt: skip
    yield address
    for process in started:
        process.kill()
        process.wait()


def by_digest(found):
    return digest(found[0], found[1])


def test_the_search_is_the_same_in_processes_and_on_dask_with_one_worker_and_two(find):
    pytest.importorskip("distributed")
    here = find(LocalConfig())
    assert len(here[1]) == 20
    for engine, workers in ((ProcessesConfig(), 1), (DaskConfig(), 1), (DaskConfig(), 2)):
        assert by_digest(find(engine, workers)) == by_digest(here), (engine, workers)


def test_the_search_is_the_same_on_ray(find):
    pytest.importorskip("ray")
    assert by_digest(find(RayConfig(), 2)) == by_digest(find(LocalConfig()))


def kill_one_of_two(find, module, folder, monkeypatch, engine):
    whole = find(LocalConfig(), scorer="params", baselines=())
    monkeypatch.setitem(SCORERS, "params", module.Waiting)
    (folder / "wait").touch()
    killed = _kill_one_of_two(folder)
    result, journal = find(engine, 2, scorer="params", baselines=())
    assert killed.wait() == 0
    assert result == whole[0]
    assert [{n: v for n, v in entry.items() if n != "retried"} for entry in journal] == whole[1]
    assert [entry["retried"] for entry in journal if "retried" in entry] == [1]


def test_a_dask_worker_killed_in_the_middle_costs_its_candidate_a_second_try(
    find, module, cluster, tmp_path, monkeypatch
):
    kill_one_of_two(find, module, tmp_path, monkeypatch, DaskConfig(address=cluster))


def test_a_ray_worker_killed_in_the_middle_costs_its_candidate_a_second_try(find, module, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    kill_one_of_two(find, module, tmp_path, monkeypatch, RayConfig())


def test_a_fault_of_every_candidate_ends_the_search(find, module, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setitem(SCORERS, "params", module.Wrong)
    with pytest.raises(UserError, match="the library of this score is not installed"):
        find(DaskConfig(), scorer="params", baselines=())


def _kill_one_of_two(folder: Path) -> subprocess.Popen:
    """Wait in another process until two workers hold a candidate, kill one of them, and let the other go on."""
    script = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        f"folder, end = Path({str(folder)!r}), time.monotonic() + 120\n"
        "while len(found := sorted(folder.glob('pid-*'))) < 2:\n"
        "    time.sleep(0.05)\n"
        "    if time.monotonic() > end: sys.exit('no two workers')\n"
        f"os.kill(int(found[0].name.removeprefix('pid-')), {signal.SIGKILL:d})\n"
        "time.sleep(0.5)\n"
        "(folder / 'wait').unlink()\n"
    )
    return subprocess.Popen([sys.executable, "-c", script])
