"""Data sets of Hugging Face's library `datasets`: a folder on disk, or an id of the hub; no remote code is run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from edgestill.pipeline.cache import cache_folder
from edgestill.pipeline.data.datasets.base import LabelledTexts, RawData
from edgestill.pipeline.data.datasets.given import part_of
from edgestill.pipeline.data.datasets.photos import (
    GIVEN,
    Part,
    PhotoConfig,
    as_labels,
    class_names,
    load_photos,
    source_of,
)
from edgestill.pipeline.data.rows import Source, files_content
from edgestill.pipeline.data.tokens import TokenizerConfig
from edgestill.pipeline.errors import DataError, MissingDependencyError, first_line, nearest
from edgestill.pipeline.frozen import digest

_ID = "hf:"  # before an id that a person gives to `edgestill init`
_SAVED = ("dataset_dict.json", "state.json")  # files of save_to_disk


_BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}  # of load_dataset, by a file's ending


class _KindByColumn:
    """Kind of input: text if a column of texts is named, else images."""

    def __get__(self, config: "HuggingFaceConfig | None", owner: type) -> str:
        return "image" if config is None or config.text_column is None else "text"


class HuggingFaceConfig(PhotoConfig):
    """A data set of Hugging Face's library, by its folder or its id."""

    kind: ClassVar[Any] = _KindByColumn()

    names_places: ClassVar[tuple[str, ...]] = ("path",)

    name: Literal["huggingface"] = "huggingface"
    path: str = Field(
        description="folder that save_to_disk wrote, or that load_dataset reads; a parquet or jsonl file; or an id of "
        "the hub"
    )
    subset: str | None = Field(None, description="name of the data set's configuration, such as sst2 of glue")
    revision: str | None = Field(None, description="commit or tag of an id of the hub; null takes the newest")
    image_column: str | None = Field(None, description="column of pictures; null takes the only one")
    text_column: str | None = Field(None, description="column of texts to classify; null classifies pictures")
    label_column: str | None = Field(
        None, description="column of labels; null takes the only column of class labels, or label"
    )
    max_length: int = Field(64, ge=1, le=4096, description="maximum length of a text in tokens; longer texts are cut")
    tokenizer: TokenizerConfig = TokenizerConfig()

    @classmethod
    def settings_for(cls, given: str) -> dict[str, Any] | None:
        if given.startswith(_ID):
            return {"path": given.removeprefix(_ID)}
        folder = Path(given).expanduser()
        return {"path": given} if any((folder / name).is_file() for name in _SAVED) else None

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str, info: ValidationInfo) -> str:
        place = Path(path).expanduser()
        return str(place.absolute()) if (info.context or {}).get("check_files") and place.exists() else path

    @model_validator(mode="after")
    def _no_crops_of_text(self) -> Self:
        if self.text_column is not None and self.augment.is_random:
            raise ValueError("data.augment is of images and does nothing to text; leave it out")
        return self

    @property
    def hub_id(self) -> str | None:
        is_id = not Path(self.path).expanduser().exists() and not Path(self.path).is_absolute()
        return self.path if is_id and Path(self.path).suffix not in _BUILDERS else None

    @property
    def has_own_tokenizer(self) -> bool:
        return self.tokenizer != TokenizerConfig()

    def with_tokenizer(self, path: Path) -> Self:
        return self.model_copy(update={"tokenizer": TokenizerConfig(file=path)})


def load_huggingface(config: HuggingFaceConfig) -> RawData:
    """Read the splits train, validation and test, as far as there are any.

    Raises:
        DataError: the data set cannot be read, columns are missing, or labels are.
    """
    splits, cautions = _splits(config)
    features = splits["train"].features
    label = config.label_column or _only(config, features, "ClassLabel", "label")
    if label not in features:
        raise DataError(f"{config.path} has no column {label!r}; {nearest(label, features)}; set data.label_column")
    names = getattr(features[label], "names", None)
    for part in [part for part in splits if part != "train" and names and set(splits[part][label]) == {-1}]:
        cautions.append(f"{config.path}: its {part} split has no labels and is left out")
        del splits[part]
    labels = {part: as_labels(found[label], names, f"{config.path}, {part}") for part, found in splits.items()}
    if config.text_column is not None:
        return _texts(config, splits, labels, names, cautions)
    image = config.image_column or _only(config, features, "Image", "image")
    folder = Path(config.path).expanduser()
    root = folder if folder.is_dir() else None  # an id's files lie in the library's cache
    parts = {
        part: Part([f"{part}:{row}" for row in range(len(found))], labels[part], _reader(found, image, root))
        for part, found in splits.items()
    }
    return load_photos(config, config.path, parts, digest(_content(splits), image), names, cautions)


def is_of_datasets(data: Any) -> bool:
    """True for a Dataset or DatasetDict of Hugging Face's library."""
    return type(data).__module__.partition(".")[0] == "datasets" and hasattr(data, "save_to_disk")


def save(data: Any) -> dict[str, str]:
    """Save a data set that `is_of_datasets` in the cache, and return the settings that read it.

    Raises:
        DataError: it has no column of pictures, and not one column of texts.
    """
    parts = list(data.values()) if isinstance(data, Mapping) else [data]
    folder = cache_folder() / GIVEN / digest([part._fingerprint for part in parts])[:32]
    if not any((folder / name).is_file() for name in _SAVED):
        with _silent():
            data.save_to_disk(str(folder))
    features = parts[0].features
    if any(type(feature).__name__ == "Image" for feature in features.values()):
        return {"name": "huggingface", "path": str(folder)}
    texts = [name for name, each in features.items() if getattr(each, "dtype", None) in ("string", "large_string")]
    texts = [name for name in texts if name not in ("label", "labels")]
    if len(texts) != 1:
        raise DataError(
            f"the data set has the columns {', '.join(features)}: one of pictures (datasets.Image) or one of texts is "
            "needed; leave others out with select_columns"
        )
    return {"name": "huggingface", "path": str(folder), "text_column": texts[0]}


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the library from drawing bars over our own progress."""
    import datasets

    was_silent = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not was_silent:
            datasets.enable_progress_bars()


def _splits(config: HuggingFaceConfig) -> tuple[dict[str, Any], list[str]]:
    """Return the splits by part, and cautions about others."""
    loaded = _loaded(config)
    if not isinstance(loaded, Mapping):
        return {"train": loaded}, []
    found = {part: loaded[split] for split in loaded if (part := part_of(split)) is not None}
    if "train" not in found:
        raise DataError(f"{config.path} has the splits {', '.join(loaded)}, and none is called train")
    others = [split for split in loaded if part_of(split) is None]
    said = [f"{config.path}: the splits {', '.join(others)} are left out"] if others else []
    return {part: found[part] for part in ("train", "validation", "test") if part in found}, said


def _loaded(config: HuggingFaceConfig) -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingDependencyError("data.name: huggingface needs `pip install 'edgestill[datasets]'`") from None
    folder = Path(config.path).expanduser()
    try:
        with _silent():
            if any((folder / name).is_file() for name in _SAVED):
                return datasets.load_from_disk(str(folder))
            if folder.is_file():
                builder = _BUILDERS.get(folder.suffix, folder.suffix)
                return datasets.load_dataset(builder, data_files=str(folder))
            where = str(folder) if folder.is_dir() else config.path
            return datasets.load_dataset(where, config.subset, revision=config.revision)
    except Exception as error:  # of any type, from any of the libraries below
        raise DataError(
            f"{config.path} is no folder here, and cannot be loaded as a data set of the hub "
            f"({type(error).__name__}: {first_line(error)})"
            if not folder.exists()
            else f"{config.path} cannot be read by `datasets` ({type(error).__name__}: {first_line(error)})"
        ) from None


def _only(config: HuggingFaceConfig, features: Mapping[str, Any], kind: str, otherwise: str) -> str:
    """Return the only column whose feature is of a class of this name, or else a usual name."""
    found = [name for name, feature in features.items() if type(feature).__name__ == kind]
    if len(found) == 1:
        return found[0]
    if otherwise in (found or features):
        return otherwise
    key = {"Image": "image_column (or text_column, for texts)", "ClassLabel": "label_column"}[kind]
    raise DataError(f"{config.path} has the columns {', '.join(features)}; name one in data.{key}")


def _content(splits: Mapping[str, Any]) -> str:
    """Digest of the files that the splits lie in, and of the rows that they take from them."""
    files = [Path(file["filename"]) for found in splits.values() for file in found.cache_files]
    return digest(
        [found._fingerprint for found in splits.values()], files_content(Path("/"), files, list(map(str, files)))
    )


def _reader(found: Any, column: str, root: Path | None) -> Callable[[], Iterator[Source]]:
    import datasets

    def read() -> Iterator[Source]:
        kept = found.select_columns([column])
        if type(kept.features[column]).__name__ == "Image":
            kept = kept.cast_column(column, datasets.Image(decode=False))
        for row in kept:
            yield source_of(row[column], root)

    return read


def _texts(
    config: HuggingFaceConfig,
    splits: Mapping[str, Any],
    labels: Mapping[str, list[str]],
    names: list[str] | None,
    cautions: list[str],
) -> RawData:
    column = str(config.text_column)
    known = splits["train"].features
    if column not in known:
        raise DataError(f"{config.path} has no column {column!r}; {nearest(column, known)}; set data.text_column")
    classes = class_names(config.labels or names, labels["train"], config.path)
    numbers = {label: number for number, label in enumerate(classes)}
    parts = {}
    for part, found in splits.items():
        texts = [text or "" for text in found[column]]
        empty = [row for row, text in enumerate(texts) if not text.strip()]
        if empty:
            raise DataError(f"{config.path}, {part}, row {empty[0]}: the text is empty; filter such rows out")
        unknown = sorted(set(labels[part]) - set(classes))
        if unknown:
            raise DataError(f"{config.path}, {part}: label {unknown[0]!r} is no class; {nearest(unknown[0], classes)}")
        targets = np.array([numbers[label] for label in labels[part]], np.int64)
        parts[part] = LabelledTexts(tuple(texts), targets)
    return RawData(
        parts["train"], parts.get("test"), classes, parts.get("validation"),
        test_fraction=config.test_fraction, cautions=tuple(cautions),
    )  # fmt: skip
