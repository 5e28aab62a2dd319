"""Warnings for the reader of a profile, a sentence each."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

BUSY_CORES, STOLEN, DRIFT, P50_SPREAD, P90_SPREAD, SLOWER_CLOCK, SLOWER_CORE = 0.2, 0.01, 0.02, 0.03, 0.08, 0.05, 0.1
REPEATS = 3  # fresh processes, below which their spread says little


def warnings_of(profile: Mapping[str, Any]) -> list[str]:
    """Return a warning for each kind of problem beyond its limit, about the worst case."""
    found = [
        _busy(profile["loads"], profile["device"]["cores"]),
        _stolen(profile["loads"]),
        _clock(profile["loads"]),
        _core(profile["loads"]),
        _drift(profile["results"]),
        *(_differing(profile["results"], name, most) for name, most in (("p50", P50_SPREAD), ("p90", P90_SPREAD))),
        _threads(profile),
        _governor(profile["device"]["governor"]),
        _few(profile["results"]),
        _once(profile["method"]["repeats"]),
    ]
    return [sentence for sentence in found if sentence]


def where(result: Mapping[str, Any]) -> str:
    """Name a result's setting: `student at batch 1, 2 threads`."""
    plural = "s" if result["threads"] > 1 else ""
    return f"{result['model']} at batch {result['batch']}, {result['threads']} thread{plural}"


def _worst(loads: Sequence[Mapping[str, Any]], name: str) -> float:
    return max((load[name] for load in loads if load[name] is not None), default=0.0)


def _busy(loads: Sequence[Mapping[str, Any]], cores: int) -> str:
    most = _worst(loads, "others_busy_cores")
    if most <= BUSY_CORES:
        return ""
    return f"Other processes kept up to {most:.1f} of {cores} cores busy meanwhile: measure again when it is idle."


def _stolen(loads: Sequence[Mapping[str, Any]]) -> str:
    most = _worst(loads, "stolen_share")
    return f"The host took up to {most:.0%} of this virtual machine's time: measure again." if most > STOLEN else ""


def _clock(loads: Sequence[Mapping[str, Any]]) -> str:
    """Warn of a fallen clock. A reading is of one moment, so halves of all readings are compared, not single ones."""
    readings = [load[name] for load in loads for name in ("mhz_before", "mhz_after") if load[name]]
    half = len(readings) // 2
    if half == 0:
        return ""
    fall = 1 - statistics.median(readings[-half:]) / statistics.median(readings[:half])
    return f"The clock fell by {fall:.0%} meanwhile: the device may be throttling." if fall > SLOWER_CLOCK else ""


def _core(loads: Sequence[Mapping[str, Any]]) -> str:
    slower = max(load["core_p90_ms"] for load in loads) / min(load["core_p10_ms"] for load in loads) - 1
    if slower <= SLOWER_CORE:
        return ""
    return (
        f"The core itself was {slower:.0%} slower for a tenth of a process or more, by a fixed multiplication beside "
        "the calls (a neighbour on the core, which a virtual machine's host may have put there, or throttling): "
        "measure again."
    )


def _drift(results: Sequence[Mapping[str, Any]]) -> str:
    drifts = [(process["drift"], result) for result in results for process in result["processes"] if process["drift"]]
    sure = [(change, result) for (change, (low, high)), result in drifts if low > 0 or high < 0]
    change, result = max(sure, key=lambda item: abs(item[0]), default=(0.0, None))
    if result is None or abs(change) <= DRIFT:
        return ""
    way = "slower" if change > 0 else "faster"
    return f"Unsteady: {where(result)} became {abs(change):.1%} {way} from a process's first third to its last."


def _differing(results: Sequence[Mapping[str, Any]], name: str, most: float) -> str:
    known = [result for result in results if result[f"{name}_spread"] is not None]
    worst = max(known, key=lambda result: float(result[f"{name}_spread"]), default=None)
    if worst is None or worst[f"{name}_spread"] <= most:
        return ""
    return f"Unsteady: fresh processes differ by {worst[f'{name}_spread']:.1%} in the {name} of {where(worst)}."


def _threads(profile: Mapping[str, Any]) -> str:
    cores = len(profile["device"]["affinity"] or ()) or profile["device"]["cores"]
    most = max(result["threads"] for result in profile["results"])
    return f"{most} threads on {cores} core{'s' if cores > 1 else ''} wait for each other." if most > cores else ""


def _governor(name: str | None) -> str:
    if name in (None, "performance"):
        return ""
    return f"The CPU's governor is {name!r}: the clock follows the load; `performance` repeats better."


def _few(results: Sequence[Mapping[str, Any]]) -> str:
    few = [result for result in results if "p90_ms" not in result["summary"]["percentiles"]]
    if not few:
        return ""
    return f"{few[0]['summary']['n']} calls of {where(few[0])} are too few for a p90, which takes 64: measure longer."


def _once(repeats: int) -> str:
    if repeats >= REPEATS:
        return ""
    plural = "es do" if repeats > 1 else " does"
    return f"{repeats} fresh process{plural} not show how much a fresh process changes: --repeats {REPEATS} or more."
