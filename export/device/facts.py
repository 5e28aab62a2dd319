"""Facts to quote a latency with: the device, its load, its memory and its energy counter.

Linux tells them all in /proc and /sys; a fact not told by another system is None.
"""

import math
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

_ROOT = Path("/")
_LARGE = 7**1710  # 600 bytes


def describe_device(root: Path = _ROOT) -> dict[str, Any]:
    """Describe the device as it is set up now.

    Args:
        root: where /proc, /sys and /etc are.
    """
    cpu = root / "sys/devices/system/cpu"
    release = dict(line.partition("=")[::2] for line in _read(root / "etc/os-release").splitlines())
    memory = fields_of(root / "proc/meminfo").get("MemTotal")
    return {
        "name": _read(root / "proc/device-tree/model").strip("\0 \n") or None,  # of a board
        "cpu": _cpu_model(root),
        "architecture": platform.machine(),
        "cores": os.cpu_count() or 1,
        "affinity": _affinity(),
        "is_virtual": " hypervisor" in _read(root / "proc/cpuinfo"),
        "governor": _read(cpu / "cpu0/cpufreq/scaling_governor").strip() or None,
        "turbo": _turbo(cpu),
        "max_mhz": _mhz(cpu / "cpu0/cpufreq/cpuinfo_max_freq"),
        "ram_bytes": int(memory.split()[0]) * 1024 if memory else None,
        "os": release.get("PRETTY_NAME", "").strip('"') or platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


_BYTE_PRODUCTS = {  # a flag of /proc/cpuinfo -> the instruction set that multiplies bytes
    "ssse3": "SSSE3", "avx2": "AVX2", "avx512bw": "AVX-512", "avx_vnni": "AVX-VNNI", "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni_int8": "AVX-VNNI-INT8", "amx_int8": "AMX", "asimd": "Neon", "asimddp": "Neon dot product",
    "i8mm": "Neon I8MM", "sve": "SVE",
}  # fmt: skip


def byte_products(root: Path = _ROOT) -> tuple[str, ...]:
    """Return the processor's instruction sets for products of bytes; its architecture if the system tells none."""
    lines = (line.partition(":") for line in _read(root / "proc/cpuinfo").splitlines())
    flags = {flag for key, _, value in lines if key.strip() in ("flags", "Features") for flag in value.split()}
    return tuple(name for flag, name in _BYTE_PRODUCTS.items() if flag in flags) or (platform.machine(),)


class Load(NamedTuple):
    """Counters at one moment; from two of them `load_between` derives the load by other processes."""

    wall_s: float
    own_s: float  # this process's and its finished children's
    busy_s: float | None  # all cores together, since the machine started
    stolen_s: float | None  # taken by the host of a virtual machine
    average: float | None  # the 1-minute load average
    mhz: float | None  # core 0, at this moment


def read_load(root: Path = _ROOT) -> Load:
    """Read the counters now."""
    own = os.times()
    ticks = _read(root / "proc/stat").partition("\n")[0].split()[1:]
    seconds = [int(tick) / os.sysconf("SC_CLK_TCK") for tick in ticks]
    # user nice system idle iowait irq softirq steal guest guest_nice; user already holds guest
    return Load(
        wall_s=time.monotonic(),
        own_s=own.user + own.system + own.children_user + own.children_system,
        busy_s=sum(seconds[:3]) + sum(seconds[5:7]) if len(seconds) >= 8 else None,
        stolen_s=seconds[7] if len(seconds) >= 8 else None,
        average=load_average(),
        mhz=_mhz(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"),
    )


def load_average() -> float | None:
    """Return the load average of the last minute; None if the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows; a container without /proc
        return None


def time_core() -> float:
    """Time a fixed multiplication in ms, some 40 us, on nothing but the core; the best of three.

    It reveals things hidden from a virtual machine's counters: another's thread on the core (1.3 to 1.4 times as long
    on an AMD EPYC), or a fallen clock.
    """
    best = math.inf
    for _ in range(3):
        start = time.perf_counter_ns()
        for _ in range(4):
            _LARGE * _LARGE
        best = min(best, time.perf_counter_ns() - start)
    return best / 1e6


def load_between(before: Load, after: Load) -> dict[str, float | None]:
    """Return load averages and clocks before and after; for the time between, cores busy by others and stolen share."""
    wall = max(after.wall_s - before.wall_s, 1e-9)
    others = stolen = None
    if before.busy_s is not None and after.busy_s is not None:
        others = max(0.0, after.busy_s - before.busy_s - (after.own_s - before.own_s)) / wall
    if before.stolen_s is not None and after.stolen_s is not None:
        stolen = (after.stolen_s - before.stolen_s) / wall / (os.cpu_count() or 1)
    return {
        "average_before": before.average,
        "average_after": after.average,
        "others_busy_cores": others,
        "stolen_share": stolen,
        "mhz_before": before.mhz,
        "mhz_after": after.mhz,
    }


def memory_bytes(root: Path = _ROOT) -> tuple[int | None, int | None]:
    """Return this process's resident memory: now, and at its peak."""
    fields = fields_of(root / "proc/self/status")
    if "VmHWM" in fields:
        now, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return now, peak
    try:
        import resource
    except ImportError:  # Windows
        return None, None
    unit = 1 if sys.platform == "darwin" else 1024
    return None, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def energy_counter(root: Path = _ROOT) -> Callable[[], float] | str:
    """Return a reader of the joules taken so far by the processor's packages (RAPL), or the reason there is none."""
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]"))  # AMD's carry this name too
    if not zones:
        return "this system shows no RAPL counter"
    try:
        ranges = [int(_must_read(zone / "max_energy_range_uj")) for zone in zones]
        last = [int(_must_read(zone / "energy_uj")) for zone in zones]
    except (OSError, ValueError):
        return "the RAPL counter can be read by root alone"
    total = 0

    def joules() -> float:
        nonlocal total
        for place, zone in enumerate(zones):
            now = int(_must_read(zone / "energy_uj"))
            total += (now - last[place]) % ranges[place]  # the counter wraps to 0
            last[place] = now
        return total / 1e6

    return joules


def _cpu_model(root: Path) -> str:
    lines = _read(root / "proc/cpuinfo").splitlines()
    for key in ("model name", "Hardware", "cpu model"):  # x86 and some ARM; older ARM; MIPS
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == key and value.strip():
                return value.strip()
    parts = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    if "CPU part" in parts:  # ARM says numbers only
        return f"ARM implementer {parts.get('CPU implementer', '?')} part {parts['CPU part']}"
    return platform.processor() or "unknown"


def _turbo(cpu: Path) -> bool | None:
    boost, off = _read(cpu / "cpufreq/boost").strip(), _read(cpu / "intel_pstate/no_turbo").strip()
    return boost == "1" if boost else off == "0" if off else None


def _affinity() -> list[int] | None:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _mhz(path: Path) -> float | None:
    text = _read(path).strip()
    return int(text) / 1000 if text.isdigit() else None


def fields_of(path: Path) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in _read(path).splitlines())}


def _read(path: Path) -> str:
    try:
        return _must_read(path)
    except OSError:
        return ""


def _must_read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
