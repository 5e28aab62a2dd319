"""Measures every format of an opened bundle, each first alone in a fresh process and then all in turns in another."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load

from edgestill.export.benchmark.result import Agreement, Benchmark, Row
from edgestill.export.bundle.probes import why_not_run
from edgestill.export.bundle.read import OpenedBundle
from edgestill.export.onnx.sessions import runtime_name
from edgestill.export.result import Ratio
from edgestill.pipeline.child import environment, interpreter
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.timing.latency_statistics import paired_ratio, percentile
from edgestill.pipeline.training.metrics import wilson

FP32 = "fp32"
_FIRST_S, _TIMED_S = 120, 600  # longest time of a process, the second beside its timed calls
_MIN_SAMPLES, _MAX_SAMPLES = 70, 20_000  # of a format; 64 support a p90


class Settings(NamedTuple):
    threads: int = 1
    duration_s: float = 3.0  # of timed calls, a format
    warmup_s: float = 0.2
    repeats: int = 3  # fresh processes, on a target


def benchmark(
    opened: OpenedBundle,
    inputs: np.ndarray,
    what: str,
    settings: Settings,
    say: Callable[[str], None],
    trusted: bool = False,
) -> Benchmark:
    """Measure the formats that this machine has a runtime for.

    Args:
        inputs: [N, *input_shape], as the formats' `Run` takes them.
        what: the inputs, in words.
        trusted: formats whose files are programs are run too.

    Raises:
        ExportError: no format can be measured here.
    """
    bundle = opened.bundle
    left_out = {name: why_not_run(model, trusted or opened.trusted) for name, model in bundle.models.items()}
    absent = {name: why for name, why in left_out.items() if why is not None}
    names = [name for name in bundle.models if name not in absent]
    with tempfile.TemporaryDirectory(prefix="edgestill-") as folder:
        np.save(Path(folder, "inputs.npy"), inputs)
        task = _task(folder, settings)
        first = {}
        for name in [*names]:
            say(f"first answer of {name}")
            found = _run({**task, "kind": "first", "models": _paths(opened, [name])}, _FIRST_S)
            if "error" in found:  # such as a processor that it is not for
                absent[name] = str(found["error"])
                names.remove(name)
            first[name] = found
        if not names:
            raise ExportError("; ".join(f"{name}: {why}" for name, why in absent.items()))
        say(f"calls in turns: {', '.join(names)}")
        limit = _TIMED_S + 2 * len(names) * (settings.duration_s + settings.warmup_s)
        timed = _run({**task, "kind": "timed", "models": _paths(opened, names)}, limit)
        if "error" in timed:
            raise ExportError(str(timed["error"]))
        answers = {name: logits.argmax(1) for name, logits in load(Path(task["answers"]).read_bytes()).items()}
    samples = timed["samples_ms"]
    rows = [_row(opened, name, first[name], samples, answers) for name in names]
    return Benchmark(
        schema="edgestill.benchmark/1",
        bundle=bundle.name,
        digest=opened.manifest.digest,
        target="here",
        cpu=str(describe_machine()["cpu"]),
        threads=settings.threads,
        inputs=what,
        rows=tuple(rows),
        left_out=absent,
    )


def answers_here(opened: OpenedBundle, names: list[str], inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Return the classes that formats answer on this machine [N], by format, from a fresh process.

    Raises:
        ExportError: one cannot be run here.
    """
    with tempfile.TemporaryDirectory(prefix="edgestill-") as folder:
        np.save(Path(folder, "inputs.npy"), inputs)
        task = {**_task(folder, Settings()), "kind": "answers", "models": _paths(opened, names)}
        found = _run(task, _TIMED_S)
        if "error" in found:
            raise ExportError(str(found["error"]))
        logits = load(Path(task["answers"]).read_bytes())
    return {name: given.argmax(1) for name, given in logits.items()}


def _row(
    opened: OpenedBundle,
    name: str,
    first: Mapping[str, Any],
    samples: Mapping[str, list[float]],
    answers: Mapping[str, np.ndarray],
) -> Row:
    model, over = opened.bundle.models[name], None
    if FP32 in samples and name != FP32:
        value, interval = paired_ratio(samples[FP32], samples[name])
        over = Ratio(value=value, interval=interval)
    p50 = percentile(samples[name], 50)
    assert p50 is not None, "a format has enough samples for a median"
    return Row(
        format=name,
        runtime=runtime_name(model.runtime),
        size_bytes=model.bytes,
        accuracy=model.test_accuracy,
        agreement=agreement_of(answers, name),
        p50_ms=p50,
        p90_ms=percentile(samples[name], 90),
        over_fp32=over,
        memory_bytes=first["memory_bytes"],
        first_answer_ms=first["first_answer_ms"],
    )


def agreement_of(answers: Mapping[str, np.ndarray], name: str) -> Agreement | None:
    """Share of inputs that a format answers as fp32 does; None without either's answers."""
    if FP32 not in answers or name not in answers:
        return None
    n = len(answers[name])
    share = float((answers[name] == answers[FP32]).mean())
    return Agreement(share=share, n=n, interval=wilson(share, n))


def _paths(opened: OpenedBundle, names: list[str]) -> dict[str, str]:
    return {name: str(opened.folder / opened.bundle.models[name].file) for name in names}


def _task(folder: str, settings: Settings) -> dict[str, Any]:
    return {
        **settings._asdict(),
        "folder": folder,
        "inputs": str(Path(folder, "inputs.npy")),
        "answers": str(Path(folder, "answers.safetensors")),
        "min_samples": _MIN_SAMPLES,
        "max_samples": _MAX_SAMPLES,
    }


def _run(task: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
    """Run a task in a fresh process and return its findings, of which `error` is a sentence."""
    command = interpreter("-m", "edgestill.export.benchmark.child")
    try:
        done = subprocess.run(
            command, input=json.dumps(task), capture_output=True, text=True, timeout=limit_s, env=environment()
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {limit_s:g} s"}
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return {"error": f"the measuring process ended with code {done.returncode} ({last[:200]})"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found
