"""Mutants of every kind of file that may come from elsewhere, and what edgestill makes of them.

    python benchmarks/fuzz.py IMAGE_RUN TEXT_RUN [--mutants 10000 | --seconds 3600] [--seed 0] [--only KIND …]
                              [--keep FOLDER]

Takes the folders of two finished runs, of images and of texts. Each mutant is made of a valid file by its number and
the seed, and read through the door that a person would use. It must be taken or refused in sentences: no code of it
runs, no process of ours dies, none takes more memory or time than is allowed, and nothing is called our mistake. A
mutant that is not so is kept with its number, and `--only KIND --first NUMBER --mutants 1` makes it again. Prints a
row a kind, and exits with 1 if there was one.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from pathlib import Path
from typing import Any

MOST_SECONDS, MOST_BYTES = 60, 3 * 2**30  # of a mutant: the reader's own process, children have their own bounds
MOST_SAID = 500  # characters of a sentence


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("image_run", type=Path)
    parser.add_argument("text_run", type=Path)
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--keep", type=Path, default=Path("fuzz-kept"))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    return work(given) if given.worker else supervise(given)


def supervise(given: argparse.Namespace) -> int:
    """Hand numbers to a worker, start another where one dies, and tell what was found."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    until, number, worker = time.monotonic() + given.seconds, given.first, None
    with tempfile.TemporaryDirectory(prefix="edgestill-fuzz-") as place:
        while number < given.first + given.mutants and time.monotonic() < until:
            worker = worker or start(Path(place))
            reply = ask(worker, number)
            if reply is None:
                code = stop(worker)
                worker = None
                reply = {"kind": kind_of(given, number), "problem": f"the process ended or took too long ({code})"}
            found[reply["kind"]].append(reply)
            if reply.get("problem"):
                keep(given.keep, Path(place) / "mutant", number, reply)
            number += 1
        if worker is not None:
            stop(worker)
    return tell(found)


def start(place: Path) -> "subprocess.Popen[str]":
    own = {"FUZZ_MARKER": str(place / "marker"), "TMPDIR": str(place), "EDGESTILL_CONFIG": str(place / "configuration")}
    environment = os.environ | own
    command = [sys.executable, __file__, *sys.argv[1:], "--worker"]
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    assert worker.stdout is not None
    if worker.stdout.readline() != "ready\n":
        sys.exit(f"the worker did not start ({stop(worker)})")
    return worker


def ask(worker: "subprocess.Popen[str]", number: int) -> dict[str, Any] | None:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{number}\n")
    worker.stdin.flush()
    if not select.select([worker.stdout], [], [], 3 * MOST_SECONDS)[0]:
        return None
    line = worker.stdout.readline()
    return json.loads(line) if line else None


def stop(worker: "subprocess.Popen[str]") -> int:
    with contextlib.suppress(OSError):
        os.killpg(worker.pid, signal.SIGKILL) if worker.poll() is None else None
    return worker.wait()


def keep(folder: Path, mutant: Path, number: int, reply: dict[str, Any]) -> None:
    target = folder / f"{reply['kind']}-{number}"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(mutant, target) if mutant.is_dir() else target.mkdir(parents=True)
    (target / "problem.json").write_text(json.dumps(reply, indent=1))
    print(f"{reply['kind']} {number}: {reply['problem']}", file=sys.stderr, flush=True)


def tell(found: dict[str, list[dict[str, Any]]]) -> int:
    print("| kind | mutants | taken | differ or fail | refused | median s | slowest s | peak MiB | faults |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind, replies in sorted(found.items()):
        codes = [reply.get("code") for reply in replies]
        seconds = sorted(reply.get("seconds", MOST_SECONDS) for reply in replies)
        peak = max(reply.get("peak", 0) for reply in replies) >> 20
        faults = sum(bool(reply.get("problem")) for reply in replies)
        print(
            f"| {kind} | {len(replies):,} | {codes.count(0):,} | {codes.count(1):,} | {codes.count(2):,} | "
            f"{seconds[len(seconds) // 2]:.2f} | {seconds[-1]:.2f} | {peak:,} | {faults} |"
        )
    return int(any(reply.get("problem") for replies in found.values() for reply in replies))


def kind_of(given: argparse.Namespace, number: int) -> str:
    from lib.fuzz_exchanged import EXCHANGED
    from lib.fuzz_targets import TARGETS

    kinds: list[str] = given.only or [*TARGETS, *EXCHANGED]
    return kinds[number % len(kinds)]


def work(given: argparse.Namespace) -> int:
    """The worker: reads numbers, makes and reads their mutants in this process, and answers in lines of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from lib.fuzz_exchanged import EXCHANGED
    from lib.fuzz_mutate import MARKER
    from lib.fuzz_targets import TARGETS, make_seeds

    doors = TARGETS | EXCHANGED
    place = Path(tempfile.gettempdir())
    shutil.rmtree(place / "seeds", ignore_errors=True)
    seeds = make_seeds(place / "seeds", given.image_run.absolute(), given.text_run.absolute())
    os.chdir(place)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        number, mutant = int(line), place / "mutant"
        shutil.rmtree(mutant, ignore_errors=True)
        mutant.mkdir()
        kind = kind_of(given, number)
        reply: dict[str, Any] = {"kind": kind}
        began = time.monotonic()
        try:
            outcome = doors[kind](seeds, mutant, random.Random(f"{given.seed} {kind} {number}"))
            reply |= {
                "code": outcome.code,
                "problem": problem_of(outcome.code, outcome.said),
                "said": outcome.said[:300],
            }
        except BaseException:
            reply["problem"] = traceback.format_exc()[-1500:]
        reply["seconds"] = time.monotonic() - began
        reply["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        if MARKER.exists():
            MARKER.unlink()
            reply["problem"] = "code of the mutant ran"
        elif not reply.get("problem") and reply["seconds"] > MOST_SECONDS:
            reply["problem"] = f"took {reply['seconds']:.0f} s"
        elif not reply.get("problem") and reply["peak"] > MOST_BYTES:
            reply["problem"] = f"the process took {reply['peak']:,} bytes"
        print(json.dumps(reply), file=answers, flush=True)
    return 0


def problem_of(code: int, said: str) -> str | None:
    """What is wrong with an exit code and what was printed."""
    lines = said.splitlines()
    if code not in (0, 1, 2):
        return f"exit code {code}: {said[:300]}"
    if "our mistake" in said or "Traceback" in said:
        return said[-500:]
    if code and not any(line.strip() for line in lines):
        return f"exit code {code} without a word"
    strange = next((line for line in lines if len(line) > MOST_SAID or not line.isprintable()), None)
    if code and strange is not None:
        return f"no sentence: {strange[:200]!r} of {len(strange)} characters"
    return None


if __name__ == "__main__":
    sys.exit(main())
