"""Overhead of orchestration: the share of a run's wall time that no stage computes in, with a Prefect server running.

    python benchmarks/orchestration.py [--preset digits] [--set KEY=VALUE …] [--no-prefect] [--out FILE.json]

A server is started as `edgestill ui` starts it, then one run as a flow run on it, in a process of its own. A thread of
that process looks at the stack of the main thread a hundred times a second. A moment counts for the innermost of its
frames that belongs to one of these:

- computing: torch, ONNX and its runtime, numpy, scipy, Optuna's samplers, and our own code that calls them
  (pipeline, search, distill, export, the stages);
- files: the run's directory, its journals and checkpoints, and Optuna's study in its file;
- prefect: Prefect, its client and its events;
- chain: the flow of the stages around all that;
- start: imports, and all else before the first stage.

The overhead of orchestration is files, prefect and chain. The start is told beside it: a run without Prefect has one
too. The look itself takes some microseconds a time.
"""

import argparse
import collections
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

LOOK_S = 0.01
# Part of a file's path -> what a moment counts for; the first that fits a frame counts, from the innermost frame on.
PARTS = (
    ("/edgestill/pipeline/runs/", "files"), ("/distill/study", "files"), ("/pipeline/runs/", "files"),
    ("/optuna/storages/", "files"), ("/sqlalchemy/", "files"), ("/optuna/", "computing"), ("/torch/", "computing"),
    ("/onnx", "computing"), ("/numpy/", "computing"), ("/scipy/", "computing"), ("/sklearn/", "computing"),
    ("/prefect/", "prefect"), ("/httpx/", "prefect"), ("/httpcore/", "prefect"), ("/anyio/", "prefect"),
    ("/flows/prefect/", "prefect"), ("/flows/runner", "chain"), ("/flows/observer", "chain"),
    ("/flows/progress", "chain"), ("/flows/terminal", "chain"), ("/flows/supervise", "chain"),
    ("/pipeline/", "computing"), ("/search/", "computing"), ("/distill/", "computing"), ("/export/", "computing"),
    ("/flows/", "computing"),
)  # fmt: skip
OVERHEAD = ("files", "prefect", "chain")


class Looks:
    """Looks at the main thread's stack; counts what they saw."""

    def __init__(self) -> None:
        self.seen: collections.Counter[str] = collections.Counter()
        self.inner: collections.Counter[tuple[str, str]] = collections.Counter()
        self._main, self._is_over = threading.main_thread().ident, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Looks":
        self.begun = self.last = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self.seconds = time.perf_counter() - self.begun

    def _look(self) -> None:
        has_begun = False
        while not self._is_over.wait(LOOK_S):
            frame = sys._current_frames().get(self._main or 0)
            now = time.perf_counter()
            took, self.last = now - self.last, now
            stack = list(frames(frame))
            has_begun = has_begun or any("/flows/runner" in file for file in stack)
            part, file = counted(stack) if has_begun else ("start", "")
            self.seen[part] += took
            self.inner[part, Path(file).name] += took


def frames(frame: FrameType | None) -> Iterator[str]:
    """Yield the files of a stack, from the innermost frame on."""
    while frame is not None:
        yield frame.f_code.co_filename
        frame = frame.f_back


def counted(stack: Sequence[str]) -> tuple[str, str]:
    for file in stack:
        for words, part in PARTS:
            if words in file:
                return part, file
    return "chain", ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of the run")
    parser.add_argument("--no-prefect", action="store_true", help="without a server, for comparison")
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    parser.add_argument("--looked-at", type=Path, help=argparse.SUPPRESS)  # of the process that is looked at
    arguments = parser.parse_args()
    if arguments.looked_at:
        return looked_at(arguments)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, contextlib.ExitStack() as stack:
        below = Path(folder)
        own = dict(os.environ) | {"PREFECT_HOME": str(below / "prefect")}
        own.pop("PREFECT_API_URL", None)
        if not arguments.no_prefect:
            from flow_runs import server

            own["PREFECT_API_URL"] = stack.enter_context(server(own, below))
        again = [sys.executable, __file__, "--looked-at", str(below), *sys.argv[1:]]
        done = subprocess.run(again, env=own, check=False)
        if done.returncode:
            return done.returncode
        found = json.loads((below / "looks.json").read_text(encoding="utf-8"))
    told(found)
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


def looked_at(arguments: argparse.Namespace) -> int:
    """Do the run in this process, and write what was seen."""
    with Looks() as looks:
        from edgestill.flows.cli.main import execute

        settings = [part for setting in arguments.set for part in ("--set", setting)]
        orchestrated = "--no-prefect" if arguments.no_prefect else "--prefect"
        out = ["--out", str(arguments.looked_at / "runs"), "--quiet", orchestrated]
        code = execute(["run", "--preset", arguments.preset, *settings, *out])
    from edgestill.pipeline.runs.provenance import describe_machine

    inner = sorted(looks.inner.items(), key=lambda item: -item[1])
    found = {
        "machine": describe_machine(),
        "wall_s": looks.seconds,
        "seconds": dict(looks.seen),
        "files": [[part, file, seconds] for (part, file), seconds in inner[:40]],
    }
    (arguments.looked_at / "looks.json").write_text(json.dumps(found), encoding="utf-8")
    return code


def told(found: dict[str, object]) -> None:
    seconds, wall = found["seconds"], found["wall_s"]
    assert isinstance(seconds, dict)
    assert isinstance(wall, float)
    print(json.dumps(found["machine"]))
    print("| part | s | share of the wall time |\n|---|---|---|")
    for part, took in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"| {part} | {took:.2f} | {took / wall:.2%} |")
    overhead = sum(seconds.get(part, 0.0) for part in OVERHEAD)
    print(f"wall time {wall:.1f} s; overhead of orchestration {overhead / wall:.2%} ({', '.join(OVERHEAD)})")


if __name__ == "__main__":
    sys.exit(main())
