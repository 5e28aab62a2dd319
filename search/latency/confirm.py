"""Confirmation of the winner: its latency is measured before it is accepted."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from edgestill.pipeline.errors import BudgetError, FailedError, TargetError, first_line
from edgestill.search.budget import Budget
from edgestill.search.hardware_costs import LatencySource
from edgestill.search.result import Candidate, WinnerLatency
from edgestill.search.space import Architecture

_ENTRY = "latency_confirmed"


class Confirmed(NamedTuple):
    winner: Candidate
    latency: WinnerLatency | None  # None: the budget does not limit latency
    notes: tuple[str, ...]


def confirm_winner(
    ranked: Sequence[Candidate],
    architecture_of: Callable[[Candidate], Architecture],
    budget: Budget,
    source: LatencySource | None,
    *,
    known: Sequence[Mapping[str, Any]] = (),
    record: Callable[[Mapping[str, Any]], None] = lambda entry: None,
) -> Confirmed:
    """Return the best candidate within the latency limit, measured here if this machine is the target.

    Args:
        ranked: candidates feasible by their predicted figures, the best first.
        architecture_of: returns a candidate's architecture as a value.
        known, record: the journal of an interrupted search; measured latencies in it are not measured again.

    Raises:
        BudgetError: no candidate is within the limit when measured.
    """
    limit = budget.max_latency_ms
    if limit is None or source is None:
        return Confirmed(ranked[0], None, ())
    if source.measure is None or (source.is_measured and not source.learns):
        return Confirmed(ranked[0], _latency(ranked[0], measured=source.is_measured), ())
    journal = {entry["architecture"]: entry for entry in known if entry.get("scorer") == _ENTRY}
    refused: list[tuple[float, str]] = []
    for candidate in ranked:
        if source.is_measured and candidate.cost.latency_error is None:  # the search had to measure it
            return Confirmed(candidate, _latency(candidate, measured=True), _note(refused, limit))
        entry = journal.get(candidate.architecture)
        if entry is None:
            entry = _measured(candidate.architecture, architecture_of(candidate), source.measure)
            record(entry)
        if "failure" in entry:
            refused.append((float("inf"), f"{candidate.architecture} ({entry['failure']})"))
        elif entry["latency_ms"] > limit:
            refused.append((entry["latency_ms"], f"{candidate.architecture} ({entry['latency_ms']:.4g} ms)"))
        else:
            cost = candidate.cost.model_copy(update={"latency_ms": entry["latency_ms"], "latency_error": None})
            latency = WinnerLatency(
                predicted_ms=candidate.cost.latency_ms,
                predicted_error=candidate.cost.latency_error,
                measured_ms=entry["latency_ms"],
            )
            return Confirmed(candidate.model_copy(update={"cost": cost}), latency, _note(refused, limit))
    raise BudgetError(
        f"all {len(refused)} candidates that were predicted within max_latency_ms {limit:g} exceed it when measured; "
        f"the nearest is {min(refused)[1]}; raise that limit, or calibrate with more samples"
    )


def _measured(text: str, architecture: Architecture, measure: Callable[[Architecture], float]) -> dict[str, Any]:
    entry = {"scorer": _ENTRY, "architecture": text}
    try:
        return entry | {"latency_ms": measure(architecture)}
    except TargetError:  # the device is at fault, not the student
        raise
    except FailedError as error:
        return entry | {"failure": first_line(error)}


def _latency(candidate: Candidate, *, measured: bool) -> WinnerLatency:
    found = candidate.cost.latency_ms
    if measured:
        return WinnerLatency(predicted_ms=None, predicted_error=None, measured_ms=found)
    return WinnerLatency(predicted_ms=found, predicted_error=candidate.cost.latency_error, measured_ms=None)


def _note(refused: Sequence[tuple[float, str]], limit: float) -> tuple[str, ...]:
    if not refused:
        return ()
    shown = ", ".join(text for _, text in refused[:3]) + (", …" if len(refused) > 3 else "")
    which = "a better one was" if len(refused) == 1 else f"{len(refused)} better ones were"
    return (f"{which} predicted within max_latency_ms {limit:g} and measured above it: {shown}; the next was taken",)
