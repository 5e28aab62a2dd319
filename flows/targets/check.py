"""State of a target in words, and the installation of the libraries that it needs."""

from collections.abc import Callable

from edgestill.export.targets.config import TargetConfig
from edgestill.export.targets.measure import Device
from edgestill.export.targets.probe import TargetFacts, missing, unfit
from edgestill.flows.targets.carried import place_of_carried
from edgestill.pipeline.errors import TargetError
from edgestill.pipeline.figures import size

_RASPBERRY = {  # bits of `vcgencmd get_throttled` (Raspberry Pi documentation)
    0: "its voltage is too low now", 1: "its clock is limited now", 2: "it is throttled now",
    3: "it is at its temperature limit now", 16: "its voltage was too low since its start",
    17: "its clock was limited since its start", 18: "it was throttled since its start",
}  # fmt: skip


def check(target: TargetConfig, install: bool, say: Callable[[str], None]) -> tuple[list[str], list[str]]:
    """Ask a target for its state; return facts, and what is missing or in the way, a line each.

    Args:
        install: bring the libraries into our folder there first, if they are missing.

    Raises:
        TargetError: it cannot be reached, or the installation fails.
    """
    if target.is_carried:
        return [f"a folder that a person carries: {place_of_carried(target)}"], []
    with Device(target, say, patient=False) as device:
        facts = device.asked()
        if install and missing(facts, target):
            device.install(facts)
            facts = device.asked()
    return facts_of(facts, target), [*missing(facts, target), *unfit(facts, target), *throttling(facts)]


def facts_of(facts: TargetFacts, target: TargetConfig) -> list[str]:
    """Describe a target, a line each."""
    told = [
        ("device", facts.device),
        ("architecture", f"{facts.architecture}, {facts.system}"),
        ("cores", "" if facts.cores is None else str(facts.cores)),
        ("governor", facts.governor),
        ("temperature", "" if facts.celsius is None else f"{facts.celsius:.0f} °C"),
        ("free disk", "" if facts.free_bytes is None else size(facts.free_bytes)),
        ("Python", f"{facts.python} ({facts.interpreter})" if facts.python else "none"),
        ("onnxruntime", facts.onnxruntime or "none"),
        ("numpy", facts.numpy or "none"),
        ("others", ", ".join(facts.others) or "none"),
        ("folder", facts.root),
    ]
    return [f"{name:<13} {value or 'not told by this system'}" for name, value in told]


def throttling(facts: TargetFacts) -> list[str]:
    """List what a Raspberry Pi's firmware says against its figures."""
    try:
        bits = int(facts.throttled, 16)
    except ValueError:
        return []
    return [words for bit, words in _RASPBERRY.items() if bits >> bit & 1]


def added(target: TargetConfig, say: Callable[[str], None]) -> tuple[TargetConfig, list[str]]:
    """Ask a new target for its architecture, which it has to show ever after; return it, and what it lacks.

    Raises:
        TargetError: it cannot be reached.
    """
    if target.is_carried:
        return target, []
    with Device(target, say, patient=False) as device:
        facts = device.asked()
    if target.architecture not in (None, facts.architecture):
        raise TargetError(f"{target.name} is {facts.architecture}, not {target.architecture}")
    known = target.model_copy(update={"architecture": facts.architecture})
    return known, missing(facts, known)
