"""Asks a device for its facts: nothing is written there, and Python need not be there."""

import re
import shlex

from edgestill.export.targets.config import PACKAGES, TargetConfig
from edgestill.export.targets.connection import Connection
from edgestill.pipeline.errors import TargetError, printable
from edgestill.pipeline.figures import listing
from edgestill.pipeline.frozen import Frozen

FOLDER = ".edgestill-target"  # the one folder of ours there, below the home folder or the configured one
SYSTEM = ""  # before /proc and /sys; tests have a place of their own
_LEAST_PYTHON = (3, 9)
_LEAST_RUNTIME = {18: (1, 14), 19: (1, 15), 20: (1, 17)}  # opset -> onnxruntime (its table of versions)
_ROOM = 1 << 25  # bytes to stay free
_PYTHON = (  # one line; the runtime's import may itself fail, as without libgomp
    "import sys\n"
    "sys.path[:] = [path for path in sys.path if path]\n"  # of the current folder, which is first with -c
    "import platform\n"
    "print('python=%d.%d.%d' % sys.version_info[:3])\n"
    "for name in ('numpy', 'onnxruntime'):\n"
    "  try: print('%s=%s' % (name, __import__(name).__version__))\n"
    "  except Exception as e: print('%s_error=%s' % (name, (str(e).splitlines() or [type(e).__name__])[0][:150]))\n"
    "try: from importlib.metadata import version\n"  # they are not imported: that would take a board seconds
    "except Exception: sys.exit()\n"
    "for name in ('openvino', 'ai-edge-litert', 'tflite-runtime', 'executorch'):\n"
    "  try: print('runtime_%s=%s' % (name, version(name)))\n"
    "  except Exception: pass\n"
)
_DIGITS = re.compile(r"[0-9]{1,18}")
_NO_WHEEL = ("armv6l", "armv7l", "armv8l", "i686", "i386", "mips", "riscv64")


class TargetFacts(Frozen):
    """A device as it is now."""

    root: str  # the folder of ours there
    architecture: str
    system: str
    device: str = ""  # of a board or a phone
    cores: int | None = None
    governor: str = ""
    celsius: float | None = None  # of the hottest zone
    throttled: str = ""  # as a Raspberry Pi's firmware tells it
    free_bytes: int | None = None
    interpreter: str = ""  # the command of its Python
    python: str = ""
    numpy: str = ""
    onnxruntime: str = ""
    errors: tuple[str, ...] = ()  # why a library cannot be imported there
    others: tuple[str, ...] = ()  # further runtimes that are installed for its Python, with versions


def ask(connection: Connection, target: TargetConfig, known: TargetFacts | None = None) -> TargetFacts:
    """Ask the device for its facts.

    Args:
        known: earlier facts; those about Python are reused, for asking takes a board seconds.

    Raises:
        DroppedOut: the link broke.
        TargetError: its shell does not understand.
    """
    done = connection.run(_system(target, connection.base) + ("" if known else _python(target)))
    found = _pairs(done.text)
    if "root" not in found or "machine" not in found:
        raise TargetError(f"its shell does not answer as a POSIX shell does: {done.said}")
    now = TargetFacts(
        root=found["root"],
        architecture=found["machine"],
        system=found.get("system", ""),
        device=found.get("device", ""),
        cores=_whole(found.get("cores")),
        governor=found.get("governor", ""),
        celsius=_celsius(found.get("celsius")),
        throttled=found.get("throttled", "").removeprefix("throttled="),
        free_bytes=_free(found.get("df", "")),
        interpreter=found.get("interpreter", ""),
        python=found.get("python", ""),
        numpy=found.get("numpy", ""),
        onnxruntime=found.get("onnxruntime", ""),
        errors=tuple(f"{name}: {found[f'{name}_error']}" for name in _LIBRARIES if f"{name}_error" in found),
        others=tuple(
            f"{key.removeprefix('runtime_')} {value}" for key, value in found.items() if key.startswith("runtime_")
        ),
    )
    return now if known is None else now.model_copy(update={name: getattr(known, name) for name in _OF_PYTHON})


_LIBRARIES = ("numpy", "onnxruntime")
_OF_PYTHON = ("interpreter", "python", *_LIBRARIES, "errors", "others")


def _system(target: TargetConfig, base: str) -> str:
    root = shlex.quote(f"{target.folder or base}/{FOLDER}") if target.folder or base else f'"$HOME"/{FOLDER}'
    cpu = f"{SYSTEM}/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return f"""root={root}; echo root="$root"; echo machine="$(uname -m)"; echo system="$(uname -s)"
echo cores="$(getconf _NPROCESSORS_ONLN 2>/dev/null || nproc 2>/dev/null)"
echo device="$(tr -d '\\000' < {SYSTEM}/proc/device-tree/model 2>/dev/null || getprop ro.product.model 2>/dev/null)"
echo governor="$(cat {cpu} 2>/dev/null)"
echo celsius="$(cat {SYSTEM}/sys/class/thermal/thermal_zone*/temp 2>/dev/null | sort -n | tail -n 1)"
echo throttled="$(vcgencmd get_throttled 2>/dev/null)"
at="$root"; while [ ! -d "$at" ]; do at="$(dirname "$at")"; done
echo df="$(df -Pk "$at" 2>/dev/null | tail -n 1)"
"""


def _python(target: TargetConfig) -> str:
    chosen = shlex.quote(target.python) if target.python else '"$root"/venv/bin/python python3'
    return f"""for python in {chosen}; do
 if "$python" -c '' 2>/dev/null; then echo interpreter="$python"
  "$python" -c {shlex.quote(_PYTHON)} 2>/dev/null
  break; fi; done; true"""


def missing(facts: TargetFacts, target: TargetConfig, opset: int | None = None) -> list[str]:
    """List what a measurement there lacks, each with the way to get it.

    Args:
        opset: of the files; None where they are not known yet.
    """
    if target.architecture not in (None, facts.architecture):
        return [
            f"it is {facts.architecture} and was to be {target.architecture}: another device answers at "
            f"{target.where}, or `edgestill target add {target.name} {target.where} --replace` takes this one"
        ]
    install = f"`edgestill target check {target.name} --install` brings them"
    if facts.architecture in _NO_WHEEL and not facts.onnxruntime:
        return [f"onnxruntime has no package for {facts.architecture}; install a 64-bit system there"]
    if not facts.python:
        return ["it has no Python; install python3 with venv there (`apt install python3-venv`, `pkg install python`)"]
    if _version(facts.python) < _LEAST_PYTHON:
        return [f"its Python {facts.python} is too old, 3.9 is the least; name a newer one by --python"]
    here = {other.partition(" ")[0] for other in facts.others}
    lacking = [name for name in _LIBRARIES if not getattr(facts, name)]
    lacking += [PACKAGES[runtime][0] for runtime in target.other_runtimes if not here & {*PACKAGES[runtime]}]
    if lacking:
        why = f" ({'; '.join(facts.errors)})" if facts.errors else ""
        return [f"its Python cannot import {listing(lacking)}{why}; {install}"]
    least = _LEAST_RUNTIME.get(opset or 0, (0,))
    if _version(facts.onnxruntime) < least:
        return [
            f"its onnxruntime {facts.onnxruntime} is older than {'.'.join(map(str, least))}, which reads files of "
            f"export.opset {opset}; {install.replace('them', 'a newer one')}, or lower export.opset"
        ]
    return []


def unfit(facts: TargetFacts, target: TargetConfig, size_bytes: int = 0) -> list[str]:
    """List what is in the way of a measurement there just now: heat, a full disk."""
    found = []
    if facts.celsius is not None and facts.celsius > target.max_celsius:
        found.append(
            f"it is hot: {facts.celsius:.0f} °C, above max_celsius {target.max_celsius:g}; let it cool, or cool it"
        )
    if facts.free_bytes is not None and facts.free_bytes < size_bytes + _ROOM:
        found.append(
            f"its disk is full: {facts.free_bytes:,} bytes are free and {size_bytes + _ROOM:,} are needed; make room "
            f"there, or `edgestill target clean {target.name}`"
        )
    return found


def _pairs(text: str) -> dict[str, str]:
    """Read `key=value` lines; the first of a key counts."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            found.setdefault(key.strip(), printable(value.strip())[:500])
    return found


def _whole(text: str | None) -> int | None:
    """Read a whole number; what no device has is not told."""
    return int(text) if text and _DIGITS.fullmatch(text) else None


def _celsius(text: str | None) -> float | None:
    """Read a thermal zone's temperature: thousandths of a degree, or degrees on some phones."""
    value = _whole(text)
    return None if value is None else value / 1000 if value > 1000 else float(value)


def _free(line: str) -> int | None:
    """Read the fourth column of `df -Pk`: free blocks of 1,024 bytes."""
    words = line.split()
    free = _whole(words[3]) if len(words) >= 6 else None
    return None if free is None else free * 1024


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if _DIGITS.fullmatch(part))
