"""Facts of a task, from which a method tells if it is worth a try."""

from typing import Literal, NamedTuple


class About(NamedTuple):
    """Facts of a task."""

    kind: Literal["image", "text"] | str
    classes: int
    examples: int  # labelled ones of training
    pool: int = 0  # unlabelled ones
    label_noise: float = 0.0  # estimated share of wrong labels
