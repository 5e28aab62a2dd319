"""Rows of a comparison: a name, and a cell for each run."""

from collections.abc import Sequence

from edgestill.distill.result import DistillResult
from edgestill.export.result import ProfileResult, Ratio
from edgestill.flows.compare.runs import ComparedRun
from edgestill.flows.config.dotted import dotted
from edgestill.flows.stages.results import DataResult, ReportResult
from edgestill.pipeline.figures import duration, milliseconds, significant, size
from edgestill.pipeline.training.metrics import Metrics, unpaired_difference, wilson

NOTHING = "–"
_LONGEST = 90  # characters of a setting's value
_DIGEST = 12  # digits of a digest shown

Row = tuple[str, list[str]]


def asked(runs: Sequence[ComparedRun]) -> list[Row]:
    """Settings in which the runs differ; their names and trackers decide nothing."""
    flat = [dict(dotted(run.config.model_dump(mode="json", exclude={"name", "trackers"}))) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    found = [(key, [settings.get(key, NOTHING) for settings in flat]) for key in keys]
    return [(key, [_shortened(cell) for cell in cells]) for key, cells in found if len(set(cells)) > 1]


def ships(runs: Sequence[ComparedRun]) -> list[Row]:
    """Figures of each shipped file; a row that no run fills is left out."""
    return _joined([_shipped(run, runs[0]) for run in runs])


def origins(runs: Sequence[ComparedRun]) -> list[Row]:
    """Seeds, examples and digests."""
    return _joined([_provenance(run) for run in runs])


def brief(runs: Sequence[ComparedRun]) -> list[Row]:
    """The few rows of `ships` for a terminal."""
    few = ("state", "ships", "test accuracy", "against the first", "size", "latency p50", "parameters")
    return [row for row in ships(runs) if row[0] in few]


def stages(runs: Sequence[ComparedRun]) -> tuple[list[tuple[str, list[tuple[str, str]]]], list[str]]:
    """Stages in which the runs differ, each with (sentence, time) by run; and the names of those alike."""
    names = dict.fromkeys(name for run in runs for name in run.results.sentences)
    differing, alike = [], []
    for name in names:
        sentences = [run.results.sentences.get(name, "") for run in runs]
        if len(set(sentences)) == 1:
            alike.append(name.replace("_", " "))
            continue
        times = [_time(run, name) for run in runs]
        differing.append((name.replace("_", " "), list(zip(sentences, times, strict=True))))
    return differing, alike


def _joined(columns: Sequence[dict[str, str]]) -> list[Row]:
    """Rows of all names in the columns, in order."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, NOTHING) for column in columns]) for name in names]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _shipped(run: ComparedRun, first: ComparedRun) -> dict[str, str]:
    """Cells of a run's column, as far as it is."""
    results, cells = run.results, {"state": run.state}
    profiled, tested = results.get(ProfileResult), results.get(ReportResult)
    if profiled is not None:
        cells["ships"] = ", ".join(f"{n} (default)" if n == profiled.default else n for n in profiled.shipped)
    if results.get(DistillResult) is not None:
        student = results.shipped_student
        cells |= {"student": student.architecture, "methods": ", ".join(str(m["name"]) for m in student.methods)}
    if tested is not None:
        cells |= _accuracy(run, tested.shipped, first) | {"teacher's test accuracy": f"{tested.teacher.accuracy:.2%}"}
    elif results.get(DistillResult) is not None:
        cells["validation accuracy"] = f"{results.shipped_student.validation.accuracy:.2%}"
    if profiled is not None:
        ratio = profiled.speedup
        cells |= {
            "size": size(profiled.student.size_bytes),
            "latency p50": milliseconds(profiled.student.latency.p50_ms),
            **({} if ratio is None else {"speed over its teacher": f"{significant(ratio.value)}× {_bounds(ratio)}"}),
            "timed by": f"{profiled.cpu}, {profiled.student.latency.runtime}, threads "
            f"{profiled.student.latency.threads}, batch {profiled.student.latency.batch}",
        }
    if results.get(DistillResult) is not None:
        cost = results.shipped_student.cost
        cells |= {"parameters": f"{cost.params:,}", "multiply-accumulates": f"{cost.flops:,}"}
    return cells


def _bounds(ratio: Ratio) -> str:
    return "[" + ", ".join(map(significant, ratio.interval)) + "]"


def _accuracy(run: ComparedRun, found: Metrics, first: ComparedRun) -> dict[str, str]:
    """Accuracy with its interval; the difference from the first run where both were tested on the same examples."""
    low, high = wilson(found.accuracy, found.n)
    cells = {"test accuracy": f"{found.accuracy:.2%} [{100 * low:.1f}, {100 * high:.1f}]"}
    base = first.results.get(ReportResult)
    if run is first:
        return cells | {"against the first": NOTHING}
    if base is None or run.tested_on != first.tested_on:
        return cells | {"against the first": "other examples" if base is not None else NOTHING}
    low, high = unpaired_difference(base.shipped.accuracy, base.shipped.n, found.accuracy, found.n)
    points = 100 * (found.accuracy - base.shipped.accuracy)
    told = f"{points:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
    return cells | {"against the first": told.replace("-", "−")}


def _provenance(run: ComparedRun) -> dict[str, str]:
    cells = {"seed": str(run.manifest.seed), "configuration": run.manifest.config_digest[:_DIGEST]}
    data, tested = run.results.get(DataResult), run.results.get(ReportResult)
    if data is not None:
        cells |= {f"{name} examples": f"{n:,}" for name, n in data.sizes.items()}
        cells |= {f"{name} digest": digest[:_DIGEST] for name, digest in data.digests.items()}
    if tested is not None and tested.digest:
        cells["bundle"] = tested.digest[:_DIGEST]
    return cells | {"commit": (run.manifest.git_commit or "none")[:_DIGEST]}


def _time(run: ComparedRun, stage: str) -> str:
    record = run.manifest.stages.get(stage)
    return "" if record is None else duration(record.seconds)
