"""Data in parquet files, of Hugging Face's library, of a user's function, and given from Python."""

import io

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from edgestill.flows.given import config_with
from edgestill.pipeline.data.datasets import (
    HuggingFaceConfig,
    LabelledTexts,
    ParquetConfig,
    PythonDataConfig,
    StoredConfig,
)
from edgestill.pipeline.data.datasets.huggingface import load_huggingface
from edgestill.pipeline.data.datasets.parquet import load_parquet
from edgestill.pipeline.data.datasets.python import load_python
from edgestill.pipeline.data.datasets.stored import keep, load_stored
from edgestill.pipeline.data.given import given_parts, picture_of
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.errors import DataError

PICTURES = np.random.default_rng(0).integers(0, 256, (24, 8, 6, 3), np.uint8)
NUMBERS = [n % 2 for n in range(24)]
NAMES = ["dog", "cat"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path / "cache"))


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def of_datasets(labels=NUMBERS):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_dict({"image": [Image.fromarray(p) for p in PICTURES], "label": labels}, features)


def in_order(images):
    """All pictures of a data set as they were made, [N, H, W, C]."""
    return images[torch.arange(len(images))].permute(0, 2, 3, 1).numpy()


class Mine(torch.utils.data.Dataset):
    classes = NAMES

    def __len__(self):
        return 24

    def __getitem__(self, at):
        return torch.from_numpy(PICTURES[at]).permute(2, 0, 1) / 255, NUMBERS[at]


def test_parquet_of_hugging_face_brings_its_class_names(tmp_path):
    of_datasets().to_parquet(str(tmp_path / "rows.parquet"))
    raw = load_parquet(ParquetConfig(path=tmp_path / "rows.parquet"))
    assert raw.labels == ("dog", "cat")
    assert raw.train.targets.tolist() == NUMBERS
    assert raw.train.names[3] == "rows.parquet:3"
    assert np.array_equal(in_order(raw.train.images), PICTURES)


def test_parquet_of_bytes_and_of_paths_in_parts(tmp_path):
    from pyarrow import Table, parquet

    given = {"image": [png(p) for p in PICTURES], "label": [NAMES[n] for n in NUMBERS]}
    parquet.write_table(Table.from_pydict(given), tmp_path / "train-00000-of-00001.parquet")
    for n, pixels in enumerate(PICTURES[:4]):
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
    paths = {"image": [f"{n}.png" for n in range(4)], "label": ["cat"] * 4}
    parquet.write_table(Table.from_pydict(paths), tmp_path / "test.parquet")
    raw = load_parquet(ParquetConfig(path=tmp_path))
    assert raw.labels == ("cat", "dog")
    assert np.array_equal(in_order(raw.train.images), PICTURES)
    assert np.array_equal(in_order(raw.test.images), PICTURES[:4])
    parquet.write_table(Table.from_pydict(paths | {"image": ["../x.png"] * 4}), tmp_path / "test.parquet")
    with pytest.raises(DataError, match="leads out of"):
        load_parquet(ParquetConfig(path=tmp_path))
    with pytest.raises(DataError, match=r"has no column 'picture'; known: image, label; data\.image_column"):
        load_parquet(ParquetConfig(path=tmp_path, image_column="picture"))
    (tmp_path / "test.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="no parquet file that can be read"):
        load_parquet(ParquetConfig(path=tmp_path))


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("label", [{"name": "cat"}] * 24, r"row 0: the label \{'name': 'cat'\} is no name and no number"),
        ("label", [float("nan")] * 24, "row 0: the label is nan"),
        ("image", [[1, 2]] * 24, "the column of pictures holds a list; bytes of picture files"),
        ("image", ["iVBORw0KGgo" * 500] * 24, "of 5,500 characters, is no path; bytes of a picture"),
    ],
)
def test_columns_of_another_kind_are_refused(column, values, said, tmp_path):
    from pyarrow import Table, parquet

    given = {"image": [png(p) for p in PICTURES], "label": [NAMES[n] for n in NUMBERS], "split": ["train"] * 24}
    parquet.write_table(Table.from_pydict(given), tmp_path / "rows.parquet")
    [caution] = load_parquet(ParquetConfig(path=tmp_path / "rows.parquet")).cautions
    assert "its column 'split' is not read" in caution
    parquet.write_table(Table.from_pydict(given | {column: values}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=said):
        load_parquet(ParquetConfig(path=tmp_path / "rows.parquet"))


def test_a_data_set_on_disk_is_read_with_its_splits(tmp_path):
    whole = of_datasets()
    parts = {"train": whole, "validation": whole.select(range(6)), "test": whole.select(range(4)), "extra": whole}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    raw = load_huggingface(HuggingFaceConfig(path=str(tmp_path / "saved")))
    assert raw.labels == ("dog", "cat")
    assert [len(part.targets) for part in (raw.train, raw.validation, raw.test)] == [24, 6, 4]
    assert np.array_equal(in_order(raw.train.images), PICTURES)
    assert raw.cautions == (f"{tmp_path / 'saved'}: the splits extra are left out",)
    with pytest.raises(DataError, match=r"has no column 'lable'; did you mean 'label'"):
        load_huggingface(HuggingFaceConfig(path=str(tmp_path / "saved"), label_column="lable"))


def test_texts_of_a_data_set_are_texts(tmp_path):
    rows = {"review": [f"film {n}" for n in range(40)], "label": [n % 2 for n in range(40)]}
    unlabelled = datasets.Dataset.from_dict({"review": ["film"], "label": [-1]})
    features = datasets.Features(
        {"review": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    parts = {"train": datasets.Dataset.from_dict(rows, features), "test": unlabelled.cast(features)}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    config = HuggingFaceConfig(path=str(tmp_path / "saved"), text_column="review")
    assert config.kind == "text"
    raw = load_huggingface(config)
    assert isinstance(raw.train, LabelledTexts)
    assert raw.labels == ("bad", "good")
    assert raw.test is None
    assert "its test split has no labels" in raw.cautions[0]
    assert load_splits(config, seed=0).task.kind == "text"


def test_an_id_that_cannot_be_fetched_is_one_sentence(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("no network")))
    with pytest.raises(
        DataError, match=r"some/id is no folder here, and cannot be loaded .*ConnectionError: no network"
    ):
        load_huggingface(HuggingFaceConfig(path="some/id"))


MINE = """
import numpy as np

class Mine:
    classes = ["dog", "cat"]

    def __len__(self):
        return 24

    def __getitem__(self, at):
        pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 6, 3), np.uint8)[at]
        return pixels, at % 2

class Random(Mine):
    def __getitem__(self, at):
        return np.random.randint(0, 256, (8, 6, 3)).astype(np.uint8), at % 2

def broken():
    raise RuntimeError("no such disk")

both = lambda: {"train": Mine(), "test": Mine()}
"""


def test_a_function_of_a_file_gives_a_data_set(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    raw = load_python(PythonDataConfig(code=f"{path}:Mine"))
    assert raw.labels == ("dog", "cat")
    assert raw.train.targets.tolist() == NUMBERS
    assert np.array_equal(in_order(raw.train.images), PICTURES)
    assert len(load_python(PythonDataConfig(code=f"{path}:both")).test.targets) == 24
    with pytest.raises(DataError, match="is another picture each time; leave random transforms"):
        load_python(PythonDataConfig(code=f"{path}:Random"))
    with pytest.raises(DataError, match="broken fails: RuntimeError: no such disk"):
        load_python(PythonDataConfig(code=f"{path}:broken"))
    with pytest.raises(DataError, match=r"has no .absent.; .*known: Mine"):
        load_python(PythonDataConfig(code=f"{path}:absent"))
    with pytest.raises(ValueError, match="write module:function or path/to/file"):
        PythonDataConfig(code="mine.py")


# From Python


@pytest.mark.parametrize(
    "value", [Mine(), (PICTURES, np.array(NUMBERS)), (torch.from_numpy(PICTURES).permute(0, 3, 1, 2), NUMBERS)]
)
def test_what_is_given_is_kept_and_read_again(value, tmp_path):
    config = keep(StoredConfig(path=tmp_path, content=""), value)
    raw = load_stored(config)
    assert np.array_equal(in_order(raw.train.images), PICTURES)
    assert raw.train.targets.tolist() == NUMBERS
    assert raw.labels == (("dog", "cat") if isinstance(value, Mine) else ("0", "1"))
    assert keep(StoredConfig(path=tmp_path, content=""), value) == config
    rows = config.path / "images.rows"
    rows.write_bytes(rows.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"no longer in .* call it again with the data"):
        load_stored(config)


def test_other_labels_of_the_same_pictures_are_kept_apart(tmp_path):
    one, other = (
        keep(StoredConfig(path=tmp_path, content=""), (PICTURES, np.array(labels)))
        for labels in (NUMBERS, NUMBERS[::-1])
    )
    assert load_stored(one).train.targets.tolist() == NUMBERS
    assert load_stored(other).train.targets.tolist() == NUMBERS[::-1]


def test_data_take_the_place_of_those_configured():
    config = config_with((Mine(), Mine()), None, None, ["data.size=4", "seed=3"])
    assert (config.data.name, config.data.size, config.seed) == ("stored", 4, 3)
    assert load_splits(config.data, seed=0).sizes["test"] == 24
    again = config_with(Mine(), config, None, [])
    assert again.seed == 3
    found = config_with(of_datasets(), None, None, [])
    assert found.data.name == "huggingface"
    assert load_splits(found.data, seed=0).task.labels == ("dog", "cat")


def test_what_is_no_data_is_refused():
    with pytest.raises(DataError, match="a int is no data; give a torch Dataset"):
        given_parts(3)
    with pytest.raises(DataError, match="24 pictures and 23 labels"):
        given_parts((PICTURES, NUMBERS[:23]))
    with pytest.raises(DataError, match="needs train"):
        given_parts({"test": Mine()})
    with pytest.raises(DataError, match=r"floats from -1 to 1; they must lie in \[0, 1\]: leave normalisation out"):
        picture_of(torch.tensor([[[-1.0, 1.0]]]), 0)
    with pytest.raises(DataError, match="must have 1 or 3 channels"):
        picture_of(np.zeros((5, 5, 7), np.uint8), 0)
