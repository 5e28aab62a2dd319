"""The page and the table of what to label, and labels read back from a table."""

import csv
import dataclasses
import io
import re

import numpy as np
import pytest
import torch

from edgestill.distill.drivers.active import Questions
from edgestill.flows.labelling.page import label_page, label_table
from edgestill.flows.labelling.table import read_labels
from edgestill.pipeline.conformance.samples import image_task, splits, text_task
from edgestill.pipeline.errors import DataError

LABELS = ("class 0", "class 1", "class 2")


def questions(task, **changes):
    data = splits(task, train=6)
    train = dataclasses.replace(data.train, ids=np.array(["a/1.png", 'b"<x>,2', "c", "d", "e", "f"]))
    asked = Questions(2, train.select(torch.arange(3)), {"c": 1, "e": 0}, frozenset({"e"}), frozenset(train.ids[:5]))
    return asked._replace(**changes), data


def test_the_table_has_a_row_an_example_and_the_labels_that_are_known():
    rows = list(csv.reader(io.StringIO(label_table(*questions(image_task())))))
    assert rows == [["id", "label"], ["a/1.png", ""], ['b"<x>,2', ""], ["c", "class 1"]]


def test_the_table_of_texts_shows_them():
    asked, data = questions(text_task())
    data = dataclasses.replace(data, coder=type("Coder", (), {"decode": staticmethod(lambda ids: f"{len(ids)} words")}))
    rows = list(csv.reader(io.StringIO(label_table(asked, data))))
    assert rows[0] == ["id", "label", "text"]
    assert re.fullmatch(r"\d+ words", rows[1][2])
    assert rows[1][2] in label_page(asked, data, "run", "round_2.csv")


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@x", "'=1", "'x", "x"])
def test_a_spreadsheet_computes_no_cell_and_names_are_read_back(name, tmp_path):
    asked, data = questions(text_task())
    split = dataclasses.replace(asked.split, ids=np.array([name, "b", "c"]))
    asked = asked._replace(split=split, known=frozenset({name, "b", "c"}))
    data = dataclasses.replace(data, coder=type("Coder", (), {"decode": staticmethod(lambda ids: "\t=1+1")}))
    rows = list(csv.reader(io.StringIO(label_table(asked, data))))
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t"))]
    for written in (rows[1][0], name):  # the table, and what the page's button saves
        out = io.StringIO()
        csv.writer(out).writerows([("id", "label"), (written, "class 1")])
        (tmp_path / "labels.csv").write_text(out.getvalue(), encoding="utf-8")
        assert read_labels(tmp_path / "labels.csv", asked, LABELS) == {name: 1}


def test_the_page_stands_alone_and_escapes_names():
    page = label_page(*questions(image_task()), title="run <1>", file="round_2.csv")
    assert page.count("data:image/png;base64,") == 3
    assert "<x>" not in page
    assert "run &lt;1&gt;" in page
    assert page.count("<select ") == 3
    assert page.count('" selected>') == 1
    assert not re.search(r"(src|href)=\"?(http|//)", page)


def read(tmp_path, text, **changes):
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return read_labels(path, questions(image_task(), **changes)[0], LABELS)


def test_labels_are_read_by_name_and_empty_ones_are_left_for_later(tmp_path):
    text = 'id,label,text\na/1.png,class 2,x\n"b""<x>,2",?,\nc,,\nd,class 0,\n'
    assert read(tmp_path, text) == {"a/1.png": 2, 'b"<x>,2': None, "d": 0}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("id,label\nc,clas 1\n", "line 2: no class is called 'clas 1'; did you mean 'class 1'"),
        ("id,label\nnobody,class 1\n", "line 2: there is no example 'nobody' without a label"),
        ("id,label\nf,class 1\n", "line 2: there is no example 'f' without a label"),
        ("id,label\nc,class 1\nc,class 2\n", "line 3: 'c' is 'class 2' here and 'class 1' in line 2"),
        ("id,label\ne,class 1\n", "'e' was labelled 'class 0' in an earlier round"),
        ("name,class\nc,class 1\n", "needs a column id and a column label, and its first line is 'name, class'"),
        ("", "needs a column id and a column label"),
        ("id,label\nc\n", "line 2: 1 cells for 2 columns"),
        ("id,label\nc,\n", "has no label filled in"),
    ],
)
def test_a_wrong_label_is_told_in_a_sentence(tmp_path, text, sentence):
    with pytest.raises(DataError) as refused:
        read(tmp_path, text)
    assert sentence in str(refused.value)


def test_a_label_that_was_learnt_may_be_repeated_and_all_problems_are_told_at_once(tmp_path):
    assert read(tmp_path, "id,label\ne,class 0\n") == {"e": 0}
    with pytest.raises(DataError) as refused:
        read(tmp_path, "id,label\nx,class 0\ny,class 0\nc,none\n")
    assert len(refused.value.args) == 3
    with pytest.raises(DataError, match="no file at"):
        read_labels(tmp_path / "none.csv", questions(image_task())[0], LABELS)
