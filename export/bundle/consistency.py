"""Checks `bundle.json` against the bundle's other files."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgestill.export.bundle.names import labels_text
from edgestill.export.bundle.probes import COUNT
from edgestill.export.bundle.schema import BUNDLE, LABELS, TOKENIZER, Bundle
from edgestill.export.formats import FORMATS
from edgestill.export.onnx.interface import describe_input, describe_output
from edgestill.export.onnx.sizes import MAX_ELEMENTS
from edgestill.pipeline.child import ChildError, ChildRefused, answer
from edgestill.pipeline.data.tokens import Coder
from edgestill.pipeline.errors import DataError, nearest
from edgestill.pipeline.task import Task


def inconsistencies(bundle: Bundle, files: Mapping[str, bytes]) -> Iterator[str]:
    """Yield a sentence for each disagreement between bundle.json and the files beside it.

    Contents are compared only if names and shapes are right. The ONNX gate checks the inside of models.
    """
    found = [*_misnamed(bundle), *_wrong_sides(bundle)]
    missing = [name for name in bundle.needs() if name not in files]
    found += [f"{BUNDLE} speaks of {name[:120]!r}, which is not there" for name in missing]
    yield from found or _wrong_contents(bundle, files)


def _wrong_contents(bundle: Bundle, files: Mapping[str, bytes]) -> Iterator[str]:
    if files[LABELS] != labels_text(bundle.task):
        yield f"{LABELS} does not hold the labels that {BUNDLE} has"
    if tuple(found.label for found in bundle.quality.classes) != bundle.task.labels:
        yield f"{BUNDLE} has figures of other classes than its task's"
    for name, model in bundle.models.items():
        stem = Path(model.file).stem
        own = [file for file in files if Path(file).stem == stem and file.startswith("model")]
        size = sum(len(files[file]) for file in own)
        if size != model.bytes:
            yield f"{BUNDLE} says that the model {name} has {model.bytes} bytes; its files have {size:,}"
    if TOKENIZER in bundle.task.inputs.files:
        yield from _wrong_tokenizer(bundle.task, files[TOKENIZER])


def _misnamed(bundle: Bundle) -> Iterator[str]:
    """Yield the models at odds with their format's name, which decides how a file is checked and opened."""
    for name, model in bundle.models.items():
        if name not in FORMATS:
            yield f"{BUNDLE} has a model of the format {name[:40]!r}; {nearest(name[:40], FORMATS)}"
            continue
        kind = FORMATS[name]
        told = (model.runtime, model.precision, model.file.endswith(kind.suffix))
        if told != (kind.runtime, kind.precision, True):
            yield f"{BUNDLE} has {model.file[:120]!r} for {model.runtime[:40]!r} as {name}, which is another form"


def _wrong_sides(bundle: Bundle) -> Iterator[str]:
    task = bundle.task
    if min(task.input_shape) < 1 or COUNT * math.prod(task.input_shape) > MAX_ELEMENTS:
        yield (
            f"{BUNDLE} has inputs of the shape {str(list(task.input_shape))[:80]}; sides are 1 or more, and {COUNT} "
            f"inputs have {MAX_ELEMENTS:,} numbers at most"
        )
        return
    described = describe_input(task, bundle.interface), describe_output(task, bundle.interface)
    if (bundle.input, bundle.output) != described:
        yield f"{BUNDLE} describes inputs or outputs that are not those of its task"


def _wrong_tokenizer(task: Task, data: bytes) -> Iterator[str]:
    try:
        answer("edgestill.export.strict_json:checked", data, TOKENIZER, memory_bytes=2**29 + 60 * len(data))
        coder = Coder(data.decode(), TOKENIZER)
    except ChildError as error:
        yield str(error).removeprefix("BundleError: ") if isinstance(error, ChildRefused) else f"{TOKENIZER} {error}"
        return
    except (DataError, UnicodeDecodeError) as error:
        yield f"{str(error)[:300]}"
        return
    if coder.length != task.input_shape[0]:
        yield f"{TOKENIZER} cuts at {coder.length} tokens; {BUNDLE} says {task.input_shape[0]}"
    elif not coder.vocab_size <= (task.vocab_size or 0) <= 2 * coder.vocab_size + 1000:
        yield f"{TOKENIZER} gives {coder.vocab_size:,} ids; {BUNDLE} says {task.vocab_size}"
    elif task.tokenizer_sha256 not in (None, coder.sha256):
        yield f"{TOKENIZER} is another one than {BUNDLE} says: its ids mean other pieces of text"
