"""Pseudo-subclasses of every class, read from the teacher's embedding by linear projections.

Loo, Iliopoulos, Hu and Vee 2024, arXiv:2409.20449. The directions are found once, before training, in one pass over
the training examples without augmentation; they are then applied to any embedding.
"""

# N examples, D embedding width, C classes, S subclasses a class

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from edgestill.pipeline.data.splits import UNLABELLED, ImageSplit
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import Classifier, look

Directions = Literal["pca", "random", "kmeans"]
_FLAT = 1e-10  # share of a class's variance below which a direction is float32's rounding


@dataclass(frozen=True)
class Projections:
    """Projections u(s | c, x) = weights[c, :, s] . h(x) + offsets[c, s]; null space, rotation and scale are in them."""

    weights: Tensor  # [C, D, S]
    offsets: Tensor  # [C, S]

    def probabilities(self, embedding: Tensor, temperature: float) -> Tensor:
        """Return q(s | c, x) = softmax_s(u / temperature) for every class c; [N, D] to [N, C, S]."""
        classes, width, subclasses = self.weights.shape
        flat = self.weights.transpose(0, 1).reshape(width, classes * subclasses)
        u = (embedding.float() @ flat).reshape(-1, classes, subclasses) + self.offsets
        return (u / temperature).softmax(2)


@dataclass(frozen=True)
class ProjectionSettings:
    subclasses: int
    directions: Directions
    null_space: bool
    rotate: bool
    standardise: bool


class ClassMoments:
    """Count, mean and scatter of each class's embeddings, in float64 on the CPU.

    They are updated batch by batch (Chan, Golub and LeVeque 1983), so that no batch need be kept.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        self.count = torch.zeros(num_classes, dtype=torch.int64)
        self.mean = torch.zeros(num_classes, width, dtype=torch.float64)
        self._scatter = torch.zeros(num_classes, width, width, dtype=torch.float64)

    def add(self, embedding: Tensor, classes: Tensor) -> None:
        """Add embeddings [N, D] float64 of the classes [N]."""
        for c in torch.bincount(classes).nonzero().flatten().tolist():
            own = embedding[classes == c]
            before, added = int(self.count[c]), len(own)
            mean = own.mean(0)
            shift, centred = mean - self.mean[c], own - mean
            share = added / (before + added)
            self._scatter[c] += centred.T @ centred + torch.outer(shift, shift) * before * share
            self.mean[c] += shift * share
            self.count[c] += added

    def covariance(self, c: int) -> Tensor:
        """Covariance [D, D] of a class: its scatter divided by its count."""
        return self._scatter[c] / int(self.count[c])


def fit_projections(
    teacher: nn.Module,
    train: ImageSplit,
    num_classes: int,
    settings: ProjectionSettings,
    *,
    seed: int,
    device: torch.device,
) -> Projections:
    """Fit the projections of a trained teacher's embedding; all random draws come from `seed`.

    Raises:
        ConfigError: a class has too few examples, or the embedding too few directions, for so many subclasses; or
            `null_space` is asked of a teacher that does not end in a Linear.
    """
    moments: ClassMoments | None = None
    kept: list[tuple[Tensor, Tensor]] = []
    for embedding, classes in class_embeddings(teacher, train, device):
        moments = moments or ClassMoments(num_classes, embedding.shape[1])
        moments.add(embedding, classes)
        if settings.directions == "kmeans":  # it goes over its points many times
            kept.append((embedding, classes))
    assert moments is not None, "a training split is not empty"
    projector, seen = torch.eye(moments.mean.shape[1], dtype=torch.float64), 0
    if settings.null_space:
        projector, seen = null_space_projector(_classifier_weight(teacher))
    require_examples(moments.count, settings.subclasses)
    _require_directions(settings, len(projector), seen)
    fits = []
    for c in range(num_classes):
        generator = torch.Generator().manual_seed(derive_seed(seed, "subclasses", c))
        if settings.directions == "kmeans":
            own = torch.cat([embedding[classes == c] for embedding, classes in kept]) @ projector
            total = float(moments.covariance(c).trace())
            fits.append(_nearest_centre(own, settings, derive_seed(seed, "kmeans", c), total, c))
        else:
            fits.append(_projections_of(c, moments, projector, settings, generator))
    weights = torch.stack([projector @ weight for weight, _ in fits])
    return Projections(weights.float().to(device), torch.stack([offset for _, offset in fits]).float().to(device))


def class_embeddings(teacher: nn.Module, train: ImageSplit, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the teacher's embeddings [N, D], float64 on the CPU, and classes [N] of the training examples, in order.

    An example's class is its label, or the teacher's answer where it has none.
    """
    with torch.no_grad():
        for batch in train.batches(512, device):
            view = look(teacher, batch.inputs)
            classes = torch.where(batch.targets == UNLABELLED, view.logits.argmax(1), batch.targets)
            yield view.embedding.cpu().double(), classes.cpu()


def null_space_projector(weight: Tensor) -> tuple[Tensor, int]:
    """Return P = I - W^+ W, [D, D], onto directions unseen by the logits, and the rank of the classifier's W [C, D]."""
    _, singular, rows = torch.linalg.svd(weight, full_matrices=False)
    rows = rows[singular > 1e-6 * singular.max()]
    return torch.eye(weight.shape[1], dtype=weight.dtype) - rows.T @ rows, len(rows)


def haar_rotation(size: int, generator: torch.Generator) -> Tensor:
    """Draw a uniformly random orthogonal matrix [S, S]: Q of a Gaussian matrix, with R's diagonal made positive.

    Without this choice of signs it is not uniform (Mezzadri 2007, arXiv:math-ph/0609050).
    """
    q, r = torch.linalg.qr(_normal(size, size, generator))
    rotation: Tensor = q * r.diagonal().sign()
    return rotation


def principal_axes(covariance: Tensor, count: int, total: float, c: int) -> Tensor:
    """Return the `count` directions of most variance, [D, S], in descending order.

    Args:
        total: the class's variance before projecting; the last direction's must be more than its rounding.
        c: the class, for the error.

    Raises:
        ConfigError: the embeddings vary in fewer directions.
    """
    variances, axes = torch.linalg.eigh(covariance)  # ascending
    live = int((variances > _FLAT * total).sum())
    if live < count:
        raise ConfigError(
            [
                f"lelp: the teacher's embeddings of class {c} vary in {live} directions that its logits do not see, "
                f"and {count} subclasses need {count}; lower lelp.subclasses to {live} or less, or set "
                "lelp.null_space to false"
            ]
        )
    chosen: Tensor = axes.flip(1)[:, :count]
    return chosen


def _projections_of(
    c: int, moments: ClassMoments, projector: Tensor, settings: ProjectionSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return (V Q / sd, -mu V Q / sd) of one class: [D, S] and [S]."""
    total = moments.covariance(c)
    within = projector @ total @ projector
    if settings.directions == "pca":
        axes = principal_axes(within, settings.subclasses, float(total.trace()), c)
    else:
        axes = torch.linalg.qr(projector @ _normal(len(projector), settings.subclasses, generator)).Q
    if settings.rotate:  # otherwise the first subclasses would hold most of the variance
        axes = axes @ haar_rotation(settings.subclasses, generator)
    if settings.standardise:  # otherwise the temperature would mean something else with every teacher
        sd = (axes * (within @ axes)).sum(0).clamp_min(_FLAT * float(total.trace())).sqrt()
        axes = axes / sd
    return axes, -(projector @ moments.mean[c]) @ axes


def _nearest_centre(
    points: Tensor, settings: ProjectionSettings, seed: int, total: float, c: int
) -> tuple[Tensor, Tensor]:
    """Projections [D, S] and [S] of one class with the same softmax as -|x - m|^2 / 2 over the centres m of k-means.

    -|x - m|^2 / 2 is m . x - |m|^2 / 2 up to a term common to all centres. With `standardise`, the unit is the mean
    squared distance of an example to its own centre.

    Args:
        total, c: as in `principal_axes`.

    Raises:
        ConfigError: the class has no more different embeddings than subclasses.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():  # on fewer different points than centres; refused below
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(settings.subclasses, n_init=4, random_state=seed % 2**32).fit(points.numpy())
    apart = found.inertia_ / len(points)
    if apart <= _FLAT * total:
        raise ConfigError(
            [
                f"lelp: the {len(points)} training examples of class {c} have no more than {settings.subclasses} "
                f"different embeddings, too few for {settings.subclasses} subclasses by kmeans; lower lelp.subclasses, "
                "or set lelp.null_space to false"
            ]
        )
    centres = torch.from_numpy(found.cluster_centers_)
    unit = apart if settings.standardise else 1.0
    return centres.T / unit, -centres.square().sum(1) / (2 * unit)


def require_examples(count: Tensor, wanted: int) -> None:
    """Refuse classes with too few examples for `wanted` subclasses; `count` [C] are the training examples of each.

    Raises:
        ConfigError: one sentence for each refused class.
    """
    problems = [
        f"lelp: class {c} has {n} of the {int(count.sum())} training examples, and {wanted} subclasses need "
        f"{wanted + 1} or more; lower lelp.subclasses, or train on more examples: of the data, or, where a stage takes "
        "a part of them, by its train_images"
        for c, n in enumerate(count.tolist())
        if n < wanted + 1
    ]
    if problems:
        raise ConfigError(problems)


def _require_directions(settings: ProjectionSettings, width: int, seen: int) -> None:
    wanted = settings.subclasses
    if settings.directions != "kmeans" and wanted > width - seen:
        raise ConfigError(
            [
                f"lelp: {wanted} subclasses need as many directions, and of the {width} of the teacher's embedding "
                f"{seen} are its logits' own; lower lelp.subclasses to {width - seen} or less, or set lelp.directions "
                "to kmeans"
            ]
        )


def _classifier_weight(teacher: nn.Module) -> Tensor:
    classifier = cast(Classifier, teacher).get_classifier()
    if not isinstance(classifier, nn.Linear):
        raise ConfigError(
            [
                f"lelp.null_space needs a teacher that ends in one Linear, and this one ends in a "
                f"{type(classifier).__name__}; set lelp.null_space to false"
            ]
        )
    return classifier.weight.detach().cpu().double()


def _normal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)
