"""What a classifier is asked to do: the shape that goes in and the classes that come out."""

from typing import Literal

from pydantic import Field, model_validator

from pipeline.frozen import Frozen


class Task(Frozen):
    """One classification problem; every stage reads its shapes and labels from here."""

    kind: Literal["image"] = "image"
    labels: tuple[str, ...] = Field(min_length=2)
    input_shape: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...]  # of the training pixels in [0, 1], a value a channel
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        return len(self.labels)

    @model_validator(mode="after")
    def _one_statistic_a_channel(self) -> "Task":
        if not len(self.mean) == len(self.std) == self.input_shape[0]:
            raise ValueError(f"{self.input_shape[0]} channels need as many means and stds")
        return self
