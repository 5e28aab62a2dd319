"""The first screen of the report: the headline, cautions, the chain, and the three models side by side."""

import datetime
from typing import Any

from edgestill.export.result import ExportedModel
from edgestill.flows.report.data import ReportData
from edgestill.flows.stages.results import ReportResult
from edgestill.flows.wording.standing import is_comparable, standing
from edgestill.flows.wording.words import Claim, accuracy_claim, call_claim, size_claim, speed_claim
from edgestill.pipeline.errors import ArchitectureError
from edgestill.pipeline.figures import duration, listing, shrink, significant, size
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.teachers import make_teacher
from edgestill.pipeline.training.metrics import Metrics, tells_apart, wilson
from edgestill.search.spaces import make_space

_NOTHING = "–"
_ONE_ROW = 10  # most stages of the chain for one row of names


def header(report: ReportData) -> dict[str, Any]:
    """Name, date and the headline."""
    created = datetime.datetime.fromisoformat(report.manifest.created)
    tested = report.tested
    smaller, faster, points = (claim.words.replace(" ", "\N{NO-BREAK SPACE}", 1) for claim in _claims(report))
    claims = [smaller, faster, *([f"{points} on {tested.shipped.n:,} test examples"] if is_comparable(tested) else [])]
    return {
        "name": report.manifest.name,
        "created": f"{created:%Y-%m-%d %H:%M} UTC",
        "teacher": make_teacher(report.config.teacher).title,
        "student": report.played.winner.architecture,
        "in_words": _in_words(report),
        "headline": f"{', '.join(claims)}{standing(tested)}",
    }


def asked(report: ReportData) -> str:
    """The run's request in a sentence."""
    config, task = report.config, report.data.task
    limits = [_limit(name, value) for name, value in config.search.budget.model_dump().items() if value is not None]
    formats = listing(list(dict.fromkeys(("fp32", *config.export.formats))))
    return (
        f"a student of the space {config.search.space.name} {f'with {listing(limits)}' if limits else 'of any size'}, "
        f"taught by {make_teacher(config.teacher).title} on {config.data.name} ({task.num_classes} "
        f"{task.inputs.units} of {task.inputs.described()}), as {formats} where they pass the gate"
    )


def _limit(name: str, value: float) -> str:
    """A limit of the budget in words: `at most 26,000 parameters`."""
    units = {"max_params": "parameters", "max_flops": "multiply-accumulates", "max_latency_ms": "ms a call"}
    if name.endswith("_bytes"):
        return f"at most {size(int(value))} of {name.removeprefix('max_').removesuffix('_bytes').replace('_', ' ')}"
    return f"at most {value:,} {units[name]}" if name in units else f"{name.replace('_', ' ')} {value:,}"


def _in_words(report: ReportData) -> str:
    """The student's architecture for a reader who does not know the space's string form; empty if it is unknown."""
    space = make_space(report.config.search.space)
    try:
        return space.describe(space.parse(report.played.winner.architecture))
    except ArchitectureError:
        return ""


def tiles(report: ReportData) -> list[dict[str, Any]]:
    """The four deciding figures: size, speed, accuracy, parity."""
    smaller, faster, points = _claims(report)
    teacher, student = report.profiled.teacher, report.profiled.student
    tested, latency, taught_by = report.tested, student.latency, report.teacher.cost
    return [
        _tile(
            "Size",
            smaller,
            *([] if taught_by is None else [f"{report.shipped_student.cost.params:,} against {taught_by.params:,}"]),
            f"file {size(student.size_bytes)}{_shrunk(teacher, student)}",
        ),
        _tile(
            "Speed",
            faster,
            f"median {significant(latency.p50_ms)} ms"
            + ("" if teacher is None else f" against {significant(teacher.latency.p50_ms)} ms"),
            f"{latency.threads} thread{'s' if latency.threads > 1 else ''}, batch {latency.batch}",
        ),
        _tile(
            report.data.task.inputs.accuracy.capitalize(),
            Claim(
                f"{tested.shipped.accuracy:.2%}",
                f"of {tested.shipped.n:,} test examples, 95% interval {_wilson(tested.shipped)}",
                False if not is_comparable(tested) else points.is_gain if _differs(report) else None,
            ),
            *_beside(tested),
            f"teacher {tested.teacher.accuracy:.2%} {_wilson(tested.teacher)}",
            f"{points.words}{_examples(report)}{'' if _differs(report) else ', within noise'}",
        ),
        _parity(student),
    ]


def _shrunk(teacher: ExportedModel | None, student: ExportedModel) -> str:
    if teacher is None:
        return ""
    ratio = teacher.size_bytes / student.size_bytes
    return f" against {size(teacher.size_bytes)}" + (f", {shrink(ratio)}" if ratio > 1 else "")


def _beside(tested: ReportResult) -> list[str]:
    """The accuracy of answering one class or token always, and the mean recall of classes."""
    found = tested.confusion
    if found is None:
        return []
    recall = f", mean recall of the classes {found.balanced_accuracy:.2%}" if found.unit == "class" else ""
    return [f"{found.most_frequent} {found.majority:.2%}{recall}"]


def _parity(model: ExportedModel) -> dict[str, Any]:
    """Largest difference for fp32; share of equal answers for coarser formats, which differ by design."""
    parity = model.parity
    agrees = parity.top1_agreement == 1
    share = "all" if agrees else f"{parity.top1_agreement:.2%}"
    if model.precision == "fp32":
        words = f"largest difference of a logit, {model.format} file against {parity.reference}"
        claim = Claim(f"{parity.max_abs_difference:.1e}", words, None if agrees else False)
        return _tile("Parity", claim, f"same answer on {share} of {parity.n:,} inputs")
    words = f"same answers on {parity.n:,} inputs, {model.format} file against {parity.reference}"
    return _tile("Parity", Claim(share, words, None), f"largest difference of a logit {parity.max_abs_difference:.1e}")


def cautions(report: ReportData) -> list[str]:
    """Warnings for the reader before shipping this student."""
    smaller, faster, _ = _claims(report)
    tested, default = report.tested, report.profiled.student
    parity, n = default.parity, tested.shipped.n
    found = []
    if smaller.is_gain is not True and report.teacher.cost is not None:
        found.append("The student is not smaller than its teacher.")
    if faster.is_gain is not True and report.profiled.teacher is not None:
        found.append("The student's file is not measurably faster than the teacher's on this machine.")
    if _differs(report) and tested.shipped.accuracy < tested.teacher.accuracy:
        found.append(f"The file is less accurate than the teacher: the loss is more than the noise of {n:,} examples.")
    if tested.student.accuracy != tested.shipped.accuracy:
        found.append(
            f"The file's test accuracy ({tested.shipped.accuracy:.2%}) is not the one in torch "
            f"({tested.student.accuracy:.2%})."
        )
    if parity.top1_agreement < 1:
        found.append(
            f"The {default.format} file and {parity.reference} disagree on {1 - parity.top1_agreement:.2%} of "
            f"{parity.n:,} inputs."
        )
    found += [f"The {default.format} file is over budget: {clause}." for clause in report.profiled.over_budget]
    cores = int(report.manifest.machine.get("cores", 1))
    load = report.profiled.load_before
    if load is not None and load > cores and not report.profiled.targets:
        found.append(
            f"The machine was busy as the timing began (load {load:.1f} on {cores} cores): "
            "measure again when it is idle."
        )
    return found


def chain(report: ReportData) -> dict[str, Any]:
    """The stages in order, with time, share of the longest and sentence; the report, not over yet, has no time."""
    said = report.results.sentences
    records = report.manifest.stages
    seconds = {name: records[name].seconds for name in said if name in records and name != "report"}
    longest, total = max(seconds.values(), default=0.0), sum(seconds.values())
    stages = [
        {
            "name": name.replace("_", " "),
            "time": duration(seconds[name]) if name in seconds else "this page" if name == "report" else _NOTHING,
            "share": 100 * seconds[name] / longest if longest and name in seconds else 0.0,
            "sentence": sentence,
        }
        for name, sentence in said.items()
    ]
    columns = len(stages) if len(stages) <= _ONE_ROW else -(-len(stages) // 2)
    return {"stages": stages, "columns": columns, "total": duration(total)}


def comparison(report: ReportData) -> list[tuple[str, list[str]]]:
    """Rows of the table: a name, then teacher, student in torch, shipped file."""
    teacher, student = report.profiled.teacher, report.profiled.student
    costs = [report.teacher.cost, report.shipped_student.cost, report.shipped_student.cost]
    tested = [report.tested.teacher, report.tested.student, report.tested.shipped]
    theirs = {} if teacher is None else teacher.latency.summary
    percentiles = [name for name in theirs | student.latency.summary if name.endswith("_ms")]
    return [
        ("Parameters", [_NOTHING if cost is None else f"{cost.params:,}" for cost in costs]),
        ("FLOPs (multiply-accumulates)", [_NOTHING if cost is None else f"{cost.flops:,}" for cost in costs]),
        *_peak(costs),
        ("ONNX file", [size(teacher.size_bytes) if teacher else _NOTHING, _NOTHING, size(student.size_bytes)]),
        ("Precision of its weights", [teacher.precision if teacher else _NOTHING, _NOTHING, student.precision]),
        (f"Test {report.data.task.inputs.accuracy}", [f"{metrics.accuracy:.2%}" for metrics in tested]),
        ("95% interval (Wilson)", [_wilson(metrics) for metrics in tested]),
        *_recall(report.tested),
        ("Test examples", [f"{metrics.n:,}" for metrics in tested]),
        ("Test cross-entropy", [f"{metrics.cross_entropy:.3f}" for metrics in tested]),
        *(
            (_percentile(name), [_ms(theirs, name), _NOTHING, _ms(student.latency.summary, name)])
            for name in percentiles
        ),
        (
            "Largest |Δlogit| of the file",
            [_difference(teacher) if teacher else _NOTHING, _NOTHING, _difference(student)],
        ),
    ]


def _peak(costs: list[Cost | None]) -> list[tuple[str, list[str]]]:
    """The row of peak activation memory, if the budget made the search count it."""
    peaks = [None if cost is None else cost.peak_activation_bytes for cost in costs]
    if not any(peaks):
        return []
    return [("Peak activation memory, one example", [_NOTHING if peak is None else size(peak) for peak in peaks])]


def _recall(tested: ReportResult) -> list[tuple[str, list[str]]]:
    """Rows of the majority class's accuracy and of the classes' mean recall; none for a run of an older version."""
    teacher, shipped = tested.teacher_confusion, tested.confusion
    if teacher is None or shipped is None:
        return []
    majority = (f"Accuracy of the {shipped.most_frequent}", [f"{shipped.majority:.2%}"] * 3)
    if shipped.unit != "class":
        return [majority]
    return [
        majority,
        (
            "Mean recall of the classes",
            [f"{teacher.balanced_accuracy:.2%}", _NOTHING, f"{shipped.balanced_accuracy:.2%}"],
        ),
    ]


def _tile(title: str, claim: Claim, *details: str) -> dict[str, Any]:
    return {"title": title, "claim": claim, "details": details}


def _claims(report: ReportData) -> tuple[Claim, Claim, Claim]:
    taught_by, ratio = report.teacher.cost, report.profiled.speedup
    return (
        size_claim(None if taught_by is None else taught_by.params, report.shipped_student.cost.params),
        call_claim(report.profiled.student.latency.p50_ms) if ratio is None else speed_claim(*ratio.both),
        accuracy_claim(report.tested.teacher.accuracy, report.tested.shipped.accuracy),
    )


def _differs(report: ReportData) -> bool:
    """True if teacher and shipped file differ on the test examples by more than noise.

    An older run did not count the examples right by one of them alone; the number wrong by the other bounds it.
    """
    tested = report.tested
    wrong = [round((1 - metrics.accuracy) * metrics.n) for metrics in (tested.shipped, tested.teacher)]
    counted = (tested.lost, tested.gained)
    return tells_apart(*(most if found is None else found for found, most in zip(counted, wrong, strict=True)))


def _examples(report: ReportData) -> str:
    """The difference in whole examples: it shows how few make a tenth of a point on a small test split."""
    tested = report.tested
    right = [round(metrics.accuracy * metrics.n) for metrics in (tested.teacher, tested.shipped)]
    if tested.teacher.n != tested.shipped.n or right[0] == right[1]:
        return ""
    count = abs(right[1] - right[0])
    return f": {count:,} example{'s' if count > 1 else ''} {'more' if right[1] > right[0] else 'fewer'} right"


def _wilson(metrics: Metrics) -> str:
    low, high = wilson(metrics.accuracy, metrics.n)
    return f"[{100 * low:.1f}, {100 * high:.1f}]".replace(" ", "\N{NO-BREAK SPACE}")


def _percentile(name: str) -> str:
    number = name.removeprefix("p").removesuffix("_ms")
    return "Latency p50 (median)" if number == "50" else f"Latency p{number}"


def _ms(summary: dict[str, float | int], name: str) -> str:
    return f"{significant(float(summary[name]))} ms" if name in summary else _NOTHING


def _difference(model: ExportedModel) -> str:
    return f"{model.parity.max_abs_difference:.1e} against {model.parity.reference}"
