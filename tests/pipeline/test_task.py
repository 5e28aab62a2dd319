"""Tasks of images and of text, and what they look like on disk."""

import pytest
import torch
from pydantic import ValidationError

from edgestill.pipeline.frozen import digest
from edgestill.pipeline.task import Task

IMAGE = {"labels": ("a", "b"), "input_shape": (1, 8, 8), "mean": (0.3,), "std": (0.2,)}
TEXT = {"kind": "text", "labels": ("a", "b"), "input_shape": (12,), "vocab_size": 30}


def test_an_image_task_is_written_as_before_there_was_text():
    before = {"kind": "image", "labels": ["a", "b"], "input_shape": [1, 8, 8], "mean": [0.3], "std": [0.2]}
    assert Task(**IMAGE).model_dump(mode="json") == before
    assert digest(Task(**IMAGE)) == digest(before)
    assert Task.model_validate(before) == Task(**IMAGE)


def test_a_text_task_comes_back_from_its_json():
    task = Task(**TEXT)
    assert Task.model_validate_json(task.model_dump_json()) == task
    assert task.model_dump()["vocab_size"] == 30
    assert (task.input_dtype, Task(**IMAGE).input_dtype) == (torch.int64, torch.float32)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (IMAGE | {"vocab_size": 30}, "no vocab_size"),
        (IMAGE | {"input_shape": (8, 8)}, r"\(channels, height, width\)"),
        (IMAGE | {"mean": ()}, "need as many means and stds"),
        (TEXT | {"vocab_size": None}, "a vocab_size"),
        (TEXT | {"vocab_size": 1}, "greater than or equal to 2"),
        (TEXT | {"input_shape": (1, 8, 8)}, r"input_shape of \(length,\)"),
        (TEXT | {"mean": (0.5,)}, "neither mean nor std"),
    ],
)
def test_a_task_that_mixes_the_two_is_refused(given, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Task(**given)


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        *((f"b{end}c", "is no class name; a name is one line of text") for end in "\n\r\v\f\x1c\x85\u2028\u2029"),
        ("", "is no class name"),
        (" \t", "is no class name"),
        ("b\0", "is no class name"),
        ("\x1b[31mb", "is no class name"),
        ("\x9b31mb", "is no class name"),
        ("b\ud800", "is no class name"),
        ("\u202eb", "is no class name"),
        ("\ufeffb", "is no class name"),
        ("b" * 201, "has 201 characters; 200 are allowed"),
        ("a", "two classes have the same name"),
        ("a ", "two classes have the same name"),
    ],
)
def test_a_class_name_is_one_line_of_text_that_no_other_class_has(label, sentence):
    for task in (IMAGE, TEXT):
        with pytest.raises(ValidationError, match=sentence):
            Task(**task | {"labels": ("a", label)})


def test_names_of_every_script_and_their_joiners_are_class_names():
    labels = ("grün", "猫", "كلب", "नमस्ते", "👩\u200d💻", "a b", "<tag>", "a\u00a0b")
    assert Task(**TEXT | {"labels": labels}).labels == labels
