"""Text from tables to token ids: which rows, which tokenizer, and what is said of a file that cannot be used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from edgestill.pipeline.data.datasets import TextConfig
from edgestill.pipeline.data.loading import load_splits, load_test, load_whole_train
from edgestill.pipeline.data.tokens import Coder, TokenizerConfig, make_coder
from edgestill.pipeline.errors import DataError

ADJECTIVES = {"good": ("fine", "lovely", "moving"), "bad": ("dull", "poor", "empty")}
TIES = [f"{a}{b}{c}" for a in "klm" for b in "xyz" for c in "abc"]  # every pair is as frequent as any other
TEXTS = ["a moving film", "a dull film, truly dull", "lovely"]


def rows(count: int, start: int = 0) -> list[tuple[str, str]]:
    found = []
    for n in range(start, start + count):
        label = ("bad", "good")[n % 2]
        found.append((f"a {ADJECTIVES[label][n % 3]} film, number {n}", label))
    return found


def write(path: Path, table: list[tuple[str, ...]], header: tuple[str, ...] | None = ("sentence", "label")) -> Path:
    separator = "," if path.suffix == ".csv" else "\t"
    quoted = [[f'"{cell}"' if "," in cell and path.suffix == ".csv" else cell for cell in row] for row in table]
    path.write_text("\n".join(separator.join(row) for row in [*([header] if header else []), *quoted]) + "\n")
    return path


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train.tsv", rows(60))
    write(tmp_path / "dev.tsv", rows(20, 60))
    write(tmp_path / "test.tsv", [("a film with an xylophone", "good"), ("a poor zebra", "bad")])
    return tmp_path


# Which rows go where


def test_a_folders_files_are_the_splits_and_reference_comes_from_train(folder):
    splits = load_splits(TextConfig(path=folder), seed=0)
    assert splits.sizes == {"train": 54, "reference": 6, "validation": 20, "test": 2}
    assert splits.validation.images.tolist() == splits.coder.encode([text for text, _ in rows(20, 60)]).tolist()
    assert [splits.task.labels[k] for k in splits.validation.targets] == [label for _, label in rows(20, 60)]
    assert load_test(TextConfig(path=folder), 0).targets.tolist() == [1, 0]


def test_one_file_is_carved_into_all_four_splits(tmp_path):
    config = TextConfig(path=write(tmp_path / "all.csv", rows(100)))
    splits = load_splits(config, seed=0)
    everything = [splits.train, splits.reference, splits.validation, load_test(config, 0)]
    given = splits.coder.encode([text for text, _ in rows(100)])
    assert sorted(row for split in everything for row in split.images.tolist()) == sorted(given.tolist())
    assert splits.sizes["test"] == 20


def test_columns_are_found_by_name_and_named_where_there_is_no_header(tmp_path):
    table = [(str(n), label, text) for n, (text, label) in enumerate(rows(40))]
    by_name = {"text_column": "text", "label_column": "class"}
    headed = write(tmp_path / "headed.tsv", table, ("id", "class", "text"))
    bare = write(tmp_path / "bare.tsv", table, None)
    one = load_splits(TextConfig(path=headed, **by_name), 0)
    for path in (bare, headed):
        other = load_splits(TextConfig(path=path, columns=("id", "class", "text"), **by_name), 0)
        assert torch.equal(one.train.images, other.train.images)
        assert one.sizes == other.sizes


def test_a_quotation_mark_is_a_character_in_tsv_and_a_quote_in_csv(tmp_path):
    tsv = tmp_path / "a.tsv"
    tsv.write_text("sentence\tlabel\n" + '"well\tx\n' * 20 + 'he said "no"\ty\n' * 20)
    csv = tmp_path / "a.csv"
    csv.write_text("sentence,label\n" + '"well, two\nlines",x\n' * 20 + '"he said ""no""",y\n' * 20)
    for path, expected in ((tsv, {'" well', 'he said " no "'}), (csv, {"well, two lines", 'he said " no "'})):
        task, split = load_whole_train(TextConfig(path=path))
        coder = make_coder(["x"], TokenizerConfig(), 1)
        assert task.labels == ("x", "y")
        assert len(split) == 40
        coder = load_splits(TextConfig(path=path), 0).coder
        assert {coder.decode(row) for row in coder.encode([*map(str, expected)])} == expected


def test_a_quotation_mark_that_would_swallow_rows_is_refused_with_the_line_it_opens_in(tmp_path):
    lines = [f"day {n},{'x' if n % 2 else 'y'}" for n in range(80)]
    lines[10], lines[50] = f'"{lines[10]}', f'"{lines[50]}'
    path = tmp_path / "a.csv"
    path.write_text("sentence,label\n" + "\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"line 52: .* in a row that begins at line 12; a quotation mark"):
        load_whole_train(TextConfig(path=path))


def test_classes_are_numbered_in_order_or_as_told(tmp_path):
    table = [(f"word {n}", str(n % 11)) for n in range(110)]
    path = write(tmp_path / "a.tsv", table)
    assert load_whole_train(TextConfig(path=path))[0].labels == tuple(map(str, range(11)))
    folder = write(tmp_path / "b.tsv", rows(20))
    assert load_whole_train(TextConfig(path=folder, labels=("good", "bad")))[0].labels == ("good", "bad")


@pytest.mark.parametrize("label", ["good\nbad", "good\u2028bad", "\x1b[2J", "x" * 300])
def test_a_label_of_the_file_is_checked_as_a_configured_one_is(label, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("sentence,label\n" + f'one word,"{label}"\nanother,x\n' * 20, encoding="utf-8")
    for load in (lambda config: load_splits(config, 0), load_whole_train):
        with pytest.raises(DataError, match=r"a\.csv: .* (is no class name|has 300 characters)") as refusal:
            load(TextConfig(path=path))
        assert len(str(refusal.value)) < len(str(path)) + 200


# The tokenizer


def test_the_vocabulary_is_of_the_training_texts_alone(folder):
    config = TextConfig(path=folder, tokenizer={"vocab_size": 400})
    vocabulary = set(json.loads(load_splits(config, 0).coder.json)["model"]["vocab"])
    assert {"film", "number"} <= vocabulary
    assert not {"xylophone", "zebra", "x", "z"} & {piece.removeprefix("##") for piece in vocabulary}


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_ids_are_padded_with_0_which_no_text_has(kind):
    coder = make_coder(TEXTS, TokenizerConfig(kind=kind, vocab_size=300), 50)
    ids = coder.encode(TEXTS)
    assert ids.dtype == "int64"
    assert ids.shape == (3, coder.length)
    lengths = (ids != 0).sum(1)
    assert lengths.max() == coder.length <= 50  # the longest training text sets the length
    for row, length in zip(ids, lengths, strict=True):
        assert (row[:length] > 0).all()
        assert (row[length:] == 0).all()
    assert ids.max() < coder.vocab_size
    assert [coder.decode(row) for row in ids] == TEXTS


def test_what_is_longer_than_max_length_is_cut():
    coder = make_coder(TEXTS, TokenizerConfig(), 2)
    assert coder.encode(["a moving film"]).shape == (1, 2)
    assert coder.decode(coder.encode(["a moving film"])[0]) == "a moving"


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_the_tokenizer_is_the_same_in_every_process(kind):
    code = (
        "from edgestill.pipeline.data.tokens import *; import sys; "
        f"sys.stdout.write(make_coder({TIES!r}, TokenizerConfig(kind={kind!r}, vocab_size=330), 9).json)"
    )
    made = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(4)}
    assert len(made) == 1
    assert Coder(made.pop().decode()).length <= 9


def test_a_tokenizer_that_is_handed_on_is_taken_as_it_is(folder, tmp_path):
    config = TextConfig(path=folder)
    first = load_splits(config, 0)
    write(folder / "train.tsv", [*rows(60)[::-1], ("entirely new words", "good")])
    again = load_splits(config, 0, first.coder.json)
    assert again.task == first.task
    assert again.coder.json == first.coder.json


def test_case_is_kept_where_it_is_asked_for():
    kept = make_coder(["Moving Film"], TokenizerConfig(lowercase=False), 9)
    assert kept.decode(kept.encode(["Moving Film"])[0]) == "Moving Film"
    lowered = make_coder(["Moving Film"], TokenizerConfig(), 9)
    assert lowered.decode(lowered.encode(["MOVING FILM"])[0]) == "moving film"


def test_a_given_tokenizer_must_pad_with_0(tmp_path):
    made = make_coder(TEXTS, TokenizerConfig(), 9)
    path = tmp_path / "tokenizer.json"
    path.write_text(made.json)
    assert make_coder(TEXTS, TokenizerConfig(file=path), 9).sha256 == made.sha256
    path.write_text(made.json.replace("[PAD]", "<s>"))
    with pytest.raises(DataError, match=r"id 0 is '<s>', and edgestill keeps it for padding"):
        make_coder(TEXTS, TokenizerConfig(file=path), 9)
    path.write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer\.json is no tokenizer\.json"):
        make_coder(TEXTS, TokenizerConfig(file=path), 9)


def test_the_tokenizers_name_does_not_depend_on_where_it_cuts():
    one, other = (make_coder(TEXTS, TokenizerConfig(), length) for length in (2, 9))
    assert one.sha256 == other.sha256
    assert one.json != other.json


def test_a_vocabulary_that_its_alphabet_does_not_fit_into_is_an_error():
    for kind, least in (("wordpiece", 2 + 10), ("bpe", 1 + 256)):
        with pytest.raises(DataError, match=rf"vocab_size 11 is smaller than the alphabet of {kind}") as caught:
            make_coder(["abcdefghij"], TokenizerConfig(kind=kind, vocab_size=11), 9)
        assert int(str(caught.value).split("with the special")[0].split()[-1].strip(",")) >= least


# What cannot be used


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "text\tmore\tlabel\nx\ty\t1\n",
            r"no column 'sentence'; .*known: label, more, text; name one in data\.text_column; if this line",
        ),
        ("sentence\tlabel\n\tx\n\ty\n", r"(?s)line 2: .*set data\.empty to drop"),
        ("sentence\tlabel\n", "has no rows"),
        ("", "is empty"),
        ("sentence\tlabel\nx\t1\ny\t1\n", r"every label in column 'label' is '1'; a classifier needs two"),
        ("sentence\tlabel\nx\t1\n \t0\ny\tNA\n", r"line 3: column 'sentence' is empty\n.*line 4: column 'label' is NA"),
        ("sentence\tlabel\nx\t1\ny\tz\t0\n", r"line 3: 3 cells for 2 columns \(sentence, label\); data.delimiter"),
        ("label\tlabel\tsentence\n", r"2 columns named 'label'"),
        (b"sentence\tlabel\nx\t1\ncaf\xe9\t0\n", r"line 3: byte 0xe9 is not utf-8; .*data.encoding \(latin-1"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_its_line(tmp_path, content, sentence):
    path = tmp_path / "a.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=sentence):
        load_splits(TextConfig(path=path), 0)


def test_every_row_of_a_file_is_in_a_split_or_counted_as_dropped(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text(
        "sentence\tlabel\n" + "\n".join(f"{text}\t{label}" for text, label in rows(60)) + "\n \tgood\nx\tNA\n"
    )
    with pytest.raises(DataError, match="line 63: column 'label' is NA"):
        load_splits(TextConfig(path=path), 0)
    found = load_splits(TextConfig(path=path, empty="drop"), 0)
    assert (sum(found.sizes.values()), found.dropped) == (60, 2)
    path.write_text("sentence\tlabel\n\tgood\n\tbad\n")
    with pytest.raises(DataError, match="every row lacks its text or its label"):
        load_splits(TextConfig(path=path, empty="drop"), 0)


def test_the_only_column_beside_the_labels_is_the_texts_unless_another_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("label,review\n1,good one\n0,bad one\n")
    _, split = load_whole_train(TextConfig(path=path))
    assert len(split) == 2
    with pytest.raises(DataError, match=r"no column 'text'; known: label, review; name one in data\.text_column"):
        load_whole_train(TextConfig(path=path, text_column="text"))
    with pytest.raises(DataError, match=r"no column 'review'; .*set data\.columns to null .* data\.text_column to one"):
        load_whole_train(TextConfig(path=path, text_column="review", columns=("label", "sentence")))


def test_labels_that_are_numbers_are_names(tmp_path):
    assert TextConfig(path=tmp_path, labels=[5, 3, "one"]).labels == ("5", "3", "one")
    with pytest.raises(ValidationError):
        TextConfig(path=tmp_path, labels=[True, False])


@pytest.mark.parametrize("length", [1, 2])
def test_a_length_that_leaves_no_room_beside_the_special_tokens_is_refused(length, tmp_path):
    content = json.loads(make_coder(TEXTS, TokenizerConfig(), 9).json)
    special = {"[PAD]": {"id": "[PAD]", "ids": [0], "tokens": ["[PAD]"]}}
    pad = {"SpecialToken": {"id": "[PAD]", "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [pad, {"Sequence": {"id": "A", "type_id": 0}}, pad],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": special,
    }  # fmt: skip
    path = tmp_path / "cls.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"adds 2 special tokens .* data\.max_length {length} .* set it to 3"):
        make_coder(TEXTS, TokenizerConfig(file=path), length)
    assert make_coder(TEXTS, TokenizerConfig(file=path), 3).length == 3


def test_another_encoding_is_read_where_it_is_named(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes("sentence\tlabel\ncafé\t1\ntee\t0\n".encode("latin-1"))
    task, split = load_whole_train(TextConfig(path=path, encoding="latin-1"))
    assert (len(split), task.labels) == (2, ("0", "1"))
    with pytest.raises(ValidationError, match="no encoding 'latin-one'"):
        TextConfig(path=path, encoding="latin-one")


def test_a_label_that_train_lacks_and_a_file_that_is_not_there_are_errors(folder):
    write(folder / "dev.tsv", [("x", "good"), ("y", "so-so")])
    with pytest.raises(DataError, match=r"dev\.tsv, line 3: label 'so-so' is none of the 2 classes \(bad, good\)"):
        load_splits(TextConfig(path=folder), 0)
    (folder / "dev.tsv").unlink()
    with pytest.raises(DataError, match=r"no dev\.tsv, .* or dev\.jsonl in .* has test\.tsv, train\.tsv; .* or null"):
        load_splits(TextConfig(path=folder), 0)
    assert load_splits(TextConfig(path=folder, validation=None), 0).sizes["validation"] == 9


def test_augmentation_of_images_is_refused(folder):
    with pytest.raises(ValidationError, match="pad and flip are of images"):
        TextConfig(path=folder, augment={"pad": 1})
