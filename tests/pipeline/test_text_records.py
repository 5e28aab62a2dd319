"""Texts in parquet and jsonl: the same examples as in a table of cells, and one sentence for an unusable file."""

import json

import datasets
import pytest

from edgestill.flows.config.looking import data_for
from edgestill.pipeline.data.datasets import TextConfig
from edgestill.pipeline.data.datasets.text import load_text
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.errors import DataError

ROWS = [{"id": n, "review": f"a {('dull', 'fine')[n % 2]} film, {n}", "stars": n % 2} for n in range(60)]
COLUMNS = {"text_column": "review", "label_column": "stars"}


def write(path, rows=ROWS, names=None):
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
        return path
    found = datasets.Dataset.from_list(rows)
    if names is not None:
        found = found.cast_column("stars", datasets.ClassLabel(names=names))
    found.to_parquet(str(path))
    return path


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "rows.tsv"
    lines = [f"{row['id']}\t{row['review']}\t{row['stars']}" for row in ROWS]
    path.write_text("\n".join(["id\treview\tstars", *lines]) + "\n")
    return TextConfig(path=path, **COLUMNS)


@pytest.mark.parametrize("ending", [".parquet", ".jsonl"])
def test_the_examples_are_those_of_a_table_of_cells(ending, table, tmp_path):
    config = TextConfig(path=write(tmp_path / f"rows{ending}"), **COLUMNS)
    one, other = (load_splits(each, 0, looking=True) for each in (table, config))
    assert one.digests == other.digests
    assert one.task == other.task
    assert one.look == other.look
    assert data_for(str(config.path)) == {"name": "text", "path": str(config.path), **COLUMNS}
    write(config.path, [{**row, "vector": [0.1, 0.2], "about": {"page": 3}} for row in ROWS])
    assert data_for(str(config.path)) == {"name": "text", "path": str(config.path), **COLUMNS}


def test_class_names_in_parquet_are_the_labels_in_their_order(tmp_path):
    path = write(tmp_path / "rows.parquet", names=["good", "bad"])
    raw = load_text(TextConfig(path=path, **COLUMNS))
    assert raw.labels == ("good", "bad")
    assert raw.train.targets.tolist() == [row["stars"] for row in ROWS]
    assert load_text(TextConfig(path=path, labels=("bad", "good"), **COLUMNS)).train.targets[:2].tolist() == [1, 0]
    with pytest.raises(DataError, match="no text has the label 'none' of the classes that the file names"):
        load_text(TextConfig(path=write(path, names=["good", "bad", "none"]), **COLUMNS))


def test_a_folder_has_a_part_a_file_or_in_numbered_ones(tmp_path):
    for n in range(2):
        write(tmp_path / f"train-0000{n}-of-00002.parquet", ROWS[30 * n : 30 * (n + 1)])
    write(tmp_path / "validation.jsonl", ROWS[:10])
    found = data_for(str(tmp_path))
    assert found == {"name": "text", "path": str(tmp_path), "validation": "validation", "test": None, **COLUMNS}
    raw = load_text(TextConfig.model_validate(found))
    assert [text.partition(", ")[2] for text in raw.train.texts] == [str(n) for n in range(60)]
    assert len(raw.validation.texts) == 10
    with pytest.raises(DataError, match=r"no test\.tsv, .* or test\.jsonl in .*; name the file in data\.test, or null"):
        load_text(TextConfig.model_validate({**found, "test": "test"}))


@pytest.mark.parametrize(("ending", "place"), [(".parquet", "row 1"), (".jsonl", "line 2")])
def test_rows_that_lack_something_are_refused_by_their_place_or_dropped_and_counted(ending, place, tmp_path):
    path = write(tmp_path / f"rows{ending}", [ROWS[0], {**ROWS[1], "review": None}, *ROWS[2:]])
    with pytest.raises(DataError, match=f"{place}: column 'review' is empty\nfill these cells"):
        load_text(TextConfig(path=path, **COLUMNS))
    raw = load_text(TextConfig(path=path, empty="drop", **COLUMNS))
    assert (len(raw.train.texts), raw.dropped) == (59, 1)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"review": "x", "stars"', r"line 61 is no JSON object \(Expecting"),
        ('["x", 1]', 'line 61 is no JSON object, such as {"sentence"'),
        ('{"review": "x", "review": "y", "stars": 1}', "line 61 is no JSON object .*stands in it twice"),
        ("[" * 100_000, r"line 61 is no JSON object \("),
        ('{"review": ["x"], "stars": 1}', "line 61: column 'review' holds a value of type list; text is needed"),
        ('{"review": "\\ud800", "stars": 1}', "line 61: column 'review' holds half a character"),
        ('{"review": "x", "stars": NaN}', "line 61: column 'stars' is nan"),
        ("1" * 5000, "line 61 is no JSON object"),
    ],
)
def test_a_line_that_cannot_be_used_is_told_by_its_number(line, sentence, tmp_path):
    path = write(tmp_path / "rows.jsonl")
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=sentence):
        load_text(TextConfig(path=path, **COLUMNS))


def test_files_that_cannot_be_used_are_one_sentence_each(tmp_path):
    path = write(tmp_path / "rows.parquet", names=["a", "b"])
    for settings, sentence in (
        ({"text_column": "text"}, r"no column 'text'; .*known: id, review, stars; name one in data\.text_column"),
        ({"columns": ("a", "b")}, r"names its columns itself; set data\.columns to null"),
        ({"delimiter": ";"}, r"names its columns itself; set data\.delimiter to null"),
    ):
        with pytest.raises(DataError, match=sentence):
            load_text(TextConfig(path=path, **{**COLUMNS, **settings}))
    write(path, [{**ROWS[0], "stars": -1}, *ROWS[1:]], names=["a", "b"])
    with pytest.raises(DataError, match=r"row 0: column 'stars' is -1, none of the 2 classes that the file names"):
        load_text(TextConfig(path=path, **COLUMNS))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="no parquet file that can be read"):
        load_text(TextConfig(path=path, **COLUMNS))
    for empty in (write(path, ROWS[:1]), write(tmp_path / "no.jsonl", [])):
        with pytest.raises(DataError, match=r"every label in column 'stars' is '0'|has no column 'review'"):
            load_text(TextConfig(path=empty, **COLUMNS))


def test_pictures_in_parquet_are_no_texts(tmp_path):
    path = tmp_path / "pictures.parquet"
    datasets.Dataset.from_list([{"image": b"png", "label": n} for n in range(4)]).to_parquet(str(path))
    assert data_for(str(path)) == {"name": "parquet", "path": str(path)}
    path.rename(tmp_path / "train-00000-of-00001.parquet")
    assert data_for(str(tmp_path)) == {"name": "parquet", "path": str(tmp_path)}
    (tmp_path / "train-00000-of-00001.parquet").rename(path)
    with pytest.raises(DataError, match="row 0: column 'image' holds a value of type bytes; text is needed"):
        load_text(TextConfig(path=path, text_column="image"))


def test_a_row_too_large_for_the_memory_is_refused_before_it_is_expanded(tmp_path, monkeypatch):
    """One long value in a dictionary makes a small file, and large rows."""
    path = write(tmp_path / "rows.parquet", [{**row, "review": "x" * 10_000} for row in ROWS])
    assert path.stat().st_size < 20_000
    monkeypatch.setattr("edgestill.pipeline.free_memory.available_bytes", lambda: 2**20)
    with pytest.raises(DataError, match=r"60 rows of 6.*needs 0\.0 GB of memory"):
        load_text(TextConfig(path=path, **COLUMNS))
