"""Settings that do not go with a language task yet, each refused in a sentence before anything is read."""

from collections.abc import Iterator
from typing import Any

from edgestill.distill.methods import METHODS
from edgestill.export.formats import FORMATS
from edgestill.pipeline.figures import listing
from edgestill.pipeline.input_kind import INPUT_KINDS


def refused(config: Any) -> Iterator[str]:
    """Yield a sentence for each setting of a run on a language task that cannot work."""
    if not INPUT_KINDS[config.data.kind].continues:
        return
    distill = config.distill
    unfit = [method.name for method in distill.methods if not METHODS[method.name].takes_rows]
    if unfit:
        able = listing([name for name, method in METHODS.items() if method.takes_rows])
        yield (
            f"distill.methods: {listing(unfit)} cannot teach a language model, which has several answers an example; "
            f"those that can: {able}"
        )
    if distill.auto is not None:
        yield "distill.methods auto compares answers by example, and a language model has several; name the methods"
    if distill.driver.name != "once":
        yield f"distill.driver {distill.driver.name!r} cannot train a language model; set distill.driver to once"
    if config.qat.mode == "always":
        yield "qat.mode 'always' cannot fine-tune a language model for INT8; set qat.mode to auto or never"
    if config.device.gpus != 1 or config.device.compile != "off":
        yield "device.gpus other than 1 and device.compile do not go with language models; leave them out"
    for where, training in (("teacher", config.teacher.training), ("distill", distill.training)):
        if training.balance != "none":
            yield f"{where}.training.balance is of classes, and tokens are no classes; leave it out"


def unfit_formats(config: Any) -> Iterator[str]:
    """Yield a sentence on the formats that take no network of the data's kind of input."""
    kind = config.data.kind
    able = [name for name, form in FORMATS.items() if kind in form.kinds]
    unfit = [name for name in config.export.formats if name not in able]
    if unfit:
        yield (
            f"export.formats: {listing(unfit)} cannot hold a network for data of kind {kind!r}; those that can: "
            f"{listing(able)}"
        )
