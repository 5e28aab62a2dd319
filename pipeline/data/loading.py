"""The stages' only access to data: the same four splits, by name, drawn by seed and recorded by digest.

`train` is for training, `reference` for influence weights and calibration, `validation` for every choice. `test` is
not given to the stages: only `load_test` opens it, and only the report calls that.
"""

# N examples, C channels, H W height and width

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import BeforeValidator, Discriminator
from torch import Tensor

from edgestill.pipeline.data.datasets import DATASETS, LabelledTexts, RawData
from edgestill.pipeline.data.datasets.base import DatasetConfig, Examples
from edgestill.pipeline.data.look import DataLook, Part, look_at
from edgestill.pipeline.data.pixel_operations import require_kornia
from edgestill.pipeline.data.sequences import split_of_language, with_rejected
from edgestill.pipeline.data.splits import UNLABELLED, ImageSplit, Splits
from edgestill.pipeline.data.stored import StoredImages
from edgestill.pipeline.data.tokens import Coder, make_coder, token_labels
from edgestill.pipeline.data.unlabelled import with_unlabelled
from edgestill.pipeline.errors import DataError
from edgestill.pipeline.frozen import by_name, derive_seed
from edgestill.pipeline.input_kind import INPUT_KINDS
from edgestill.pipeline.input_kind.lm import answered
from edgestill.pipeline.task import Task, distinct_names

_AT_ONCE = 64  # images in memory
SPLITS: dict[str, Callable[[ImageSplit], ImageSplit]] = {  # by kind of input, from examples as they are stored
    "image": lambda split: split,
    "text": lambda split: split,
    "lm": split_of_language,
}

if TYPE_CHECKING:
    DataConfig = Any
else:  # the union over the table; `data: digits` is short for `data: {name: digits}`
    DataConfig = Annotated[
        reduce(or_, (config for config, _ in DATASETS.values())), Discriminator("name"), BeforeValidator(by_name)
    ]


def load_splits(config: Any, seed: int, tokenizer: str | None = None, looking: bool = False) -> Splits:
    """Load the data set of a configuration, split by seed.

    Args:
        tokenizer: for text, the `json` of an earlier `Coder`; None makes the configured one, from the training texts.
        looking: look at every example of every split, and keep the findings.

    Raises:
        DataError: the data cannot be read, or a class is too small to appear in every split.
        MissingDependencyError: the configured augmentation needs a library that is not installed.
    """
    if config.augment.needs_kornia:
        require_kornia()
    raw, parts = _load(config, seed)
    raw = with_unlabelled(raw, config)
    coder = _coder(config, raw, parts["train"], tokenizer)
    split = SPLITS[config.kind]
    sources = {"train": raw.train, "reference": raw.train, "validation": raw.validation or raw.train}
    files = {"train": "train", "reference": "train", "validation": "validation" if raw.validation else "train"}
    chosen = {name: split(_take(source, parts[name], coder, name, files[name])) for name, source in sources.items()}
    chosen["train"] = with_rejected(chosen["train"], raw.train, parts["train"], coder)
    task = _task(config, raw, chosen["train"], coder)
    sizes = {name: len(index) for name, index in parts.items()}
    digests = {name: _digest(parts[name], source, chosen[name]) for name, source in sources.items()}
    digests["test"] = _digest(parts["test"], raw.test or raw.train)
    if raw.unlabelled is not None:
        chosen["train"] = _joined(chosen["train"], raw.unlabelled)
        sizes["unlabelled"] = len(raw.unlabelled)
        digests["unlabelled"] = hashlib.sha256(_bytes_of(raw.unlabelled)).hexdigest()
    return Splits(
        task,
        **chosen,
        augment=config.augment,
        sizes=sizes,
        digests=digests,
        coder=coder,
        look=_look(config.kind, raw, parts, coder) if looking else None,
        dropped=raw.dropped,
        cautions=raw.cautions,
    )


def load_test(config: Any, seed: int, tokenizer: str | None = None) -> ImageSplit:
    """Load the test split; to be opened once a run, by its report."""
    raw, parts = _load(config, seed)
    coder = _coder(config, raw, parts["train"], tokenizer)
    return SPLITS[config.kind](
        _take(raw.test or raw.train, parts["test"], coder, "test", "test" if raw.test else "train")
    )


def load_whole_train(config: Any) -> tuple[Task, ImageSplit]:
    """Load all labelled training examples, for scores of untrained networks: those choose nothing on other splits."""
    raw = _read(config)
    index = np.arange(len(raw.train.targets))
    coder = _coder(config, raw, index, None)
    whole = SPLITS[config.kind](_take(raw.train, index, coder, "train", "train"))
    return _task(config, raw, whole, coder), whole


def _load(config: DatasetConfig, seed: int) -> tuple[RawData, dict[str, np.ndarray]]:
    raw = _read(config)
    parts = _split_indices(config, raw, seed)
    if config.limit is None:
        return raw, parts
    own = {"test": raw.test, "validation": raw.validation}
    few = {n: _some(at, (own.get(n) or raw.train).targets, config.limit, seed, n) for n, at in parts.items()}
    return raw._replace(unlabelled=_first(raw.unlabelled, config.limit)), few


def _first(images: np.ndarray | StoredImages | None, count: int) -> np.ndarray | StoredImages | None:
    if isinstance(images, StoredImages):
        return images.select(torch.arange(min(count, len(images))))
    return None if images is None else images[:count]


def _some(index: np.ndarray, targets: np.ndarray, count: int, seed: int, name: str) -> np.ndarray:
    """Draw about `count` of the examples, of each class its share and at least one."""
    if count >= len(index):
        return index
    order = np.random.default_rng(derive_seed(seed, "limit", name)).permutation(index)
    classes = [order[targets[order] == label] for label in np.unique(targets[index])]
    return np.sort(np.concatenate([members[: max(1, count * len(members) // len(index))] for members in classes]))


def _read(config: Any) -> RawData:
    """Read the data set, and check its class names as configured ones are checked."""
    raw: RawData = DATASETS[config.name][1](config)
    try:
        distinct_names(raw.labels)
    except ValueError as error:
        raise DataError(f"{getattr(config, 'path', config.name)}: {error}; mend the labels there") from None
    return raw


def _split_indices(config: DatasetConfig, raw: RawData, seed: int) -> dict[str, np.ndarray]:
    """Indices of each split, stratified by class: into the data set's own part of that name, or else into its train."""
    remaining = np.arange(len(raw.train.targets))
    parts: dict[str, np.ndarray] = {}
    if raw.test is not None:
        parts["test"] = np.arange(len(raw.test.targets))
    else:
        remaining, parts["test"] = _stratified(remaining, raw, raw.test_fraction, seed, "test")
    pool = len(remaining)
    carved = [("validation", config.validation_fraction), ("reference", config.reference_fraction)]
    if raw.validation is not None:
        parts["validation"] = np.arange(len(raw.validation.targets))
        del carved[0]
    for name, fraction in carved:
        share = fraction * pool / len(remaining)
        remaining, parts[name] = _stratified(remaining, raw, share, seed, name)
    parts["train"] = remaining
    return parts


def _stratified(
    index: np.ndarray, raw: RawData, fraction: float, seed: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    targets = raw.train.targets
    counts = np.bincount(targets[index])
    try:
        kept, taken = train_test_split(
            index, test_size=fraction, stratify=targets[index], random_state=derive_seed(seed, "split", name) % 2**32
        )
        if len(np.unique(targets[taken])) < np.count_nonzero(counts):
            raise ValueError("rounding left the class out")
    except ValueError as error:
        raise DataError(_too_few(raw.labels, counts, fraction, name)) from error
    return np.sort(kept), np.sort(taken)


def _too_few(labels: Sequence[str], counts: np.ndarray, fraction: float, name: str) -> str:
    """Say that a class is too small for a split."""
    there, total = np.flatnonzero(counts), int(counts.sum())
    smallest = min(there.tolist(), key=lambda k: counts[k])
    way_out = f"add examples of it, or change data.{name}_fraction"
    if 2 * len(there) > total:
        way_out = f"there are {len(there):,} classes of {total:,} examples, so check the labels"
    return (
        f"class {labels[smallest]!r} has {counts[smallest]:,} examples left, too few to give {fraction:.0%} of "
        f"{total:,} to {name!r} with every class in it; {way_out}"
    )


def _coder(config: Any, raw: RawData, train: np.ndarray, tokenizer: str | None) -> Coder | None:
    """Make the tokenizer from the training part alone, where there are texts; else None."""
    if not isinstance(raw.train, LabelledTexts):
        return None
    if tokenizer is not None:
        return Coder(tokenizer)
    rejected = [raw.train.rejected[n] for n in train] if raw.train.rejected else []
    texts, is_language = [*(raw.train.texts[n] for n in train), *rejected], INPUT_KINDS[config.kind].continues
    return make_coder(texts, config.tokenizer, config.max_length, of_language=is_language)


def _look(kind: str, raw: RawData, parts: Mapping[str, np.ndarray], coder: Coder | None) -> DataLook:
    sources = {"validation": raw.validation or raw.train, "test": raw.test or raw.train}
    roles = ("train", "reference", "validation", "test")
    all_parts = [Part(role, sources.get(role, raw.train), parts[role]) for role in roles]
    look = look_at(all_parts, raw.labels, coder, raw.unlabelled)
    return look if kind != "lm" else look.model_copy(update={"counts": _tokens_of(all_parts, coder)})


def _tokens_of(parts: Sequence[Part], coder: Coder | None) -> dict[str, tuple[int, ...]]:
    """Number of answers' tokens of each id, by split."""
    assert coder is not None
    counts = {}
    for part in parts:
        ids = part.examples.inputs(part.places, coder.encode)
        assert isinstance(ids, Tensor)
        found = ids[:, 1:][answered(ids)].numpy()
        counts[part.role] = tuple(np.bincount(found, minlength=coder.vocab_size).tolist())
    return counts


def _joined(train: ImageSplit, unlabelled: np.ndarray | StoredImages) -> ImageSplit:
    """Append the images without labels to the training images."""
    images = unlabelled if isinstance(unlabelled, StoredImages) else torch.from_numpy(unlabelled)
    ids = np.array([f"unlabelled/{number}" for number in range(len(unlabelled))])
    return train.joined(images, torch.full((len(unlabelled),), UNLABELLED), ids)


def _bytes_of(images: np.ndarray | StoredImages) -> Any:
    """Return bytes that determine the images."""
    return np.ascontiguousarray(images.digests() if isinstance(images, StoredImages) else images).data


def _take(examples: Examples, index: np.ndarray, coder: Coder | None, role: str, file: str) -> ImageSplit:
    """Take chosen examples of a file; those without a name are called by the file's and their place in it."""
    inputs = examples.inputs(index, None if coder is None else coder.encode)
    names = examples.names
    ids = np.array([names[at] if names else f"{file}/{at}" for at in index])
    return ImageSplit(inputs, torch.from_numpy(examples.targets[index]), role, ids)


def _task(config: Any, raw: RawData, train: ImageSplit, coder: Coder | None) -> Task:
    if coder is not None:  # each kind's fields come from elsewhere: its tokenizer, or the training pixels
        return Task(
            kind=config.kind,
            labels=token_labels(coder.tokens) if config.kind == "lm" else raw.labels,
            input_shape=(coder.length,),
            vocab_size=coder.vocab_size,
            tokenizer_sha256=coder.sha256,
        )
    mean, std = _pixel_statistics(train.images)
    channels, height, width = (int(n) for n in train.images.shape[1:])
    resize = getattr(config, "resize", None)  # of kinds of data that are photographs
    return Task(labels=raw.labels, input_shape=(channels, height, width), mean=mean, std=std, resize=resize)


def _pixel_statistics(images: Tensor | StoredImages) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of pixels in [0, 1]; a constant channel gets std 1."""
    if isinstance(images, StoredImages):
        return _stored_statistics(images)
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    means, stds = [], []
    for channel in range(images.shape[1]):
        pixels = images[:, channel].double() / scale
        std = float(pixels.std(correction=0))
        means.append(round(float(pixels.mean()), 6))
        stds.append(round(std, 6) if std > 1e-3 else 1.0)
    return tuple(means), tuple(stds)


def _stored_statistics(images: StoredImages) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation from exact sums over the bytes, a few images at a time."""
    channels = images.shape[1]
    sums, squares = torch.zeros(channels, dtype=torch.int64), torch.zeros(channels, dtype=torch.int64)
    values = torch.arange(256)
    for index in torch.split(torch.arange(len(images)), _AT_ONCE):
        part = images[index]
        for channel in range(channels):
            counts = torch.bincount(part[:, channel].reshape(-1), minlength=256)
            sums[channel] += (counts * values).sum()
            squares[channel] += (counts * values**2).sum()
    count = len(images) * images.shape[2] * images.shape[3]
    means = [float(total) / count / 255 for total in sums]
    stds = [max(float(s) / count / 255**2 - m**2, 0.0) ** 0.5 for s, m in zip(squares, means, strict=True)]
    return tuple(round(m, 6) for m in means), tuple(round(s, 6) if s > 1e-3 else 1.0 for s in stds)


def _digest(index: np.ndarray, examples: Examples, taken: ImageSplit | None = None) -> str:
    """SHA-256 of the indices, the targets and the examples; `taken` has the inputs if they were chosen already."""
    inputs = None if taken is None or isinstance(taken.images, StoredImages) else taken.images.numpy()
    found = hashlib.sha256(index.astype("<i8").tobytes())
    found.update(examples.targets[index].astype("<i8").tobytes())
    for content in examples.contents(index, inputs):
        found.update(content)
    return found.hexdigest()
