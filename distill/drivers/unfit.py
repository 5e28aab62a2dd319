"""Settings of a distillation that cannot work with the data's kind of input, a sentence each."""

from collections.abc import Iterator
from typing import Any

from edgestill.distill.drivers import DRIVERS
from edgestill.distill.methods import METHODS
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
        if distill.rows_at_once is not None:
            yield "distill.rows_at_once is for language models, which have several rows an example; leave it out"
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
    if config.device.gpus != 1 or config.device.processes != 1 or config.device.compile != "off":
        yield "device.gpus, device.processes and device.compile do not go with language models; leave them out"
    for where, training in (("teacher", config.teacher.training), ("distill", distill.training)):
        if training.balance != "none":
            yield f"{where}.training.balance is of classes, and tokens are no classes; leave it out"
