"""Who takes part in benchmarks/teachers.py: three teachers that differ in kind, and students of one space."""

import contextlib
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.splits import Splits, draw_batch
from edgestill.pipeline.errors import CandidateError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.networks.network import PooledClassifier
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.checkpoint import load_weights, weights_bytes, write_atomic
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.fit import TrainingConfig, fit
from edgestill.pipeline.training.objective import Supervised
from edgestill.search.scoring.conditions import Conditions, Means
from edgestill.search.scoring.cost_table import CostTable
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.space import Architecture, SearchSpace
from edgestill.search.spaces import Nb201Config, Nb201Space, ResNetConfig

SPACES = {  # every student's embedding is 64 wide, as every teacher's, so that all of DisWOT applies
    "nb201": Nb201Config(cells=1),
    "resnet": ResNetConfig(blocks=((1, 2, 3),) * 3, widths=((4, 8, 16, 24), (8, 16, 32, 48), (64,))),
}
_POOLING_CELL = "|avg_pool_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_1x1~2|"


class CoarseResNet(CifarResNet):
    """Sees its images at half the resolution, and is wide and shallow."""

    def trunk(self, inputs: Tensor) -> Tensor:
        coarse = F.avg_pool2d(inputs, 2, ceil_mode=True)
        return super().trunk(F.interpolate(coarse, size=inputs.shape[2:]))


def build_teachers(task: Task) -> dict[str, PooledClassifier]:
    classes, mean, std = task.num_classes, task.mean, task.std
    cells = Nb201Space(Nb201Config(cells=3))
    return {
        "deep": CifarResNet((9, 9, 9), (16, 32, 64), num_classes=classes, mean=mean, std=std),
        "pooling": cells.build(cells.parse(_POOLING_CELL), task),
        "coarse": CoarseResNet((1, 1, 1), (32, 64, 64), num_classes=classes, mean=mean, std=std),
    }


def train_teachers(splits: Splits, epochs: int, seed: int, folder: Path, suffix: str) -> dict[str, PooledClassifier]:
    """Trained on images cropped at random; read back where they were trained before."""
    config = TrainingConfig(epochs=epochs, batch_size=64, learning_rate=0.05, warmup_epochs=2)
    with drawn_from(derive_seed(seed, "teachers")):
        teachers = build_teachers(splits.task)
    for name, network in teachers.items():
        file = folder / f"{name}-{suffix}.safetensors"
        if file.exists():
            load_weights(network, file)
        else:
            augmentation = Augmentation(splits.augment.model_copy(update={"pad": 1}))
            own = derive_seed(seed, "teacher", name)
            sets, cpu = (splits.train, splits.validation), torch.device("cpu")
            fit(network, Supervised(), *sets, config, seed=own, device=cpu, augmentation=augmentation)
            write_atomic(file, weights_bytes(network))
        frozen(network)
    return teachers


def choose_students(space: SearchSpace, splits: Splits, count: int, seed: int) -> list[Architecture]:
    """One live member from each of `count` classes of size with equally many members, of 20 x count drawn."""
    rng, costs = random.Random(derive_seed(seed, "students")), CostTable(space, splits.task)
    drawn = {a.key: a for a in (space.sample(rng) for _ in range(20 * count))}
    ordered = sorted(drawn.values(), key=lambda a: (costs(a).params, space.format(a)))
    batch = draw_batch(splits.train, 64, seed)
    alive = Evaluator(space, splits.task, ["nwot"], Conditions(batch, None, seed, guard=True), Means(costs=costs))
    chosen = []
    for i in range(count):
        stratum = ordered[i * len(ordered) // count : (i + 1) * len(ordered) // count]
        for architecture in rng.sample(stratum, len(stratum)):
            with contextlib.suppress(CandidateError):
                alive(architecture)
                chosen.append(architecture)
                break
    return chosen
