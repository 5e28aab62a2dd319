"""The process that waits: what it passes on, what it says of a death, and who tries a candidate once more."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

HEAD = """
import os, signal, sys, time
from pathlib import Path
from edgestill.flows.supervise import attempting, note_progress, note_stage, supervised
from edgestill.pipeline.errors import CandidateError

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def die(how=signal.SIGSEGV):
    os.kill(os.getpid(), how)
    time.sleep(10)

def begin():
    note_stage(Path("runs/r"), "tune", "search.space or tune")
    note_progress(1, 8, "best 90%")
"""


def start(body: str, *arguments: str) -> "subprocess.Popen[str]":
    code = f"{HEAD}\ndef work(arguments):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
    code += f"sys.exit(supervised({list(arguments or ('run', '-q'))!r}, work))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True, env=environment)


def run(body: str, *arguments: str) -> tuple[int, str, str]:
    process = start(body, *arguments)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_an_exit_code_is_passed_on(code: int) -> None:
    assert run(f"return {code}") == (code, "", "")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("SIGSEGV", "was killed by SIGSEGV at"),
        ("SIGABRT", "was killed by SIGABRT at"),
        ("SIGKILL", "was killed by SIGKILL, as the system does where memory runs out at"),
    ],
)
def test_a_death_is_one_sentence_of_what_where_and_how_to_go_on(how: str, words: str) -> None:
    assert run(f"begin(); die(signal.{how})") == (
        1,
        "",
        f"error: the process of the tune stage {words} 1 of 8 (best 90%); `edgestill resume runs/r` goes on from "
        "there; should it die there again, `edgestill resume runs/r --set KEY=VALUE` goes on with another search.space "
        "or tune\n",
    )


def test_a_command_without_a_run_says_which_one_died() -> None:
    code, _, said = run("die()", "score", "--space", "resnet")
    assert (code, said) == (1, "error: the process of `edgestill score` was killed by SIGSEGV; nothing was written\n")


def test_a_candidate_is_tried_once_more_and_has_then_failed() -> None:
    code, out, err = run(
        """
        begin()
        print(*arguments, flush=True)
        try:
            with attempting("trial 3"):
                die()
        except CandidateError as error:
            print(f"{error} [{error.type}]")
        with attempting("trial 4"):
            return 0
        """,
        "run",
        "x.yaml",
        "--quiet",
        "--no-prefect",
    )
    assert code == 0
    resumed = "resume runs/r --quiet --no-prefect"
    assert out.splitlines() == [
        "run x.yaml --quiet --no-prefect",
        resumed,
        resumed,
        "its process was killed by SIGSEGV [process_died]",
    ]
    assert err.splitlines() == ["tune: the process of trial 3 was killed by SIGSEGV; the run goes on"] * 2


def test_a_death_after_a_candidate_is_not_the_candidates() -> None:
    code, _, err = run("begin()\nwith attempting('trial 3'): pass\ndie()")
    assert code == 1
    assert err.startswith("error: the process of the tune stage")


WAITING = """
    try:
        print(os.getpid(), flush=True)
        while True: time.sleep(0.05)
    except KeyboardInterrupt:
        time.sleep(0.5)
        print("interrupted", flush=True)
        return 130
"""


@pytest.mark.parametrize("both", [False, True], ids=["the one that waits", "both, as a terminal does"])
def test_ctrl_c_interrupts_once(both: bool) -> None:
    process = start(WAITING)
    assert process.stdout is not None
    working = int(process.stdout.readline())
    if both:
        os.kill(working, signal.SIGINT)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "interrupted\n")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the process in /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_however_the_one_that_waits_ends(how: signal.Signals) -> None:
    process = start(WAITING)
    assert process.stdout is not None
    working = int(process.stdout.readline())
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == -how
    deadline = time.monotonic() + 20
    while Path(f"/proc/{working}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{working}").exists()
