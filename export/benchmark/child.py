"""Measures in one fresh process: a format's first answer, or formats in turns. Reads a task, prints its findings."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from edgestill.export.formats import FORMATS
from edgestill.export.run import Run, calls_in_turn
from edgestill.pipeline.timing.stopwatch import take_turns


def main() -> None:
    task = json.loads(sys.stdin.read())
    inputs = np.load(task["inputs"], allow_pickle=False)
    try:
        found = {"first": _first, "timed": _timed, "answers": _answered}[task["kind"]](task, inputs)
    except Exception as error:  # the runtimes' error types share no base class
        found = {"error": (str(error).splitlines() or [type(error).__name__])[0]}
    print(json.dumps(found), flush=True)


def _first(task: Mapping[str, Any], inputs: np.ndarray) -> dict[str, Any]:
    ((name, path),) = task["models"].items()
    before, begun = peak_bytes(), time.perf_counter()
    _opened(name, path, task)(np.ascontiguousarray(inputs[:1]))
    seconds = time.perf_counter() - begun
    return {"first_answer_ms": 1e3 * seconds, "memory_bytes": max(0, peak_bytes() - before)}


def _answered(task: Mapping[str, Any], inputs: np.ndarray) -> dict[str, Any]:
    """Write each format's logits on all inputs to a file."""
    runs = {name: _opened(name, path, task) for name, path in task["models"].items()}
    Path(task["answers"]).write_bytes(save({name: _answers(run, inputs) for name, run in runs.items()}))
    return {}


def _timed(task: Mapping[str, Any], inputs: np.ndarray) -> dict[str, Any]:
    """Write each format's logits on all inputs to a file, and return the times of single calls in turns."""
    runs = {name: _opened(name, path, task) for name, path in task["models"].items()}
    answers = {name: _answers(run, inputs) for name, run in runs.items()}
    Path(task["answers"]).write_bytes(save(answers))
    limits = {name: task[name] for name in ("warmup_s", "duration_s", "min_samples", "max_samples")}
    samples = take_turns({name: calls_in_turn(run, inputs[:16]) for name, run in runs.items()}, **limits)
    return {"samples_ms": {name: list(values) for name, values in samples.items()}}


def _opened(name: str, path: str, task: Mapping[str, Any]) -> Run:
    return FORMATS[name].open(Path(path), task["threads"])


def _answers(run: Run, inputs: np.ndarray) -> np.ndarray:
    size = 64
    parts = [run(np.ascontiguousarray(inputs[start : start + size])) for start in range(0, len(inputs), size)]
    return np.concatenate(parts)


def peak_bytes() -> int:
    """Return the largest memory that this process has held; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    main()
