"""Networks of timm, by name: `teacher: timm:resnet50`."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from edgestill.pipeline.errors import CheckpointError, nearest
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.encoder_layers import EncoderSizes
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.adapted.pixels import Interpolation, Sight
from edgestill.pipeline.teachers.adapted.weights import Held
from edgestill.pipeline.teachers.encoder_sizes import sizes_in
from edgestill.pipeline.teachers.library import LibraryConfig, LibraryTeacher, imagenet_names, require


class TimmConfig(LibraryConfig):
    name: Literal["timm"] = "timm"


class TimmTeacher(LibraryTeacher):
    name: ClassVar[str] = "timm"
    Config: ClassVar[type[Frozen]] = TimmConfig
    example: ClassVar[Mapping[str, Any]] = {"model": "resnet10t"}
    library = "timm"
    config: TimmConfig

    @property
    def hub_id(self) -> str | None:
        return f"timm/{self.config.model}" if self.config.pretrained else None

    def make(self, task: Task, outputs: int, held: Held | None) -> nn.Module:
        timm, given = self._known(), dict[str, Any]()
        if held is not None and held.channels is not None:
            given["in_chans"] = held.channels
        if self._published_cfg().get("fixed_input_size"):
            sight = self.config.seen(self.sight(task))
            given["img_size"] = sight.size or task.input_shape[1:]
        return timm.create_model(self.config.model, pretrained=False, num_classes=outputs, **given)  # type: ignore[no-any-return]

    def encoder_sizes(self) -> EncoderSizes | None:
        with torch.device("meta"):
            found = sizes_in(self._known().create_model(self.config.model, pretrained=False))
        return None if found is None else found._replace(kind="image")

    def published_sight(self) -> Sight:
        found = self._published_cfg()
        channels, height, width = found.get("input_size", (3, 224, 224))
        return Sight(
            channels,
            (height, width),
            crop=float(found.get("crop_pct") or 1.0),
            stretch=found.get("crop_mode") == "squash",
            interpolation=_interpolation(str(found.get("interpolation"))),
            mean=tuple(found.get("mean") or (0.0,) * channels),
            std=tuple(found.get("std") or (1.0,) * channels),
        )

    def published_outputs(self) -> int:
        return int(self._published_cfg().get("num_classes") or 1000)

    def fetched(self, outputs: int | None) -> nn.Module:
        given = {} if outputs is None else {"num_classes": outputs}
        return self._known().create_model(self.config.model, pretrained=True, **given)  # type: ignore[no-any-return]

    @property
    def stem(self) -> str | None:
        found = self._published_cfg().get("first_conv")
        return str(found[0] if isinstance(found, list | tuple) else found) if found else None

    def names(self, outputs: int) -> tuple[str, ...] | None:
        return imagenet_names() if outputs == 1000 else None

    def _known(self) -> Any:
        """Return the library, which knows the network.

        Raises:
            CheckpointError: it does not.
        """
        timm = require("timm")
        if not timm.is_model(self.config.model.partition(".")[0]):
            raise CheckpointError(
                f"timm knows no network {self.config.model!r}; {nearest(self.config.model, timm.list_models())[:300]}"
            )
        return timm

    def _published_cfg(self) -> dict[str, Any]:
        found = self._known().get_pretrained_cfg(self.config.model, allow_unregistered=True)
        return {} if found is None else dict(found.to_dict())


def _interpolation(name: str) -> Interpolation:
    return "bilinear" if name == "bilinear" else "nearest" if name == "nearest" else "bicubic"
