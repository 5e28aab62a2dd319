"""The page and the table of an open round: what to label."""

import csv
import io
from collections.abc import Iterator

import torch

from edgestill.distill.drivers.active import Questions
from edgestill.distill.methods.base import ExhibitItem
from edgestill.flows.labelling.table import NO_CLASS, inert
from edgestill.flows.report.drawing.page import render
from edgestill.flows.report.methods import png_uri
from edgestill.pipeline.data.splits import Splits


def label_page(questions: Questions, splits: Splits, title: str, file: str) -> str:
    """Render the round as one offline page, with a field for each example's class and a button that saves the table.

    Args:
        file: name of the table that the button saves.
    """
    items = [
        {
            "id": item.caption,
            "text": item.text,
            "image": png_uri(item) if item.pixels else "",
            "label": _answer(questions, splits, item.caption),
        }
        for item in _items(questions, splits)
    ]
    parts = {
        "title": title,
        "round": questions.round,
        "items": items,
        "labels": splits.task.labels,
        "no_class": NO_CLASS,
        "file": file,
    }
    return render("label.html.j2", parts, package="edgestill.flows.labelling")


def label_table(questions: Questions, splits: Splits) -> str:
    """Write the round as a table of id and label, and of the text where there is one; labels known are filled in."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    is_text = splits.coder is not None
    writer.writerow(("id", "label", *(["text"] if is_text else [])))
    for item in _items(questions, splits):
        row = item.caption, _answer(questions, splits, item.caption)
        writer.writerow(map(inert, (*row, *([item.text] if is_text else []))))
    return out.getvalue()


def _items(questions: Questions, splits: Splits) -> Iterator[ExhibitItem]:
    split, decode = questions.split, None if splits.coder is None else splits.coder.decode
    assert split.ids is not None
    for at, name in enumerate(split.ids):
        example = split.batch(torch.tensor([at])).inputs[0]
        yield ExhibitItem(caption=str(name), **splits.task.inputs.shown(example, decode)._asdict())


def _answer(questions: Questions, splits: Splits, name: str) -> str:
    """Name of the class that an example was given; empty: none yet."""
    if name not in questions.answers:
        return ""
    label = questions.answers[name]
    return NO_CLASS if label is None else splits.task.labels[label]
