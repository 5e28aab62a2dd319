"""Explain a method, a driver or an acquisition function: its work, needs and cost, for `edgestill explain`."""

import csv
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from edgestill.distill.acquisition import ACQUISITIONS, Acquisition
from edgestill.distill.drivers import DRIVERS, Driver
from edgestill.distill.methods import METHODS, Method
from edgestill.distill.methods.facts import Facts
from edgestill.distill.tunable import tuning_ranges
from edgestill.pipeline.errors import ConfigError, nearest
from edgestill.pipeline.figures import listing

RESULTS = Path(__file__).parents[2] / "distill" / "zoo.csv"  # written by benchmarks/zoo.py
_EVIDENCE = {
    "paper": "the paper itself",
    "code": "the authors' code",
    "ours": "its abstract and others' notes; the form is ours, after the paper",
}


def explained(name: str) -> str:
    """Explain a method, a driver or an acquisition function in a screen of text.

    Raises:
        ConfigError: there is none of this name.
    """
    parts: Iterator[str]
    if name in METHODS:
        parts = _of_method(METHODS[name])
    elif name in DRIVERS:
        parts = _of_driver(DRIVERS[name])
    elif name in ACQUISITIONS:
        parts = _of_acquisition(ACQUISITIONS[name])
    else:
        raise ConfigError([f"there is no method {name!r}; {nearest(name, (*METHODS, *DRIVERS, *ACQUISITIONS))}"])
    return "\n\n".join(part for part in parts if part)


def _of_method(kind: type[Method]) -> Iterator[str]:
    yield from _described(kind)
    yield "\n".join(_facts(kind))
    yield "\n".join(_settings(kind))
    yield "\n".join(_results(kind))


def _of_driver(kind: type[Driver]) -> Iterator[str]:
    yield from _described(kind)
    yield f"An outer loop of trainings (distill.driver), in which any methods run; drivers: {', '.join(DRIVERS)}"
    yield "\n".join(_settings(kind))


def _of_acquisition(kind: type[Acquisition]) -> Iterator[str]:
    yield from _described(kind)
    yield f"Chooses what to ask about (distill.driver.acquisition); others: {', '.join(ACQUISITIONS)}"
    yield f"Formulas from: {_EVIDENCE[kind.evidence]}"


def _described(kind: type[Method | Driver | Acquisition]) -> Iterator[str]:
    yield f"{kind.name}: {kind.paper}"
    yield inspect.cleandoc(sys.modules[kind.__module__].__doc__ or "")
    yield inspect.cleandoc(kind.__doc__ or "")


def _facts(kind: type[Method]) -> Iterator[str]:
    yield f"Fills: {listing(sorted(kind.fills))}"
    needs = sorted(kind().needs - {"logits"})
    yield f"Needs of the teacher: {listing(['logits', *needs])}; classes: {kind.min_classes} or more"
    if kind.inputs is not None:
        yield f"Data: of kind {kind.inputs} alone, for language models"
    elif kind.takes_rows:
        yield "Data: language models' too, each token of an answer an example"
    facts = kind.facts
    if facts is None:
        return
    yield f"Formulas from: {_EVIDENCE[facts.evidence]}"
    yield f"Tags: {', '.join(facts.tags)}"
    yield f"Cost: at most {facts.cost:g} times a step of plain KD on small networks"
    yield f"Ships: {'more than the plain student' if facts.changes_graph else 'the plain student'}"
    yield from _without_its_idea(facts)


def _without_its_idea(facts: Facts) -> Iterator[str]:
    if facts.ablation is None:
        return
    settings = ", ".join(f"{key}: {value}" for key, value in facts.ablation.items())
    same = "" if facts.reduces_to is None else f" it is {' + '.join(str(one['name']) for one in facts.reduces_to)}"
    yield f"Without its own idea ({settings}){same or ', for comparison'}"


def _settings(kind: type[Method | Driver]) -> Iterator[str]:
    fields = {key: field for key, field in kind.Config.model_fields.items() if key != "name"}
    if not fields:
        return
    ranges = tuning_ranges(kind.Config)
    yield "Settings:"
    for key, field in fields.items():
        tuned = f", tuned {ranges[key].low:g} to {ranges[key].high:g}" if key in ranges else ""
        yield f"  {key} = {field.default}{tuned}: {field.description}"


def _results(kind: type[Method]) -> Iterator[str]:
    """Lines on the benchmark: differences to tuned plain KD in points."""
    rows = []
    if RESULTS.is_file():
        with RESULTS.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["method"] == kind.name]
    if not rows:
        measured = "" if kind.inputs == "lm" else "; `benchmarks/zoo.py` measures it"
        yield f"Results here: none{measured}"
        return
    yield "Results here, beside plain KD tuned with equal effort (points of accuracy, 95 % interval):"
    for row in rows:
        low, high = float(row["low"]), float(row["high"])
        verdict = "won" if low > 0 else "lost" if high < 0 else "no difference"
        yield f"  {row['task']}: {float(row['difference']):+.2f} [{low:+.2f}, {high:+.2f}], {row['n']} seeds: {verdict}"
