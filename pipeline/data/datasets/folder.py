"""A folder of pictures, a folder a class; or the YAML file of the field that names such folders."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationInfo, field_validator

from edgestill.pipeline.data.datasets.base import RawData
from edgestill.pipeline.data.datasets.given import has_folders, is_hidden, part_of
from edgestill.pipeline.data.datasets.photos import Part, PhotoConfig, in_order, load_photos
from edgestill.pipeline.data.decode import ENDINGS, FORMATS
from edgestill.pipeline.data.rows import files_content
from edgestill.pipeline.errors import DataError
from edgestill.pipeline.foreign import MAX_CONFIG_BYTES, read_text_bounded
from edgestill.pipeline.frozen import GivenPath, digest, existing_path

_YAML = (".yaml", ".yml")


class FolderConfig(PhotoConfig):
    """Pictures in folders, a folder a class, in train, val and test folders or all in one."""

    name: Literal["folder"] = "folder"
    path: GivenPath = Field(
        description="folder with a folder a class, or with train, val and test folders of them; or a YAML file with "
        "path, train, val, test and names"
    )
    follow_links: bool = Field(False, description="read links to files and folders outside the data's folder too")

    @classmethod
    def settings_for(cls, given: str) -> dict[str, Any] | None:
        is_saved = any(Path(given).expanduser().glob("*.json"))  # by Hugging Face's library
        return {"path": given} if has_folders(given) and not is_saved else None

    @field_validator("path")
    @classmethod
    def _exists(cls, path: Path, info: ValidationInfo) -> Path:
        return existing_path(path, info)


class _Found(NamedTuple):
    """Files of one part, by class."""

    classes: dict[str, list[Path]]
    others: Counter[str]  # ending -> files that are no pictures


def load_folder(config: FolderConfig) -> RawData:
    """Find the pictures of each class, and decode them.

    Raises:
        DataError: folders are empty, nested, or not of a class; links lead out; or pictures cannot be read.
    """
    root, folders, given = _layout(config.path)
    found = {part: _classes(folder, root, config.follow_links) for part, folder in folders.items()}
    parts = {part: _part(root, classes) for part, (classes, _) in found.items()}
    labels, cautions = _labels(config, found["train"].classes, given)
    if given is not None:
        parts = {part: each._replace(labels=[given.get(n, n) for n in each.labels]) for part, each in parts.items()}
    others = sum((each.others for each in found.values()), Counter[str]())
    if others:
        kinds = ", ".join(f"{count:,} {ending}" for ending, count in others.most_common(5))
        cautions.append(f"{config.path}: files that are no pictures by their endings are left out: {kinds}")
    paths = [path for classes, _ in found.values() for paths in classes.values() for path in paths]
    content = digest(files_content(root, paths, [str(path) for path in paths]))
    return load_photos(config, str(config.path), parts, content, labels, cautions)


def _layout(path: Path) -> tuple[Path, dict[str, Path], dict[str, str] | None]:
    """Return the root, the folder of each part, and the classes' names by their folders' names if a YAML has them."""
    if path.suffix.lower() in _YAML and not path.is_dir():
        return _from_yaml(path)
    if not path.is_dir():
        unpacked = f"; if {path.name} is an archive, unpack it" if path.is_file() else ""
        raise DataError(
            f"no folder at {path}; give one with a folder a class, or a YAML file that names such folders{unpacked}"
        )
    inside = [entry for entry in sorted(path.iterdir()) if entry.is_dir() and not is_hidden(entry.name)]
    parts = {part: entry for entry in inside if (part := part_of(entry.name)) and _has_folders(entry)}
    if not parts:
        return path, {"train": path}, None
    others = [entry.name for entry in inside if entry not in parts.values()]
    if "train" not in parts or others:
        said = f"{', '.join(entry.name for entry in parts.values())} beside {', '.join(others[:5]) or 'no train'}"
        raise DataError(
            f"{path} holds {said}; it should hold a folder a class, or train, val and test folders alone, each with "
            "a folder a class"
        )
    return path, {part: parts[part] for part in ("train", "validation", "test") if part in parts}, None


def _has_folders(folder: Path) -> bool:
    return any(entry.is_dir() for entry in folder.iterdir() if not is_hidden(entry.name))


def _from_yaml(path: Path) -> tuple[Path, dict[str, Path], dict[str, str] | None]:
    from edgestill.pipeline.runs.yaml_text import read_yaml

    given = read_yaml(read_text_bounded(path, MAX_CONFIG_BYTES), str(path))
    if not isinstance(given, dict) or not isinstance(given.get("train"), str):
        raise DataError(f"{path} needs the keys train (a folder of class folders), and perhaps path, val, test, names")
    root = path.parent / Path(str(given.get("path") or ".")).expanduser()
    folders = {}
    for key, value in given.items():
        part = part_of(str(key))
        if part is None or value is None:
            continue
        folders[part] = root / str(value)
        if not folders[part].is_dir():
            raise DataError(f"{path}: {key} names {folders[part]}, which is no folder")
    if not _has_folders(folders["train"]):
        raise DataError(f"{path}: {folders['train']} has no folder a class; lists of boxes are not read here")
    return root, folders, _named(path, given.get("names"), folders["train"])


def _named(path: Path, names: Any, train: Path) -> dict[str, str] | None:
    """Return class names in order, by the name of the class's folder: the name itself, or its number."""
    if names is None:
        return None
    numbered: Mapping[Any, Any] = names if isinstance(names, Mapping) else dict(enumerate(names))
    folders = {entry.name for entry in train.iterdir() if entry.is_dir() and not is_hidden(entry.name)}
    ordered = sorted(numbered.items(), key=lambda item: in_order(str(item[0])))
    for found in ({str(n): str(n) for _, n in ordered}, {str(k): str(n) for k, n in ordered}):
        if set(found) == folders:
            return found
    raise DataError(
        f"{path}: names are {_few([str(n) for _, n in ordered])}, and the folders in {train} {_few(sorted(folders))}; "
        "they must be the same, or the folders' names their numbers"
    )


def _classes(folder: Path, root: Path, follow: bool) -> _Found:
    """Find the files of each class folder; none may be empty, or hold folders."""
    classes: dict[str, list[Path]] = {}
    others: Counter[str] = Counter()
    loose = 0
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if is_hidden(entry.name):
            continue
        _require_inside(Path(entry.path), root, follow)
        if not entry.is_dir():
            loose += Path(entry.name).suffix.lower() in ENDINGS
            continue
        classes[entry.name] = _files(Path(entry.path), root, follow, others)
    if loose:
        raise DataError(f"{folder} has {loose:,} pictures outside class folders; put each into the folder of its class")
    if not classes:
        raise DataError(f"{folder} has no folders; make a folder a class, and put the pictures there")
    return _Found(classes, others)


def _files(folder: Path, root: Path, follow: bool, others: Counter[str]) -> list[Path]:
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if is_hidden(entry.name):
            continue
        path = Path(entry.path)
        if entry.is_symlink():
            _require_inside(path, root, follow)
        if entry.is_dir():
            raise DataError(
                f"{path} is a folder within a class's folder; pictures of a class lie in its folder itself, so move "
                "them up, or give the folder above as data.path"
            )
        if path.suffix.lower() in ENDINGS:
            found.append(path)
        else:
            others[path.suffix.lower() or "without ending"] += 1
    if not found:
        endings = f"; it holds {', '.join(sorted(others))}: convert these" if others else "; add some"
        raise DataError(
            f"{folder}, a class's folder, holds no picture of {', '.join(FORMATS)}{endings}, or remove the folder"
        )
    return found


def _require_inside(path: Path, root: Path, follow: bool) -> None:
    """Refuse a link that leads out of the data's folder."""
    if not follow and path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"{path} is a link that leads out of {root}; put a copy there, or set data.follow_links: true if you "
            "trust it"
        )


def _part(root: Path, classes: Mapping[str, Sequence[Path]]) -> Part:
    paths = [path for found in classes.values() for path in found]
    labels = [name for name, found in classes.items() for _ in found]
    return Part([_below(path, root) for path in paths], labels, lambda: iter(paths))


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _labels(
    config: FolderConfig, classes: Mapping[str, Any], given: Mapping[str, str] | None
) -> tuple[list[str], list[str]]:
    """Return the class names in order, and perhaps a caution about the order.

    The order is that of torchvision's ImageFolder, which most teachers were trained with: by the alphabet, numbers too.
    """
    if given is not None:
        return list(given.values()), []
    names = sorted(classes)
    if config.labels is None and names != sorted(names, key=in_order):
        return names, [
            f"{config.path}: class folders are ordered as torchvision's ImageFolder does, by the alphabet: "
            f"{_few(names)}; data.labels sets another order"
        ]
    return names, []


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
