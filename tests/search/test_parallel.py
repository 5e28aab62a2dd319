"""Scoring in processes: the same bits for any number of them, and what dies costs only itself."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import torch

from edgestill.pipeline.engines.pool import Pool
from edgestill.pipeline.errors import UserError
from edgestill.search.config import SearchConfig
from edgestill.search.scorers import SCORERS
from edgestill.search.scoring.attempt import attempt
from edgestill.search.scoring.conditions import Conditions
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.search import find_student
from edgestill.search.spaces import SPACES, ResNetConfig, ResNetSpace

pytestmark = pytest.mark.engines

SPACE = ResNetConfig(blocks=((1, 2), (1, 2), (1,)), widths=((4, 6), (6, 8), (16,)))

# A module that a spawned process can import, as it can every installed plug-in.
FRAGILE = '''
import os
import random
import signal
import time
from typing import ClassVar

from edgestill.search.scorers.base import Scorer
from edgestill.search.spaces import ResNetSpace


class Fragile(ResNetSpace):
    """One member ends the process that builds it for scoring; the counting of its cost survives."""

    deadly = ()

    def build(self, architecture, task):
        network = super().build(architecture, task)
        if self.format(architecture) in self.deadly:
            trunk = network.trunk
            network.trunk = lambda inputs: os._exit(7) if len(inputs) > 1 else trunk(inputs)
        return network


class Deadly(ResNetSpace):
    """Members of two blocks in the first stage end whatever process runs them."""

    def build(self, architecture, task):
        network = super().build(architecture, task)
        if self.format(architecture).startswith("2"):
            network.trunk = lambda inputs: os.kill(os.getpid(), signal.SIGSEGV)
        return network


class Uneven(Scorer):
    """Takes a while that depends on the candidate, so that processes finish out of order."""

    name: ClassVar[str] = "params"

    def __call__(self, student):
        time.sleep(0.05 * random.Random(student.key).random())
        return float(student.cost.params % 97)


class Wrong(Scorer):
    name: ClassVar[str] = "params"

    def __call__(self, student):
        from edgestill.pipeline.errors import MissingDependencyError
        raise MissingDependencyError("the library of this score is not installed")
'''


@pytest.fixture
def fragile(tmp_path, monkeypatch):
    """The module above, importable here and in spawned processes."""
    (tmp_path / "fragile_plugin.py").write_text(FRAGILE)
    monkeypatch.syspath_prepend(tmp_path)
    import fragile_plugin

    yield fragile_plugin
    del sys.modules["fragile_plugin"]


@pytest.fixture
def find(make_task, make_batch):
    task = make_task(channels=1, side=8, classes=4)
    batch = make_batch(task, 16)

    def run(workers, record=lambda entry: None, known=(), **changes):
        given = {"space": SPACE, "scorer": "diswot", "baselines": (), "draws": 1, "evaluations": 16}
        config = SearchConfig(**given | changes, workers=workers)
        teacher = ResNetSpace().build(ResNetSpace().parse("2-2-2/4-8-16"), task)
        return find_student(config, task, batch, teacher, seed=0, record=record, known=known)

    return run


def without_seconds(entries):
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in entries]


def test_results_and_journals_have_the_same_bits_for_any_number_of_processes(find):
    config = {"name": "evolution", "population": 4, "parents": 2, "offspring": 3}
    found = {}
    for workers in (1, 3):
        journal = []
        result = find(workers, journal.append, strategy=config, evaluations=10, baselines=("nwot",))
        found[workers] = (result, without_seconds(journal))
    assert found[1] == found[3]
    assert len(found[1][1]) == 20


@pytest.mark.parametrize("scorer", list(SCORERS))
def test_every_scorer_can_be_sent_and_gives_the_same_bits(scorer, make_task, make_batch):
    task = make_task(channels=1, side=8, classes=4)
    space = ResNetSpace(SPACE)
    teacher = ResNetSpace().build(ResNetSpace().parse("2-2-2/4-8-16"), task)
    evaluator = Evaluator(space, task, [scorer], Conditions(make_batch(task, 24), teacher, 0))
    sent = pickle.loads(pickle.dumps(evaluator))
    for architecture in list(space.all_architectures())[:2]:
        here, there = (without_seconds([attempt(e, scorer, architecture)]) for e in (evaluator, sent))
        assert here == there
        assert "scores" in here[0]


def test_the_order_in_which_processes_finish_does_not_show(find, fragile, monkeypatch):
    monkeypatch.setitem(SCORERS, "params", fragile.Uneven)
    journals = []
    for workers in (1, 3):
        journals.append([])
        find(workers, journals[-1].append, scorer="params")
    assert without_seconds(journals[0]) == without_seconds(journals[1])
    assert [e["architecture"] for e in journals[0]] == [
        ResNetSpace(SPACE).format(a) for a in ResNetSpace(SPACE).all_architectures()
    ]


@pytest.mark.parametrize(("workers", "forks"), [(1, True), ("auto", True), (1, False), (2, False)])
def test_a_candidate_that_kills_its_process_fails_alone(find, fragile, monkeypatch, tmp_path, workers, forks):
    healthy = find(1)
    deadly = healthy.winner.architecture
    monkeypatch.setattr(fragile.Fragile, "deadly", (deadly,))
    monkeypatch.setattr("edgestill.search.scoring.workshop.can_fork", lambda: forks)
    source = (tmp_path / "fragile_plugin.py").read_text()
    (tmp_path / "fragile_plugin.py").write_text(source.replace("deadly = ()", f"deadly = ({deadly!r},)"))
    monkeypatch.setitem(SPACES, "resnet", (ResNetConfig, fragile.Fragile))
    journal = []
    result = find(workers, journal.append)
    assert [f.architecture for f in result.failures] == [deadly]
    assert result.failures[0].type == "process_died"
    assert "exit code 7" in result.failures[0].reason
    rest = [c for c in healthy.candidates if c.architecture != deadly]
    assert list(result.candidates) == rest
    assert result.winner == max(rest, key=lambda c: c.scores["diswot"])
    assert [e["architecture"] for e in journal] == [c.architecture for c in healthy.candidates]
    again = []
    assert find(workers, again.append, known=journal) == result
    assert again == []


def test_a_member_that_kills_whatever_process_runs_it_is_passed_over(find, fragile, monkeypatch):
    monkeypatch.setitem(SPACES, "resnet", (ResNetConfig, fragile.Deadly))
    result = find(1, scorer="nwot", baselines=("params",))
    assert {f.scorer for f in result.failures} == {"cost"}
    assert {(f.type, f.reason) for f in result.failures} == {("process_died", "its process was killed by SIGSEGV")}
    assert all(f.architecture.startswith("2") for f in result.failures)
    assert len(result.candidates) == len(result.failures) == 8
    assert all(c.architecture.startswith("1") for c in result.candidates)


def test_the_ensemble_is_prepared_without_a_member_that_kills_its_process(find, fragile, monkeypatch):
    healthy = find(1, scorer="ensemble").winner.architecture
    monkeypatch.setattr(fragile.Fragile, "deadly", (healthy,))
    monkeypatch.setitem(SPACES, "resnet", (ResNetConfig, fragile.Fragile))
    result = find(1, scorer="ensemble")
    assert [(f.architecture, f.type) for f in result.failures] == [(healthy, "process_died")]
    assert len(result.candidates) == 15


def test_a_space_of_the_script_that_searches_is_scored_apart_too(find, monkeypatch):
    class Local(ResNetSpace):
        def build(self, architecture, task):
            network, trunk = super().build(architecture, task), None
            trunk = network.trunk
            pid = os.getpid()
            network.trunk = lambda inputs: os.abort() if len(inputs) > 1 and pid == parent else trunk(inputs)
            return network

    parent = os.getpid()
    monkeypatch.setitem(SPACES, "resnet", (ResNetConfig, Local))
    assert len(find(1, scorer="nwot").candidates) == 16


def test_a_process_forked_from_one_that_used_threads_does_not_hang(find):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        layer = torch.nn.Conv2d(3, 32, 3)
        layer(torch.rand(32, 3, 32, 32)).sum().backward()
        assert find(1, scorer="nwot") == find("auto", scorer="nwot")
    finally:
        torch.set_num_threads(threads)


def test_a_forked_process_waiting_for_a_lock_that_nobody_holds_is_killed_and_its_candidate_fails(find, monkeypatch):
    monkeypatch.setattr("edgestill.pipeline.engines.pool._STUCK_S", 1.0)
    lock, parent = threading.Lock(), os.getpid()
    stuck = find(1).winner.architecture

    class Stuck(ResNetSpace):
        def build(self, architecture, task):
            if os.getpid() != parent and self.format(architecture) == stuck:
                lock.acquire()
            return super().build(architecture, task)

    lock.acquire()
    monkeypatch.setitem(SPACES, "resnet", (ResNetConfig, Stuck))
    result = find(1)
    assert {(f.architecture, f.type) for f in result.failures} == {(stuck, "process_died")}
    assert "took no processor time for 1 s" in result.failures[0].reason
    assert len(result.candidates) == 15


def test_a_forked_process_does_not_end_the_objects_of_its_parent(find, monkeypatch):
    parent, ended = os.getpid(), []

    class Owner:  # of threads, as a session of ONNX Runtime is; a fork has none of them
        def __del__(self):
            if os.getpid() != parent:
                os._exit(9)
            ended.append(True)

    class Collecting(ResNetSpace):
        def build(self, architecture, task):
            if os.getpid() != parent:
                gc.collect()
            return super().build(architecture, task)

    monkeypatch.setitem(SPACES, "resnet", (ResNetConfig, Collecting))
    gc.disable()
    try:
        owner = [Owner()]
        owner.append(owner)  # garbage in a circle, which only the collector ends
        del owner
        assert not ended
        assert find(1).failures == ()
    finally:
        gc.enable()


def test_a_search_interrupted_on_two_processes_goes_on_on_one(find):
    class KilledError(Exception):
        pass

    whole = []
    expected = find(1, whole.append)
    journal = []

    def record(entry):
        journal.append(entry)
        if len(journal) == 7:
            raise KilledError

    with pytest.raises(KilledError):
        find(2, record)
    again = []
    assert find(1, again.append, known=list(journal)) == expected
    assert without_seconds(journal + again) == without_seconds(whole)


def test_what_is_wrong_for_every_candidate_ends_the_search(find, fragile, monkeypatch):
    monkeypatch.setitem(SCORERS, "params", fragile.Wrong)
    for workers in (1, 2):
        with pytest.raises(UserError, match="the library of this score is not installed"):
            find(workers, scorer="params")


def test_a_score_that_processes_cannot_import_is_refused(find, fragile, monkeypatch, tmp_path):
    monkeypatch.setitem(SPACES, "resnet", (ResNetConfig, fragile.Fragile))
    (tmp_path / "fragile_plugin.py").unlink()
    with pytest.raises(UserError, match=r"cannot load what scores \(No module named 'fragile_plugin'\); 1 needs none"):
        find(2)
    assert find(1).winner == find("auto").winner


SCRIPT = """
    import signal
    import torch
    from edgestill.pipeline.data.splits import Batch
    from edgestill.pipeline.task import Task
    from edgestill.pipeline.engines import pool
    from edgestill.search.config import SearchConfig
    from edgestill.search.search import find_student
    from edgestill.search.spaces import ResNetSpace

    def main():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        torch.set_num_threads(1)
        task = Task(labels=("a", "b"), input_shape=(1, 8, 8), mean=(0.5,), std=(0.5,))
        batch = Batch(torch.rand(16, 1, 8, 8), torch.arange(16) % 2, torch.arange(16))
        teacher = ResNetSpace().build(ResNetSpace().parse("1-1-1/4-8-64"), task)
        config = SearchConfig(scorer="nwot", draws=100, evaluations=1000, baselines=(), workers=2)
        find_student(config, task, batch, teacher, seed=0, record=lambda entry: print("scored", flush=True))

    MAIN
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for children in /proc")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_however_a_search_ends_no_process_is_left(tmp_path, end):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT).replace("MAIN", 'if __name__ == "__main__":\n    main()'))
    run = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == b"scored\n"
    children = _members(run.pid) - {run.pid}
    assert len(children) >= 2
    if end == signal.SIGINT:
        os.killpg(run.pid, end)  # Ctrl-C in a terminal reaches the whole group
    else:
        run.send_signal(end)
    run.wait(30)
    run.stdout.close()
    deadline = time.monotonic() + 30
    while _members(run.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _members(run.pid)


def _members(group: int) -> set[int]:
    """The living processes of a process group."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == group and state != "Z":
            found.add(int(path.parent.name))
    return found


def test_a_script_without_a_main_guard_is_told_what_it_lacks(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT).replace("MAIN", "pool._UNTOUCHED_DEATHS = 1\nmain()"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
    assert run.returncode != 0
    assert 'needs `if __name__ == "__main__":`' in run.stderr
    assert "scored" not in run.stdout


def test_a_process_imports_nothing_from_the_current_folder(tmp_path, monkeypatch):
    for name in ("multiprocessing", "pickle", "signal", "torch", "numpy", "pydantic"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    worker = Pool(1)._start()
    assert worker.connection.recv() == "ready"
    worker.connection.close()
    worker.process.join()
    assert not (tmp_path / "ran").exists()
    assert "PYTHONSAFEPATH" not in os.environ
