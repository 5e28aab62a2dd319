"""Pictures that were given as Python objects: written once as rows into the cache, so that a run can be resumed."""

import hashlib
import json
from typing import Any, Literal

from pydantic import Field

from edgestill.pipeline.cache import cache_folder
from edgestill.pipeline.data.datasets.base import RawData
from edgestill.pipeline.data.datasets.photos import GIVEN, Part, PhotoConfig, class_names, joined, raw_of
from edgestill.pipeline.data.given import given_parts, labels_of
from edgestill.pipeline.data.rows import Rows, read_rows, rows_of
from edgestill.pipeline.errors import DataError
from edgestill.pipeline.frozen import GivenPath
from edgestill.pipeline.runs.checkpoint import write_atomic

_LABELS = "labels.json"


class StoredConfig(PhotoConfig):
    """Pictures that edgestill.compress(data=…) was given."""

    name: Literal["stored"] = "stored"
    path: GivenPath = Field(description="folder of rows that edgestill.compress(data=…) has written")
    content: str = Field(description="digest of the labels and the pictures there")


def unwritten() -> dict[str, str]:
    """Return settings for pictures that `keep` is still to write."""
    return {"name": "stored", "path": str(cache_folder() / GIVEN), "content": ""}


def keep(config: StoredConfig, value: Any) -> StoredConfig:
    """Write what was given as rows, and return the configuration that reads them.

    Raises:
        DataError: it is no data, gives other pictures each time, or cannot be written.
    """
    given = given_parts(value)
    names = given["train"].labels
    parts = {
        part: Part([f"{part}:{at}" for at in range(len(each))], labels_of(each, names), each.pixels)
        for part, each in given.items()
    }
    labels = {"names": names, "parts": {part: list(each.labels) for part, each in parts.items()}}
    written = json.dumps(labels, sort_keys=True).encode()
    found = hashlib.sha256(written)
    for each in given.values():
        each.require_steady()
        for pixels in each.pixels():
            found.update(f"{pixels.shape}".encode() + pixels.tobytes())
    rows = rows_of(joined(parts, found.hexdigest()), config.fit, folder=cache_folder() / GIVEN)
    write_atomic(rows.folder / _LABELS, written)
    content = _content(written, rows)
    return config.model_copy(update={"path": rows.folder, "content": content})


def load_stored(config: StoredConfig) -> RawData:
    """Read the rows and their labels.

    Raises:
        DataError: they are gone or damaged.
    """
    rows, path = read_rows(config.path), config.path / _LABELS
    written = path.read_bytes() if path.is_file() else b""
    if rows is None or _content(written, rows) != config.content:
        raise DataError(
            f"the pictures that edgestill.compress(data=…) was given are no longer in {config.path}, or were altered; "
            "call it again with the data"
        )
    facts = json.loads(written)
    parts = {
        part: Part([f"{part}:{at}" for at in range(len(labels))], labels, lambda: ())
        for part, labels in facts["parts"].items()
    }
    names = class_names(config.labels or facts["names"], parts["train"].labels, "the data given")
    return raw_of(config, "the data given", parts, rows, names)


def _content(labels: bytes, rows: Rows) -> str:
    return hashlib.sha256(labels + rows.images.digests().tobytes()).hexdigest()
