"""`make test` ends, with a failure, where a worker dies; the options are the Makefile's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.engines
ROOT = Path(__file__).resolve().parents[2]
DIES = "import os, signal\ndef test_dies(): os.kill(os.getpid(), signal.SIGSEGV)\n"
IN_ONE = "import os, signal\nif os.environ['PYTEST_XDIST_WORKER'] == 'gw1':\n    {}\ndef test_of_its(): pass\n"
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
AT_THE_END = (
    "def pytest_sessionfinish():\n    import os, signal\n"
    f"    if os.environ.get('PYTEST_XDIST_WORKER') == 'gw1': {KILL}\n"
)


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ({"test_a.py": DIES}, ["crashed while running 'test_a.py::test_dies'"]),
        ({"test_a.py": DIES, "test_b.py": DIES}, ["running 'test_a.py::test_dies'", "running 'test_b.py::test_dies'"]),
        ({"test_a.py": IN_ONE.format(KILL)}, ["worker gw1 died"]),
        (
            {
                "conftest.py": "from dead_workers import *\npytest_plugins = ['dying']\n",
                "dying.py": f"import pytest\n@pytest.hookimpl(tryfirst=True)\n{AT_THE_END}",
                "test_a.py": "def test_of_both(): pass\n",
            },
            ["worker gw1 died"],
        ),
    ],
    ids=["in a test", "all of them", "while collecting", "while it has nothing to do"],
)
def test_a_worker_that_dies_ends_the_run_with_a_failure(
    planted: dict[str, str], said: list[str], tmp_path: Path
) -> None:
    for name, text in {"conftest.py": "from dead_workers import *\n", **planted}.items():
        (tmp_path / name).write_text(text)
    (options,) = re.findall(r"-m pytest (-n .*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    command = [
        sys.executable,
        "-m",
        "pytest",
        *options.replace("-n logical", "-n 2").split(),
        "--rootdir=.",
        "-c",
        os.devnull,
    ]
    command += ["-o", f"pythonpath={ROOT / 'tests' / 'plugins'}", "."]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ended = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 1, ended.stdout
    for words in said:
        assert words in ended.stdout
