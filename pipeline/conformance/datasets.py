"""Checks of a data set, by its name in the table."""

from typing import Any

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError

from edgestill.pipeline.conformance.suite import Check, NotHereError, require
from edgestill.pipeline.data.datasets import DATASETS, LabelledImages
from edgestill.pipeline.data.loading import DataConfig, load_splits
from edgestill.pipeline.data.stored import StoredImages
from edgestill.pipeline.frozen import first_problem


def its_name_alone_chooses_it(name: str) -> None:
    config = _config(name)
    chosen = TypeAdapter(DataConfig).validate_python(name)
    require(chosen == config, f"data={name} chooses {chosen}")


def its_settings_are_described_and_misspelt_ones_refused(name: str) -> None:
    config = DATASETS[name][0]
    for field, declared in config.model_fields.items():
        is_section = isinstance(declared.annotation, type) and issubclass(declared.annotation, BaseModel)
        require(field == "name" or is_section or declared.description, f"{field} has no description")
    try:
        config.model_validate({"name": name, "misspelt": 1})
    except ValidationError as error:
        require(any(e["type"] == "extra_forbidden" for e in error.errors()), "an unknown key is taken")
        return
    require(False, "an unknown key is taken")


def its_examples_have_the_shapes_and_labels_that_they_should(name: str) -> None:
    raw = DATASETS[name][1](_config(name))
    require(len(raw.labels) >= 2, f"it has {len(raw.labels)} classes")
    for role in ("train", "test", "validation"):
        part = getattr(raw, role)
        if part is None:
            continue
        require(part.targets.dtype == np.int64, f"targets of {role} are {part.targets.dtype}, not int64")
        inside = (part.targets >= 0) & (part.targets < len(raw.labels))
        require(inside.all(), f"targets of {role} go beyond the {len(raw.labels)} labels")
        if isinstance(part, LabelledImages):
            _require_images(part.images, len(part.targets), role)
        else:
            require(len(part.texts) == len(part.targets), f"{role} has {len(part.texts)} texts")


def it_splits_and_a_seed_repeats_it(name: str) -> None:
    one, again, other = (load_splits(_config(name), seed) for seed in (1, 1, 2))
    require(one.digests == again.digests, "the same seed gives other splits")
    require(one.digests != other.digests, "another seed gives the same splits")
    classes = one.task.num_classes
    for split in (one.train, one.reference, one.validation) if one.task.inputs.has_classes else ():
        present = len(set(split.labelled().targets.tolist()))
        require(present == classes, f"{split.role} has examples of {present} of {classes} classes")


CHECKS: tuple[Check, ...] = (
    its_name_alone_chooses_it,
    its_settings_are_described_and_misspelt_ones_refused,
    its_examples_have_the_shapes_and_labels_that_they_should,
    it_splits_and_a_seed_repeats_it,
)


def _require_images(images: np.ndarray | StoredImages, count: int, role: str) -> None:
    require(
        len(images.shape) == 4 and len(images) == count,
        f"images of {role} are {list(images.shape)} for {count} targets",
    )
    if isinstance(images, StoredImages):
        return
    require(images.dtype in (np.uint8, np.float32), f"images of {role} are {images.dtype}, not uint8 or float32")
    if images.dtype == np.float32:
        require(images.min() >= 0 and images.max() <= 1, f"images of {role} are not in [0, 1]")


def _config(name: str) -> Any:
    """Make its default configuration.

    Raises:
        NotHereError: it has none, as a file's path must be given.
    """
    try:
        return DATASETS[name][0].model_validate({"name": name})
    except ValidationError as error:
        raise NotHereError(f"its default configuration is not complete: {first_problem(error)}") from None
