"""A latency profile as one offline page: the table, the distributions, and how steady the processes were."""

from collections.abc import Mapping
from typing import Any

from edgestill.export.device.document import ProfileDocument, Result
from edgestill.export.device.text import milliseconds
from edgestill.flows.report.drawing.canvas import baseline_looks
from edgestill.flows.report.drawing.charts import latency_histogram, shown_until_ms
from edgestill.flows.report.drawing.device_charts import steadiness
from edgestill.flows.report.drawing.page import render
from edgestill.flows.report.drawing.undrawn import forgiving
from edgestill.pipeline.figures import size

_NOTHING, _YES = "–", {True: "yes", False: "no"}


def render_profile(profile: ProfileDocument) -> str:
    """Render the page; the same profile gives the same page."""
    with forgiving([]):  # the page has a sentence in a chart's place
        parts = section(profile)
    return render("device.html.j2", {"profile": profile, **parts})


def section(profile: ProfileDocument) -> dict[str, Any]:
    """Contents of a profile for its page and for the run's report."""
    roles = model_roles(profile)
    return {
        "title": profile.title,
        "warnings": profile.warnings,
        "headline": _headline(profile),
        "rows": [_row(result, roles) for result in profile.results],
        "has_energy": any(result.energy_mj is not None for result in profile.results),
        "comparisons": [_comparison(profile, number) for number in range(len(profile.comparisons))],
        "settings": [_setting(profile, *key, roles) for key in _settings(profile)],
        "models": [_model(profile, name) for name in profile.models],
        "device": _device(profile),
        "method": _method(profile),
    }


def model_roles(profile: ProfileDocument) -> dict[str, str]:
    """Colour role of each model: the student's for the first, the teacher's for those compared with."""
    against = {comparison.against for comparison in profile.comparisons}
    own = [name for name in profile.models if name not in against]
    roles = {name: look.role for name, look in baseline_looks(own[1:]).items()}
    return dict.fromkeys(own[:1], "student") | roles | dict.fromkeys(sorted(against), "teacher")


def _headline(profile: ProfileDocument) -> str:
    first = profile.results[0]
    median = first.summary.percentiles.get("p50_ms")
    found = f"{milliseconds(median)} ms a call" if median is not None else "too few calls for a median"
    if not profile.comparisons:
        return found
    comparison = profile.comparisons[0]
    return f"{found}, {comparison.ratio:.2f}× the speed of {comparison.against}"


def _row(result: Result, roles: Mapping[str, str]) -> dict[str, Any]:
    given, bounds = result.summary.percentiles, result.summary.bounds
    figures = [
        str(result.batch),
        str(result.threads),
        milliseconds(given.get("p50_ms")),
        _low_high(bounds.get("p50_ms")),
        milliseconds(given.get("p90_ms")),
        _low_high(bounds.get("p90_ms")),
        milliseconds(given.get("p99_ms")),
        milliseconds(result.summary.max_ms),
        f"{result.summary.cv:.1%}",
        f"{result.throughput_per_s:,.0f}",
        *(_NOTHING if spread is None else f"{spread:.1%}" for spread in (result.p50_spread, result.p90_spread)),
        f"{result.summary.n:,}",
    ]
    energy = [] if result.energy_mj is None else [f"{result.energy_mj:.2f}"]
    return {"model": result.model, "role": roles[result.model], "figures": [*figures, *energy]}


def _low_high(bounds: tuple[float, float] | None) -> str:
    return _NOTHING if bounds is None else " to ".join(map(milliseconds, bounds))


def _comparison(profile: ProfileDocument, number: int) -> str:
    found = profile.comparisons[number]
    low, high = found.interval
    plural = "s" if found.threads > 1 else ""
    return (
        f"{found.model}: {found.ratio:.3f} times the speed of {found.against}, 95% interval {low:.3f} to {high:.3f}, "
        f"at batch {found.batch}, {found.threads} thread{plural}; the processes' own ratios are "
        f"{', '.join(f'{ratio:.3f}' for ratio in found.process_ratios)}"
    )


def _settings(profile: ProfileDocument) -> list[tuple[int, int]]:
    return list(dict.fromkeys((result.batch, result.threads) for result in profile.results))


def _setting(profile: ProfileDocument, batch: int, threads: int, roles: Mapping[str, str]) -> dict[str, Any]:
    results = [result for result in profile.results if (result.batch, result.threads) == (batch, threads)]
    samples = {r.model: [value for process in r.processes for value in process.samples_ms] for r in results}
    until = max(shown_until_ms(values) for values in samples.values())
    hidden = sum(value > until for values in samples.values() for value in values)
    slowest = milliseconds(max(map(max, samples.values())))
    turn = profile.method.turn
    return {
        "title": f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}",
        "legend": [(roles[r.model], r.model, milliseconds(r.summary.percentiles.get("p50_ms"))) for r in results],
        "histogram": latency_histogram(samples, {}, roles),
        "steadiness": steadiness(results, roles, turn),
        "hidden": f"Calls off the chart: {hidden:,}, up to {slowest} ms." if hidden else "",
    }


def _model(profile: ProfileDocument, name: str) -> dict[str, Any]:
    model = profile.models[name]
    inputs = ", ".join(f"{i.name} {i.dtype} [{', '.join(map(str, i.shape))}]" for i in model.inputs)
    peak = [cold.peak_rss_bytes for cold in model.cold if cold.peak_rss_bytes]
    added = [cold.added_rss_bytes for cold in model.cold if cold.added_rss_bytes is not None]
    return {
        "name": name,
        "facts": [
            ("file", f"{model.file}, {size(model.size_bytes)}" + (f", {model.precision}" if model.precision else "")),
            ("SHA-256", model.sha256),
            ("inputs", inputs),
            ("load", _each(cold.load_ms for cold in model.cold)),
            ("first call", _each(cold.first_call_ms for cold in model.cold)),
            ("runtime imported in", _each(cold.import_ms for cold in model.cold)),
            ("peak memory of the process", size(max(peak)) if peak else "not known"),
            ("of it the model's", size(max(added)) if added else "not known"),
        ],
    }


def _each(values: Any) -> str:
    return ", ".join(milliseconds(value) for value in values) + " ms"


def _device(profile: ProfileDocument) -> list[tuple[str, str]]:
    device, runtime = profile.device, profile.runtime
    busy = [load["others_busy_cores"] for load in profile.loads if load.get("others_busy_cores") is not None]
    shown = {key: value for key, value in device.told.items() if key != "ram_bytes"}
    return [
        *(
            (key.replace("_", " "), _YES[value] if isinstance(value, bool) else str(value))
            for key, value in shown.items()
        ),
        ("memory", size(device.ram_bytes) if device.ram_bytes else "not known"),
        *([] if "governor" in shown else [("governor", "not shown by this system")]),
        ("runtime", f"{runtime.name}, {runtime.provider}, graph optimisations: {runtime.graph_optimization}"),
        ("threads between operators", str(runtime.inter_op_threads)),
        ("waiting threads", "spin" if runtime.spinning else "sleep"),
        ("load average before", _figure(profile.loads[0].get("average_before"))),
        ("cores that others kept busy", f"{max(b or 0.0 for b in busy):.2f} at most" if busy else "not known"),
        ("the core at its slowest", _slowest_core(profile)),
        ("energy", profile.energy),
    ]


def _slowest_core(profile: ProfileDocument) -> str:
    best, worst = ([v for load in profile.loads if (v := load.get(name))] for name in ("core_p10_ms", "core_p90_ms"))
    return f"{min(best) / max(worst):.0%} of its best speed" if best and worst else "not known"


def _figure(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.2f}"


def _method(profile: ProfileDocument) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), str(value)) for key, value in profile.method.told.items() if value != []]
