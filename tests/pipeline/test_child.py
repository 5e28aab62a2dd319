"""Children import nothing from the current folder, and those that read foreign bytes have bounds."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgestill.pipeline.child import ROOT, ChildError, ChildRefused, answer, ended, environment, interpreter

HERE = str(Path(__file__).resolve().parent)


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that children find by PYTHONPATH, with a function for each way to end."""
    (tmp_path / "child_functions.py").write_text(
        "import os, signal, time\n"
        "def twice(data, more='1'): print('chatter'); return data * 2 * int(more)\n"
        "def refuse(data): raise ValueError('no: \\x1b[31m' + data.decode())\n"
        "def hoard(data): return bytes(2 ** 31)\n"
        "def wait(data): time.sleep(60)\n"
        "def spin(data):\n    while True: pass\n"
        "def die(data): os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    return "child_functions"


def test_a_child_answers_with_bytes_alone(functions: str) -> None:
    assert answer(f"{functions}:twice", b"ab") == b"abab"
    assert answer(f"{functions}:twice", b"ab", "2") == b"ab" * 4


def test_a_refusal_is_the_functions_own_sentence_made_printable(functions: str) -> None:
    with pytest.raises(ChildRefused, match=r"^ValueError: no: \\x1b\[31mx$"):
        answer(f"{functions}:refuse", b"x")


@pytest.mark.skipif(sys.platform != "linux", reason="bounds of memory are Linux's")
def test_memory_is_bounded(functions: str) -> None:
    with pytest.raises(ChildError, match="more than 256 MiB of memory"):
        answer(f"{functions}:hoard", b"", memory_bytes=2**28)


@pytest.mark.parametrize("name", ["wait", "spin"])
def test_time_is_bounded(functions: str, name: str) -> None:
    start = time.monotonic()
    with pytest.raises(ChildError, match="more than 1 s"):
        answer(f"{functions}:{name}", b"", seconds=1)
    assert time.monotonic() - start < 10


def test_a_death_is_told(functions: str) -> None:
    with pytest.raises(ChildError, match="was killed by SIGSEGV"):
        answer(f"{functions}:die", b"")
    assert ended(1) == "ended with exit code 1"


def test_nothing_is_imported_from_the_current_folder(
    functions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("resource", "signal", "importlib", "contextlib", "subprocess", "pydantic"):
        (here / f"{name}.py").write_text("import os\nopen(os.environ['RAN'], 'a').write(__name__)\n")
    monkeypatch.chdir(here)
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", ".", os.environ["PYTHONPATH"]]))
    assert answer(f"{functions}:twice", b"ab") == b"abab"
    grandchild = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import resource, pydantic'], check=True)"
    )
    subprocess.run(interpreter("-c", grandchild), check=True, env=environment())
    assert not (tmp_path / "ran").exists()


def test_one_module_starts_interpreters() -> None:
    """Others that start this Python would let the current folder pose as its modules."""
    named = {
        str(path.relative_to(ROOT))
        for package in ("pipeline", "search", "distill", "export", "flows")
        for path in (Path(ROOT) / package).rglob("*.py")
        if "sys.executable" in path.read_text(encoding="utf-8") and path.parent.name != "scripts"
    }
    assert named == {"pipeline/child.py", "flows/plan/doctor.py"}  # doctor tells where it is
