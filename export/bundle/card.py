"""`MODEL_CARD.md`: a bundle's use, quality, limits and making (Mitchell et al. 2019)."""

from collections.abc import Iterable, Sequence
from typing import Any

from edgestill.export.bundle.hub_card import front_matter
from edgestill.export.bundle.schema import Bundle, BundleModel, Quality
from edgestill.export.onnx.interface import describe_input
from edgestill.pipeline.errors import printable
from edgestill.pipeline.figures import significant, size, speed
from edgestill.pipeline.input_kind.lm import END, START
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.training.confusion import useless, weak_classes

_WORST = 10  # classes in the table if there are more than twice as many


def model_card(bundle: Bundle) -> str:
    """Return the model card, from the content of `bundle.json` alone."""
    sections = {
        "Use": _use(bundle),
        "Intended use and limits": _limits(bundle),
        "Data": _data(bundle),
        Quality: _quality(bundle),
        "By class": _classes(bundle.quality) if bundle.task.inputs.has_classes else "",
        "Calibration": _calibration(bundle),
        "Robustness": _robustness(bundle),
        "Speed": _speed(bundle),
        "How it was made": _made(bundle),
        "Licences": _licences(bundle),
        "What is in the folder": _folder(bundle),
    }
    task, cost, given = bundle.task, bundle.cost, bundle.cost.get("teacher")
    head = (
        f"# {_text(bundle.name)}\n\n{task.inputs.classifier} for {task.num_classes} {task.inputs.units}, "
        f"{cost['student'].params:,} parameters, "
        f"distilled by\nedgestill from a teacher{f' of {given.params:,}' if given else ', given as its answers'}.\n"
    )
    return (
        front_matter(bundle)
        + head
        + "".join(f"\n## {title}\n\n{text.strip()}\n" for title, text in sections.items() if text)
    )


def _use(bundle: Bundle) -> str:
    file, task = bundle.models[bundle.default].file, bundle.task
    output = f"float32 [batch, {task.num_classes}]; line k of `labels.txt` names {task.inputs.unit} k"
    return _USES[task.kind](bundle, file, output)


def _use_of_images(bundle: Bundle, file: str, output: str) -> str:
    given = describe_input(bundle.task, bundle.interface)
    shape = ", ".join(map(str, given["shape"]))
    resizing = "resizing, " if bundle.task.resize else ""
    how = {
        "raw": "with pixels in [0, 1]\n(normalisation is inside), and gives `logits`",
        "image": f"as it is decoded\n({resizing}scaling and normalisation are inside), and gives `probabilities`"
        " and `logits`",
    }[bundle.interface]
    return f"""`{file}` takes `{given["name"]}`, {given["dtype"]} [{shape}] {how}, {output}.
`python run.py IMAGE` prints a label and needs numpy and onnxruntime."""


def _use_of_texts(bundle: Bundle, file: str, output: str) -> str:
    ids, mask = bundle.task.inputs.ports
    return f"""`{file}` takes `{ids}` and `{mask}`, int64 [batch, length] with at most
{bundle.task.inputs.length} tokens, and gives `logits`, {output}.
`tokenizer.json` (of the library tokenizers) turns text into ids and cuts what is longer; a token whose mask is 0
is padding.
`python run.py "A TEXT"` prints a label and needs numpy, onnxruntime and tokenizers."""


def _use_of_prompts(bundle: Bundle, file: str, output: str) -> str:
    ids, mask = bundle.task.inputs.ports
    return f"""`{file}` takes `{ids}` and `{mask}`, int64 [batch, length] with at most {bundle.task.inputs.length}
tokens in all, and `past`, its cache of the tokens before, with `past_length` 0 at the start. It gives `logits` of the
token that follows the last one, {output}, and `present`, the `past` of the next call.
`tokenizer.json` (of the library tokenizers) turns text into ids. A prompt ends with the token {START}, after which the
answer begins; the answer ends with the token {END}.
`python run.py "A PROMPT"` continues it and needs numpy, onnxruntime and tokenizers.
Next-token accuracy is taken after the true text up to the token."""


_USES = {"image": _use_of_images, "text": _use_of_texts, "lm": _use_of_prompts}  # by the task's kind of input


def _limits(bundle: Bundle) -> str:
    said = [_text(bundle.use[key]) for key in ("intended", "limits") if bundle.use.get(key)]
    if not bundle.use.get("intended"):
        said.insert(0, "The maker of this bundle did not say what it is meant for.")
    return "\n\n".join([*said, _ALWAYS.format(inputs=bundle.task.inputs.plural, units=bundle.task.inputs.units)])


_ALWAYS = """It was trained on the {units} listed and answers with one of them whatever it is shown. The figures below
are for {inputs} like those of the test split; on others, measure first."""


def _data(bundle: Bundle) -> str:
    sizes = bundle.data.get("sizes", {})
    parts = ", ".join(f"{count:,} {name}" for name, count in sizes.items())
    shape = "x".join(map(str, bundle.task.input_shape))
    labels = ", ".join(f"{_text(label)}" for label in bundle.task.labels[:20])
    more = f" and {bundle.task.num_classes - 20} more" if bundle.task.num_classes > 20 else ""
    described = f" {_text(bundle.data['description'])}" if bundle.data.get("description") else ""
    return f"""Data set `{_text(str(bundle.data.get("name", "")))}`, examples of {shape}: {parts}.{described}
{bundle.task.inputs.units.capitalize()}: {labels}{more}."""


def _quality(bundle: Bundle) -> str:
    teacher, student, shipped = (bundle.metrics[k] for k in ("teacher", "student", "shipped"))
    cost = bundle.cost
    rows: list[Sequence[Any]] = [
        (name, f"{metrics.test_accuracy:.2%}", *_counts(cost.get(who)), "")
        for name, metrics, who in (("teacher", teacher, "teacher"), ("student, in torch", student, "student"))
    ]
    for name, model in bundle.models.items():
        which = f"`{model.file}`" + (", the default" if name == bundle.default else "")
        rows.append((which, f"{model.test_accuracy:.2%}", "", "", size(model.bytes)))
    differences = "\n".join(
        f"Logits of `{model.file}` differ from those of {_reference(bundle, model)} by at most "
        f"{model.parity.max_abs_difference:.1e} over\n{model.parity.n:,} inputs, "
        f"{_answers(model.parity.top1_agreement)}."
        for model in bundle.models.values()
    )
    beside = _beside(bundle.quality)
    kind = bundle.task.inputs
    return f"""{kind.accuracy.capitalize()} on the {shipped.n} {kind.plural} of the test split, opened once.{beside}

{_table(("", kind.accuracy, "parameters", "multiply-accumulates", "size"), rows)}

{differences}"""


def _counts(cost: Cost | None) -> tuple[str, str]:
    return ("", "") if cost is None else (f"{cost.params:,}", f"{cost.flops:,}")


def _beside(quality: Quality) -> str:
    """Accuracy of answering one class always, and the mean recall, for comparison."""
    found = quality.confusion
    if found is None:
        return ""
    recall = f"; the mean recall\nof the classes is {found.balanced_accuracy:.2%}" if found.unit == "class" else ""
    return f"\nAlways answering the most frequent {found.unit} would be right on {found.majority:.2%} of them{recall}."


def _reference(bundle: Bundle, model: BundleModel) -> str:
    if model.parity.reference == "torch":
        return "the network in torch"
    return "`model.onnx`" if "fp32" in bundle.models else "the fp32 file, which does not ship"


def _answers(agreement: float) -> str:
    return "and its answers by none" if agreement == 1 else f"and {1 - agreement:.2%} of its answers"


def _classes(quality: Quality) -> str:
    shown, said = list(quality.classes), ""
    if len(shown) > 2 * _WORST:
        worst = sorted(shown, key=lambda c: 2 if c.recall is None else c.recall)[:_WORST]
        shown, said = worst, f"The {_WORST} classes of {len(shown)} with the lowest recall; `bundle.json` has all.\n\n"
    rows = [(_text(c.label), f"{c.n:,}", _share(c.precision), _share(c.recall)) for c in shown]
    parts = [
        _weak(quality),
        said + _table(("class", "test examples", "precision", "recall"), rows),
        _mistakes(quality, [c.label for c in quality.classes]),
    ]
    return "\n\n".join(filter(None, parts))


def _weak(quality: Quality) -> str:
    """Caution against classes that the model hardly recognises, or against a model that knows nothing."""
    found, labels = quality.confusion, [c.label for c in quality.classes]
    if found is None:
        return ""
    said = [useless(found, "the model", "test"), weak_classes(found, labels, "the model", "test")]
    return "\n\n".join(f"Caution: {_text(sentence)}." for sentence in said if sentence)


def _mistakes(quality: Quality, labels: Sequence[str]) -> str:
    """Matrix of classes and answers; the most frequent mistakes of more classes than fit."""
    found = quality.confusion
    if found is None:
        return ""
    if len(labels) <= 2 * _WORST:
        counts = {(truth, answer): count for truth, answer, count in found.cells}
        matrix = [
            (_text(label), *(counts.get((k, j), 0) for j in range(len(labels)))) for k, label in enumerate(labels)
        ]
        return "Test examples by class (a row) and answer (a column):\n\n" + _table(("", *map(_text, labels)), matrix)
    worst = sorted((-count, truth, answer) for truth, answer, count in found.cells if truth != answer)[:_WORST]
    rows = [(_text(labels[truth]), _text(labels[answer]), f"{-count:,}") for count, truth, answer in worst]
    return "The most frequent mistakes:\n\n" + _table(("class", "answered", "test examples"), rows) if rows else ""


def _calibration(bundle: Bundle) -> str:
    quality, shipped = bundle.quality, bundle.metrics["shipped"]
    return f"""Expected calibration error {significant(quality.ece)}: the mean distance between confidence (the largest
softmax probability) and accuracy, over {quality.ece_bins} bins of equal width, {shipped.n} test examples. Mean
confidence is {quality.confidence:.2%} at an accuracy of {shipped.test_accuracy:.2%}. Nothing was recalibrated."""


def _robustness(bundle: Bundle) -> str:
    quality = bundle.quality
    rows = [(_text(name), f"{accuracy:.2%}") for name, accuracy in quality.robustness.items()]
    return f"""Accuracy of the default model's file on {quality.robustness_n:,} test examples, damaged (seeded).

{_table(("", "accuracy"), rows)}"""


def _speed(bundle: Bundle) -> str:
    latency = bundle.latency
    threads = latency.get("threads", 1)
    teacher = latency.get("teacher")
    rows = [] if teacher is None else [("teacher", "onnxruntime", _median(teacher), teacher["n"])]
    rows += [(f"`{m.file}`", m.runtime, _median(m.latency), m.latency.get("n", "")) for m in bundle.models.values()]
    used = f"{threads} thread{'s' * (threads != 1)}"
    runtime, cpu = (_text(str(latency.get(key, ""))) for key in ("runtime", "cpu"))
    return f"""{runtime}, {used}, batch {latency.get("batch", 1)}, {cpu}.

{_table(("", "by", "median, ms", "samples"), rows)}

{_by_target(bundle)}{_beside_teacher(bundle)}Measure again on your own device: a latency does not travel."""


def _by_target(bundle: Bundle) -> str:
    """Table of the targets that measured the files, each with its default; empty where there was none."""
    targets = bundle.latency.get("targets", {})
    if not targets:
        return ""
    rows = []
    for name, there in targets.items():
        default = bundle.defaults.get(name)
        file = "none" if default is None else f"`{bundle.models[default].file}`"
        medians = ", ".join(f"{model} {_median(summary)}" for model, summary in there["models"].items())
        device = _text(f"{there['device']}, {there['runtime']}, {there['threads']} threads")
        rows.append((_text(name), device, file, _text(medians)))
    head = ("target", "measured on", "default file", "medians, ms")
    return f"The file for each device, by that device's own samples:\n\n{_table(head, rows)}\n\n"


def _beside_teacher(bundle: Bundle) -> str:
    found = bundle.latency
    if "speedup" not in found:
        return ""
    ratio = speed(found["speedup"], found["speedup_interval"], "the teacher")
    return f"`{bundle.models[bundle.default].file}`: {ratio}\n(95% interval). "


def _median(summary: dict[str, Any]) -> str:
    return significant(summary["p50_ms"]) if "p50_ms" in summary else "too few"


def _made(bundle: Bundle) -> str:
    limits = [f"{name} {value:,}" for name, value in bundle.budget.items() if value is not None]
    commit = f"; commit `{bundle.git_commit[:12]}`" if bundle.git_commit else ""
    later = "".join(f"\n\nThen {_text(clause)}." for clause in bundle.later)
    worth = f"\n\n{' '.join(map(_text, bundle.worth))}" if bundle.worth else ""
    return f"""Student `{bundle.architecture}` of a search within {", ".join(limits) or "no limit"}; methods
{", ".join(str(m["name"]) for m in bundle.methods)}; seed {bundle.seeds["run"]}; configuration
`{bundle.config_digest[:12]}`{commit};
{", ".join(_text(f"{k} {v}") for k, v in bundle.versions.items())}.{later}{worth}"""


def _licences(bundle: Bundle) -> str:
    licences, unsaid = bundle.licences, "not said by the maker of this bundle"
    rows = (
        ("model", _text(licences.model or unsaid)),
        ("data", _text(licences.data or unsaid)),
        ("scripts", licences.code),
    )
    return _table(("", "SPDX"), rows) + "\n\nThose of the libraries that it was made with are in `sbom.cdx.json`."


def _folder(bundle: Bundle) -> str:
    return "\n\n".join([_FOLDER, *(f"Caution: {_text(caution)}." for caution in bundle.cautions)])


_FOLDER = """`manifest.json` has the size and SHA-256 of every other file; `edgestill verify FOLDER` checks them, and
that the models answer `probes.safetensors` here as they did where they were made. `bundle.json` is this card for
programs."""


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.2%}"


def _text(words: str) -> str:
    """Escape a person's words: no Markdown markup, line breaks or terminal controls remain."""
    plain = printable("".join(" " if c.isspace() else c for c in words)).strip()
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in plain)
