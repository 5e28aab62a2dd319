"""Types that every data set's loader returns, and the settings that all data sets share."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import Tensor

from edgestill.pipeline.data.stored import StoredImages
from edgestill.pipeline.frozen import Frozen, GivenPath, Share

Policy = Literal["none", "randaugment", "trivialaugment"]


class AugmentConfig(Frozen):
    """Random augmentation of training images; teacher outputs are then cached only if training has `views`."""

    pad: int = Field(0, ge=0, le=64, description="pixels of padding before a random crop; 0 crops nothing")
    flip: bool = Field(False, description="flip images horizontally at random")
    crop: tuple[Share, Share] | None = Field(
        None, description="least and largest share of the image's area for a random crop, resized back; null crops none"
    )
    ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="narrowest and widest crop, as width over height")
    policy: Policy = Field(
        "none", description="random operations: randaugment does two an image, trivialaugment one of any strength"
    )
    brightness: Share = Field(0.0, description="brightness is multiplied by up to 1 - this or 1 + this")
    contrast: Share = Field(0.0, description="contrast is multiplied likewise")
    saturation: Share = Field(0.0, description="saturation is multiplied likewise; grey images stay as they are")
    hue: float = Field(0.0, ge=0, le=0.5, description="largest shift of the hue, in turns of the colour circle")
    erase: Share = Field(0.0, description="chance of an image to lose a rectangle of up to a third of it")
    mixup: float = Field(
        0.0, ge=0, le=10, description="alpha of mixup, each image with another; 1 draws shares evenly, 0 mixes none"
    )
    cutmix: float = Field(
        0.0,
        ge=0,
        le=10,
        description="alpha of CutMix, a rectangle of another image; with mixup, one of the two at random",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.crop is not None and not 0.01 <= self.crop[0] <= self.crop[1]:
            raise ValueError(f"crop {list(self.crop)} must be [least, largest] share, each from 0.01 to 1")
        if not 0.1 <= self.ratio[0] <= self.ratio[1] <= 10:
            raise ValueError(f"ratio {list(self.ratio)} must be [narrowest, widest], each from 0.1 to 10")
        return self

    @property
    def is_random(self) -> bool:
        return self != AugmentConfig(ratio=self.ratio)

    @property
    def mixes(self) -> bool:
        """True if images are mixed with others, so that each has two labels."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def needs_kornia(self) -> bool:
        return self.policy != "none" or any((self.contrast, self.saturation, self.hue))

    @property
    def without_mixing(self) -> Self:
        """The same for each image by itself."""
        return self.model_copy(update={"mixup": 0.0, "cutmix": 0.0})


class DatasetConfig(Frozen):
    """Settings that every data set has."""

    kind: ClassVar[str] = "image"  # of input

    reference_fraction: float = Field(
        0.1, gt=0, lt=0.5, description="share of the training part set aside for influence weights and calibration"
    )
    validation_fraction: float = Field(
        0.15, gt=0, lt=0.5, description="share of the training part set aside for validation, the basis of every choice"
    )
    augment: AugmentConfig = AugmentConfig()
    limit: int | None = Field(
        None, ge=1, description="largest number of examples a split, drawn by class; null takes all"
    )

    unlabelled: GivenPath | None = Field(
        None,
        description="folder of pictures without labels, or .npz file of images (x_unlabelled, x_train or x), learnt "
        "from the teacher's answers alone; null: none",
    )

    @classmethod
    def settings_for(cls, given: str) -> dict[str, Any] | None:
        """Return settings, `name` left out, for a person's path or word; None: it is of another kind."""
        return None

    @field_validator("labels", mode="before", check_fields=False)
    @classmethod
    def _numbers_are_names(cls, labels: Any) -> Any:
        if not isinstance(labels, list | tuple):
            return labels
        return tuple(str(label) if type(label) is int else label for label in labels)

    @field_validator("augment")
    @classmethod
    def _changes_images_alone(cls, augment: AugmentConfig) -> AugmentConfig:
        if cls.kind != "image" and augment.is_random:
            raise ValueError("pad and flip are of images and do nothing to text; leave them out")
        return augment

    @field_validator("unlabelled")
    @classmethod
    def _is_a_folder_of_pictures(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None:
            return None
        if cls.kind != "image":
            raise ValueError("is a folder of pictures, and this data is text; leave it out")
        if not (info.context or {}).get("check_files"):
            return path
        if not (path.is_dir() or (path.suffix == ".npz" and path.is_file())):
            raise ValueError(f"no folder at {path}, and no .npz file")
        return path.absolute()

    @property
    def hub_id(self) -> str | None:
        """Id of the data on the Hugging Face hub; None: they are not from there."""
        return None

    @property
    def has_own_tokenizer(self) -> bool:
        """True if the configuration says which tokenizer makes the inputs."""
        return False

    def with_tokenizer(self, path: Path) -> Self:
        """Return the configuration with inputs made by the tokenizer of a file, for data that has a tokenizer."""
        return self


Encode = Callable[[Sequence[str]], np.ndarray]  # texts to their token ids


class LabelledImages(NamedTuple):
    images: np.ndarray | StoredImages  # [N, C, H, W]: uint8, or float32 in [0, 1]
    targets: np.ndarray  # [N] int64
    names: tuple[str, ...] = ()  # of each example for people: its path below the data's, or its row; () by number

    def inputs(self, index: np.ndarray, encode: Encode | None) -> Tensor | StoredImages:
        """Return the chosen images."""
        if isinstance(self.images, StoredImages):
            return self.images.select(torch.from_numpy(index))
        return torch.from_numpy(self.images[index])

    def contents(self, index: np.ndarray, taken: np.ndarray | None = None) -> Iterator[Any]:
        """Yield bytes that determine the chosen images.

        Args:
            taken: the chosen images, if they were copied already: copying takes longer than hashing.
        """
        yield f"{self.images.dtype} {self.images.shape[1:]}".encode()
        if isinstance(self.images, StoredImages):
            yield np.ascontiguousarray(self.images.digests(index)).data
            return
        images = self.images if len(index) == len(self.images) else self.images[index]
        yield np.ascontiguousarray(images if taken is None else taken).data


class LabelledTexts(NamedTuple):
    texts: tuple[str, ...]
    targets: np.ndarray  # [N] int64
    names: tuple[str, ...] = ()  # of each example for people, such as its line; () by number
    rejected: tuple[str, ...] = ()  # of each text, one with a worse answer; () there are none

    def inputs(self, index: np.ndarray, encode: Encode | None) -> Tensor:
        """Return the token ids of the chosen texts."""
        assert encode is not None
        return torch.from_numpy(encode([self.texts[n] for n in index]))

    def contents(self, index: np.ndarray, taken: np.ndarray | None = None) -> Iterator[Any]:
        """Yield bytes that determine the chosen texts, and not their tokens."""
        for texts in (self.texts, *([self.rejected] if self.rejected else [])):
            for n in index:
                text = texts[n].encode("utf-8", "surrogatepass")
                yield len(text).to_bytes(8, "little") + text


Examples = LabelledImages | LabelledTexts


class RawData(NamedTuple):
    """A data set before it is split; a part that is None is carved from `train`."""

    train: Examples
    test: Examples | None
    labels: tuple[str, ...]
    validation: Examples | None = None
    unlabelled: np.ndarray | StoredImages | None = None  # [N, C, H, W] like train's; training images without labels
    test_fraction: float = 0.2  # of train, to carve where `test` is None
    dropped: int = 0  # examples of the files that are in no part, as configured
    cautions: tuple[str, ...] = ()  # things that the loader understood or left out, a sentence each
