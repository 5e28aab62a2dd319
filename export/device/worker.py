"""Measures in one fresh process: a model's cold start, or models in turns. Reads a task, prints its findings."""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgestill.export.device.facts import energy_counter, fields_of, load_between, memory_bytes, read_load, time_core
from edgestill.export.device.runtimes import import_runtime, open_other, runtime_of, version_of
from edgestill.pipeline.timing.stopwatch import take_turns

PROVIDER = "CPUExecutionProvider"
_EXAMPLES, _MOST_BYTES = 16, 1 << 28  # different batches, cycled through; fewer where they are large
_MEMORY, _ADDRESSES = 1 << 32, 1 << 28  # for a model; reserved but unused, per thread or library
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


def work(text: str) -> str:
    """Do the task of a JSON text; return the findings as JSON, or `{"error": one sentence}`."""
    task = json.loads(text)
    if task["cpus"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, task["cpus"])
    try:
        bound_memory(task)
        found = cold_start(task) if task["kind"] == "cold" else timed(task)
    except Exception as error:  # the runtime's error types share no base class
        found = {"error": (str(error).splitlines() or [type(error).__name__])[0]}
    return json.dumps(found)


def bound_memory(task: Mapping[str, Any]) -> None:
    """Limit memory on Linux: some GiB per input and some copies of a model's file, never more than is free.

    Anyone who was sent a hostile file may measure it, and its need for memory shows only when it runs.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    free = fields_of(Path("/proc/meminfo")).get("MemAvailable")
    if free is None:
        return
    files = sum(Path(path).stat().st_size for path in task["models"].values())
    wanted = (_MEMORY + 16 * files) * task["batch"] + 2 * _MOST_BYTES
    mapped = Path(task["examples"]).stat().st_size if task["examples"] else 0
    most = min(wanted, int(free.split()[0]) * 1024) + mapped + _ADDRESSES * (os.cpu_count() or 1)
    old = resource.getrlimit(resource.RLIMIT_AS)
    if old[0] == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_AS, (most, old[1]))


def cold_start(task: Mapping[str, Any]) -> dict[str, Any]:
    """Time loading and the first call of one model in a process without earlier runs; then measure its memory."""
    (path,) = task["models"].values()
    start = time.perf_counter()
    import_runtime(path)
    imported = time.perf_counter()
    before, _ = memory_bytes()
    started = time.perf_counter()
    session = open_model(path, task)
    loaded = time.perf_counter()
    example = next(inputs_of(session.get_inputs(), task))  # one: 16 large batches would count as the model's memory
    held = sum(array.nbytes for array in example.values())
    began = time.perf_counter()
    session.run(None, example)
    answered = time.perf_counter()
    for _ in range(_EXAMPLES):
        session.run(None, example)
    after, peak = memory_bytes()
    return {
        "import_ms": (imported - start) * 1e3,
        "load_ms": (loaded - started) * 1e3,
        "first_call_ms": (answered - began) * 1e3,
        "peak_rss_bytes": peak,
        "added_rss_bytes": None if before is None or after is None else max(0, after - before - held),
        "runtime": version_of(path),
        "numpy": np.__version__,
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "inputs": [
            {"name": given.name, "dtype": str(example[given.name].dtype), "shape": list(given.shape)}
            for given in session.get_inputs()
        ],
    }


def timed(task: Mapping[str, Any]) -> dict[str, Any]:
    """Time all models in turns; return their samples, the machine's load meanwhile, and energy."""
    calls = {name: make_call(path, task) for name, path in task["models"].items()}
    core: list[float] = []
    limits = {name: task[name] for name in ("warmup_s", "duration_s", "min_samples", "max_samples")}
    before = read_load()
    samples = take_turns(calls, **limits, between=lambda: core.append(time_core()))
    load = load_between(before, read_load())
    load |= {f"core_p{percent}_ms": float(np.percentile(core, percent)) for percent in (10, 50, 90)}
    rounded = {name: [round(value, 6) for value in values] for name, values in samples.items()}  # whole nanoseconds
    return {"samples_ms": rounded, "load": load, **measure_energy(calls, task["energy_s"])}


def measure_energy(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, Any]:
    """Measure millijoules a call of the processor's packages, idle ones included, each model alone; or say why not."""
    counter = energy_counter()
    if isinstance(counter, str):
        return {"energy_mj": None, "energy": f"not measured: {counter}"}
    found = {}
    for name, call in calls.items():
        count, begin, until = 0, counter(), time.perf_counter() + seconds
        while time.perf_counter() < until:
            call()
            count += 1
        found[name] = (counter() - begin) * 1e3 / max(count, 1)
    return {"energy_mj": found, "energy": "RAPL, all of the processor's packages"}


def open_model(path: str, task: Mapping[str, Any]) -> Any:
    """Open a file with the task's settings; a session's other options are those of the package's own."""
    if runtime_of(path) != "onnxruntime":
        return open_other(path, task["threads"])
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task["threads"]
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if task["spinning"] else "0")
    options.log_severity_level = 3
    options.add_session_config_entry("session.load_model_format", "ONNX")  # whatever the file's name
    return onnxruntime.InferenceSession(path, options, providers=[PROVIDER])


def make_call(path: str, task: Mapping[str, Any]) -> Callable[[], object]:
    """Return a function to call the model on the next of its examples."""
    session = open_model(path, task)
    examples, position = make_inputs(session.get_inputs(), task), 0

    def call() -> object:
        nonlocal position
        position = (position + 1) % len(examples)
        return session.run(None, examples[position])

    return call


def make_inputs(given: list[Any], task: Mapping[str, Any]) -> list[dict[str, np.ndarray]]:
    """Return batches for a model's inputs, one at least, to cycle through.

    Raises:
        ValueError: no batch of this size or dtype goes in.
    """
    batches = inputs_of(given, task)
    first = next(batches)
    more = min(_EXAMPLES, _MOST_BYTES // max(1, sum(array.nbytes for array in first.values()))) - 1
    return [first, *itertools.islice(batches, max(0, more))]


def inputs_of(given: list[Any], task: Mapping[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    """Yield one batch after the other: from the file of examples if one is given, else random."""
    rng, real = np.random.default_rng(task["seed"]), None
    if task["examples"] is not None:
        real = np.load(task["examples"], mmap_mode="r", allow_pickle=False)  # mapped: its memory is not the model's
    for place in itertools.count():
        yield {item.name: _array(item, rng, real, place, task) for item in given}


def _array(item: Any, rng: np.random.Generator, real: np.ndarray | None, place: int, task: Mapping[str, Any]) -> Any:
    if item.type not in _DTYPES:
        raise ValueError(f"input {item.name!r} is a {item.type}, which no array here can be")
    dtype, batch = _DTYPES[item.type], task["batch"]
    if item.name == "past":  # a language model's cache, of no token yet
        return np.zeros((batch, *(side if isinstance(side, int) else 0 for side in item.shape[1:])), dtype)
    if real is not None:
        chosen = real[(np.arange(batch) + place * batch) % len(real)]
        chosen = chosen != 0 if item.name == "attention_mask" else chosen  # beside token ids; 0 is padding
        return np.ascontiguousarray(chosen, dtype=dtype)
    first, *others = item.shape or [None]
    if isinstance(first, int) and first != batch:
        raise ValueError(f"input {item.name!r} takes batches of {first} and no others; give --batch {first}")
    if not task["length"] and not all(isinstance(side, int) for side in others):
        raise ValueError(f"input {item.name!r} leaves the sides {others} open; give --length")
    shape = (batch, *(side if isinstance(side, int) else task["length"] for side in others))
    if np.issubdtype(dtype, np.floating):
        return rng.random(shape, dtype=np.float32).astype(dtype)
    if dtype is np.uint8:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return np.ones(shape, dtype)  # token ids, masks


def answer_task() -> int:
    """Do the task on standard input; print its findings as the last line of standard output."""
    print(work(sys.stdin.read()), flush=True)
    return 0
