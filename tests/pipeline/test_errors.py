"""Sentences of errors stay sentences, whatever a file from elsewhere puts into them."""

import pytest

from edgestill.pipeline.errors import DataError, UserError, told


@pytest.mark.parametrize("word", ["x" * 5000, "a." * 900, "\\x00" * 400])
def test_a_word_that_no_person_wrote_is_cut_and_the_sentence_goes_on(word):
    said = str(UserError(f"device.{word}: unknown key; known: threads"))
    assert said.startswith("device." + word[:40])
    assert said.endswith(" unknown key; known: threads")
    assert len(said) < 200


def test_paths_and_digests_stay_whole():
    path, digest = "/".join(["a folder"] + ["with-a-long-name" * 4] * 5), "0123456789abcdef" * 4
    assert str(DataError(f"{path} holds {digest}")) == f"{path} holds {digest}"


def test_a_long_sentence_is_cut_and_many_are_counted():
    said = told(["word " * 1000, *"bcd"], most=2)
    assert len(said[0]) == 450
    assert said[1:] == ("b", "and 2 more")
