"""The table of data sets: each has a file of its own and a line here, or is of another package."""

from collections.abc import Callable
from typing import Any

from edgestill.pipeline.data.datasets.base import DatasetConfig, LabelledImages, LabelledTexts, RawData
from edgestill.pipeline.data.datasets.cifar import CifarConfig, load_cifar
from edgestill.pipeline.data.datasets.csv import CsvConfig, load_csv
from edgestill.pipeline.data.datasets.digits import DigitsConfig, load_digits
from edgestill.pipeline.data.datasets.folder import FolderConfig, load_folder
from edgestill.pipeline.data.datasets.huggingface import HuggingFaceConfig, load_huggingface
from edgestill.pipeline.data.datasets.language import PromptsConfig, load_prompts
from edgestill.pipeline.data.datasets.npz import NpzConfig, load_npz
from edgestill.pipeline.data.datasets.parquet import ParquetConfig, load_parquet
from edgestill.pipeline.data.datasets.python import PythonDataConfig, load_python
from edgestill.pipeline.data.datasets.stored import StoredConfig, load_stored
from edgestill.pipeline.data.datasets.strings import StringsConfig, load_strings
from edgestill.pipeline.data.datasets.text import TextConfig, load_text
from edgestill.pipeline.plugins import Table, require_config, require_pair

Line = tuple[type[Any], Callable[[Any], RawData]]


def _line(name: str, found: Any) -> Line:
    config, load = require_pair(found, "function of that configuration")
    require_config(config, name, DatasetConfig, is_complete=False)
    return config, load


DATASETS: Table[Line] = Table("datasets", _line, {
    "digits": (DigitsConfig, load_digits),
    "npz": (NpzConfig, load_npz),
    "cifar": (CifarConfig, load_cifar),
    "text": (TextConfig, load_text),
    "folder": (FolderConfig, load_folder),
    "csv": (CsvConfig, load_csv),
    "parquet": (ParquetConfig, load_parquet),
    "huggingface": (HuggingFaceConfig, load_huggingface),
    "python": (PythonDataConfig, load_python),
    "stored": (StoredConfig, load_stored),
    "strings": (StringsConfig, load_strings),
    "prompts": (PromptsConfig, load_prompts),
})  # fmt: skip

__all__ = [
    "DATASETS",
    "CifarConfig",
    "CsvConfig",
    "DigitsConfig",
    "FolderConfig",
    "HuggingFaceConfig",
    "LabelledImages",
    "LabelledTexts",
    "NpzConfig",
    "ParquetConfig",
    "PythonDataConfig",
    "RawData",
    "StoredConfig",
    "TextConfig",
]
