"""Measures a profile: cold starts, then every batch and number of threads, in fresh processes; returns JSON data."""

import datetime
import hashlib
import itertools
import json
import math
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edgestill.export.device.facts import describe_device
from edgestill.export.device.judge import warnings_of
from edgestill.export.device.runtimes import BESIDE
from edgestill.export.device.worker import PROVIDER
from edgestill.pipeline.timing.latency_statistics import describe_samples, drift, paired_ratio, percentile, spread
from edgestill.pipeline.timing.stopwatch import RELOAD, RELOAD_NS, TURN

SCHEMA = "edgestill.profile/1"
_COLD_TIMEOUT_S, _TIMED_TIMEOUT_S = 120, 3600  # the second comes on top of the timed calls
_COLD = ("import_ms", "load_ms", "first_call_ms", "peak_rss_bytes", "added_rss_bytes")
_KIND = {True: "a file of examples", False: "random: uniform in [0, 1), bytes uniform, whole numbers 1"}


class Settings(NamedTuple):
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (1,)
    duration_s: float = 10.0  # calls of a model at a batch and a number of threads, all processes together
    repeats: int = 3  # fresh processes
    warmup_s: float = 0.2
    min_samples: int = 70  # in each process; 64 support a p90
    max_samples: int = 20_000
    seed: int = 0
    length: int = 0  # size of inputs' sides left open by the file, besides the batch; 0: there must be none
    spinning: bool = True
    cpus: tuple[int, ...] = ()  # to run on; empty: the system chooses
    examples: str | None = None  # an .npy file
    energy_s: float = 1.0


class Model(NamedTuple):
    path: str
    file: str  # as it is called in the profile
    facts: dict[str, Any]  # format, precision, … where they are known


class MeasureError(Exception):
    """Failure to measure a model; the message says why in one sentence."""


def measure(
    models: Mapping[str, Model], against: str | None, settings: Settings, worker: Sequence[str],
    say: Callable[[str], None], remeasure: str, architecture: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure models, in turns if there are several.

    Args:
        against: the model to compare the others with.
        worker: the command of a fresh process for a task.
        remeasure: the command to measure all this again.

    Raises:
        MeasureError: a model cannot be loaded or run.
    """
    cold: dict[str, list[dict[str, Any]]] = {name: [] for name in models}
    for number, (name, model) in itertools.product(range(settings.repeats), models.items()):
        say(f"cold start {number + 1} of {settings.repeats}: {name}")
        task = _task(settings, "cold", {name: model.path}, settings.batches[0], settings.threads[0])
        cold[name].append(_run(worker, task, _COLD_TIMEOUT_S, name))
    paths = {name: model.path for name, model in models.items()}
    runs: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for number, batch, threads in itertools.product(range(settings.repeats), settings.batches, settings.threads):
        say(f"process {number + 1} of {settings.repeats}: batch {batch}, threads {threads}")
        task = _task(settings, "timed", paths, batch, threads)
        limit_s = math.ceil(_TIMED_TIMEOUT_S + 2 * len(paths) * (task["duration_s"] + settings.warmup_s))
        found = _run(worker, task, limit_s, ", ".join(models))
        runs.setdefault((batch, threads), []).append(found)
    results = [_result(name, *key, found) for key, found in runs.items() for name in models]
    others = [result for result in results if result["model"] != against]
    first = cold[next(iter(models))][0]
    document = {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),  # noqa: UP017
        "remeasure": remeasure,
        "architecture": architecture,
        "device": {**describe_device(), "affinity": first["affinity"]},
        "runtime": {
            "name": first["runtime"],
            "provider": PROVIDER,
            "graph_optimization": "all",
            "inter_op_threads": 1,
            "spinning": settings.spinning,
            "numpy": first["numpy"],
        },
        "method": _method(settings),
        "models": {name: _describe(model, cold[name]) for name, model in models.items()},
        "results": results,
        "comparisons": [] if against is None else [_compare(one, against, results) for one in others],
        "loads": [{"batch": key[0], "threads": key[1], **run["load"]} for key, found in runs.items() for run in found],
        "energy": next(iter(runs.values()))[0]["energy"],
    }
    return {**document, "warnings": warnings_of(document)}


def _task(settings: Settings, kind: str, paths: Mapping[str, str], batch: int, threads: int) -> dict[str, Any]:
    task = {"kind": kind, "models": dict(paths), "batch": batch, "threads": threads}
    return {**settings._asdict(), **task, "duration_s": settings.duration_s / settings.repeats}


def _run(worker: Sequence[str], task: Mapping[str, Any], timeout_s: int, name: str) -> dict[str, Any]:
    """Run a task in a fresh process and return its findings."""
    try:
        done = subprocess.run(
            [*worker],
            input=json.dumps(task),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise MeasureError(f"{name}: no answer within {timeout_s} s") from None
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise MeasureError(f"{name}: the measuring process ended with code {done.returncode} ({last})")
    found: dict[str, Any] = json.loads(lines[-1])
    if "error" in found:
        raise MeasureError(f"{name}: {found['error']}")
    return found


def _result(name: str, batch: int, threads: int, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one model's result at a batch and number of threads; percentiles pool all its processes' samples."""
    samples = [run["samples_ms"][name] for run in runs]
    pooled = list(itertools.chain.from_iterable(samples))
    energy = [run["energy_mj"][name] for run in runs if run["energy_mj"]]
    processes = [{"p50_ms": percentile(s, 50), "p90_ms": percentile(s, 90), "drift": drift(s)} for s in samples]
    return {
        "model": name,
        "batch": batch,
        "threads": threads,
        "summary": describe_samples(pooled),
        "throughput_per_s": batch * len(pooled) / (sum(pooled) / 1e3),
        "p50_spread": _spread([process["p50_ms"] for process in processes]),
        "p90_spread": _spread([process["p90_ms"] for process in processes]),
        "energy_mj": sum(energy) / len(energy) if energy else None,
        "processes": [{**process, "samples_ms": s} for process, s in zip(processes, samples)],  # noqa: B905
    }


def _spread(values: list[Any]) -> float | None:
    return None if None in values or len(values) < 2 else spread(values)


def _compare(result: Mapping[str, Any], against: str, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare a model's speed with the other's, at the same batch and threads."""
    same = ("batch", "threads")
    (other,) = (r for r in results if r["model"] == against and all(r[key] == result[key] for key in same))
    sides = [[process["samples_ms"] for process in of["processes"]] for of in (other, result)]
    slow, fast = (list(itertools.chain.from_iterable(side)) for side in sides)
    ratio, interval = paired_ratio(slow, fast, TURN)
    return {
        "model": result["model"],
        "against": against,
        **{key: result[key] for key in same},
        "ratio": ratio,
        "interval": interval,
        "process_ratios": [paired_ratio(a, b, TURN)[0] for a, b in zip(*sides)],  # noqa: B905
    }


def _describe(model: Model, cold: list[dict[str, Any]]) -> dict[str, Any]:
    path = Path(model.path)
    data, beside = path.read_bytes(), BESIDE.get(path.suffix)
    return {
        "file": model.file,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data) + (path.with_suffix(beside).stat().st_size if beside else 0),
        **model.facts,
        **({} if cold[0]["runtime"].startswith("onnxruntime ") else {"runtime": cold[0]["runtime"]}),
        "inputs": cold[0]["inputs"],
        "cold": [{key: process[key] for key in _COLD} for process in cold],
    }


def _method(settings: Settings) -> dict[str, Any]:
    shown = {key: value for key, value in settings._asdict().items() if key not in ("spinning", "energy_s")}
    return {
        **{key: list(value) if isinstance(value, tuple) else value for key, value in shown.items()},
        "examples": _KIND[settings.examples is not None],
        "clock": "time.perf_counter_ns",
        "turn": TURN,
        "timed": "one session.run, or its like in the model's own runtime, from numpy arrays of the model's dtype to "
        "numpy outputs; no decoding, no resizing",
        "warm_up": f"untimed calls for {settings.warmup_s:g} s; where models take turns, each of {TURN} timed calls "
        f"begins with {RELOAD} more, or {RELOAD_NS / 1e6:g} ms of them",
        "processes": "each started afresh, one at a time; models take turns within a process",
        "cold": "a fresh process that has run no model; the file may be in the system's cache",
        "percentiles": "of all processes' samples, where MLPerf LoadGen's early-stopping rule supports them at 99 %",
        "bounds": "95 %, by order statistics, as if calls were independent",
        "spread": "the range of the processes' own percentiles over their median",
        "outliers": "kept",
    }
