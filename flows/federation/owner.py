"""An owner's node: its examples, its network, and the file that keeps its weights."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgestill.distill.federation.client import Client
from edgestill.flows.config.loading import load_config
from edgestill.flows.federation.public import driver_of, pool_of
from edgestill.pipeline.data.datasets.npz import images_of
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.device import select_device
from edgestill.pipeline.errors import ConfigError, DataError, first_line
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.checkpoint import load_weights, state_bytes, write_atomic
from edgestill.pipeline.task import Task
from edgestill.search.spaces import make_space


def load_client(context: Any) -> Client:
    """Make the client of a node, whose --node-config gives `config` and `data`, and perhaps `student` and `weights`.

    - config: the configuration that all machines share.
    - data: .npz file of the owner's examples, `x` as in the data's own files and `y` class numbers.
    - student: an architecture in the string form of search.space; without it, one is drawn by the data file's name.
    - weights: file that keeps the network between federations; without it they begin afresh.

    Raises:
        UserError: one of these is missing or wrong.
    """
    given = context.node_config
    for key in ("config", "data"):
        if key not in given:
            raise ConfigError([f"--node-config gives no {key}; it needs config and data, a file each"])
    config = load_config(Path(str(given["config"])))
    driver_of(config)
    splits = load_splits(config.read_data, config.seed)
    path = Path(str(given["data"])).expanduser()
    seed = derive_seed(config.seed, "owner", path.name)
    space = make_space(config.search.space)
    text = given.get("student")
    architecture = space.parse(str(text)) if text else space.sample(random.Random(seed))
    with drawn_from(derive_seed(seed, "weights")):
        student = space.build(architecture, splits.task)
    _load_kept(student, given.get("weights"))
    device = select_device(config.device)
    return Client(student, owned_examples(path, splits.task), pool_of(splits), seed, device)


def keep_weights(context: Any, weights: Mapping[str, Tensor]) -> None:
    """Write a client's weights where its node's `weights` says."""
    if (path := context.node_config.get("weights")) is not None:
        write_atomic(Path(str(path)).expanduser(), state_bytes(weights))


def owned_examples(path: Path, task: Task) -> ImageSplit:
    """Read an owner's examples; it may have examples of a single class.

    Raises:
        DataError: they cannot be read, or do not fit the task.
    """
    images = torch.from_numpy(images_of(path))
    try:
        with np.load(path, allow_pickle=False) as held:
            targets = held["y"] if "y" in held else held["y_train"]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} holds no y, the class numbers of its examples ({first_line(error)})") from None
    if tuple(images.shape[1:]) != task.input_shape:
        raise DataError(f"{path} holds images of {list(images.shape[1:])}, and the pool's are {list(task.input_shape)}")
    fits = targets.shape == (len(images),) and targets.dtype.kind in "iu"
    if not fits or not 0 <= targets.min() <= targets.max() < task.num_classes:
        raise DataError(f"{path}: y must be {len(images)} class numbers from 0 to {task.num_classes - 1}")
    return ImageSplit(images, torch.from_numpy(targets.astype(np.int64)))


def _load_kept(student: nn.Module, path: Any) -> None:
    if path is not None and (file := Path(str(path)).expanduser()).exists():
        load_weights(student, file)
