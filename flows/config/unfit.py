"""Settings that do not go with the data's kind of input, with the driver, or with the student's start."""

from collections.abc import Iterator
from typing import Any

from edgestill.distill.drivers import DRIVERS
from edgestill.distill.methods import METHODS
from edgestill.distill.methods.none import NoneConfig
from edgestill.export.formats import FORMATS
from edgestill.pipeline.figures import listing
from edgestill.pipeline.input_kind import INPUT_KINDS


def unfit_settings(config: Any) -> Iterator[str]:
    """Yield a sentence for each setting that cannot work with the data's kind of input."""
    distill, kind = config.distill, config.data.kind
    if kind not in DRIVERS[distill.driver.name].kinds:
        able = " or ".join(name for name, driver in DRIVERS.items() if kind in driver.kinds)
        trains = "train a language model" if INPUT_KINDS[kind].continues else f"train on data of kind {kind!r}"
        yield f"distill.driver {distill.driver.name!r} cannot {trains}; set distill.driver to {able}"
    if not INPUT_KINDS[kind].continues:
        return
    unfit = [method.name for method in distill.methods if not METHODS[method.name].takes_rows]
    if unfit:
        able = listing([name for name, method in METHODS.items() if method.takes_rows])
        yield (
            f"distill.methods: {listing(unfit)} cannot teach a language model, which has several answers an example; "
            f"those that can: {able}"
        )
    if distill.auto is not None:
        yield "distill.methods auto compares answers by example, and a language model has several; name the methods"
    if config.qat.mode == "always":
        yield "qat.mode 'always' cannot fine-tune a language model for INT8; set qat.mode to auto or never"
    if config.device.gpus != 1 or config.device.compile != "off":
        yield "device.gpus other than 1 and device.compile do not go with language models; leave them out"
    for where, training in (("teacher", config.teacher.training), ("distill", distill.training)):
        if training.balance != "none":
            yield f"{where}.training.balance is of classes, and tokens are no classes; leave it out"


def unfit_methods(config: Any) -> Iterator[str]:
    """Yield a sentence for each method that lacks samples of the student's own, or a student to begin with."""
    distill = config.distill
    sampling = distill.driver.sampling
    taken = 0 if sampling is None else sampling.samples
    for method in (METHODS[one.name] for one in distill.methods):
        if method.own_samples > taken:
            yield (
                f"method {method.name!r} needs {method.own_samples} or more of the student's own samples of each "
                f"prompt, and distill.driver {distill.driver.name!r} as set takes {taken}; set distill.driver to "
                f"rollout, and distill.driver.samples to {method.own_samples} or more"
            )
        if method.is_of_itself and distill.start == "random":
            yield (
                f"method {method.name!r} distils a student into itself, and one with random weights knows nothing; set "
                "distill.start to a run that trained it"
            )
    if sampling is not None and sampling.share == 1 and all(isinstance(one, NoneConfig) for one in distill.methods):
        yield (
            "distill.methods: labels alone teach nothing of the student's own samples, which have none; name a method "
            "with a teacher, or set distill.driver to once"
        )


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
