"""Splits, and who may open the test split."""

import ast
import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgestill.pipeline.conformance import datasets as of_datasets
from edgestill.pipeline.data.datasets import (
    DATASETS,
    CifarConfig,
    CsvConfig,
    DigitsConfig,
    FolderConfig,
    HuggingFaceConfig,
    NpzConfig,
    ParquetConfig,
    PythonDataConfig,
    StoredConfig,
    TextConfig,
)
from edgestill.pipeline.data.datasets import stored as stored_kind
from edgestill.pipeline.data.loading import load_splits, load_test, load_whole_train
from edgestill.pipeline.data.splits import ImageSplit, draw_batch
from edgestill.pipeline.errors import DataError

PARTS = ("train", "reference", "validation")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def npz(tmp_path):
    """Writes a data file of numbered images: image n holds the number n in its first pixels."""

    def write(counts=(60, 40, 20), test=30, shape=(4, 5, 3)):
        total = sum(counts)
        images = np.zeros((total + test, *shape), np.uint8)
        images.reshape(total + test, -1)[:, 0] = np.arange(total + test) // 256
        images.reshape(total + test, -1)[:, 1] = np.arange(total + test) % 256
        targets = np.repeat(np.arange(len(counts)), counts)
        targets = targets[np.random.default_rng(0).permutation(total)]
        path = tmp_path / "data.npz"
        np.savez(
            path,
            x_train=images[:total],
            y_train=targets,
            x_test=images[total:],
            y_test=np.arange(test) % len(counts),
        )
        return NpzConfig(path=path)

    return write


@pytest.fixture(params=[name for name in DATASETS if name not in ("strings", "prompts")])  # test_language has them
def config(request, npz, tmp_path):
    """A configuration of every data set of the table; a newcomer adds its line."""

    def cifar():
        return CifarConfig(path=npz(shape=(32, 32, 3)).path)

    def text():
        path = tmp_path / "rows.tsv"
        rows = [f"{'good' if n % 3 else 'bad'} film number {n}\t{'yes' if n % 3 else 'no'}" for n in range(150)]
        path.write_text("\n".join(["sentence\tlabel", *rows]))
        return TextConfig(path=path)

    pictures = np.random.default_rng(0).integers(0, 256, (120, 8, 6, 3), np.uint8)

    def files():
        for n, pixels in enumerate(pictures):
            path = tmp_path / "photos" / ("cat" if n % 3 else "dog") / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        return tmp_path / "photos"

    def folder():
        return FolderConfig(path=files())

    def csv():
        path = files() / "list.csv"
        rows = [f"{name.parent.name}/{name.name},{name.parent.name}" for name in sorted(path.parent.rglob("*.png"))]
        path.write_text("\n".join(["image,label", *rows]))
        return CsvConfig(path=path)

    def of_datasets():
        import datasets

        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "cat"])})
        rows = {"image": [Image.fromarray(each) for each in pictures], "label": [int(n % 3 > 0) for n in range(120)]}
        return datasets.Dataset.from_dict(rows, features)

    def huggingface():
        of_datasets().save_to_disk(str(tmp_path / "saved"))
        return HuggingFaceConfig(path=str(tmp_path / "saved"))

    def parquet():
        of_datasets().to_parquet(str(tmp_path / "rows.parquet"))
        return ParquetConfig(path=tmp_path / "rows.parquet")

    def python():
        path = tmp_path / "mine.py"
        path.write_text(
            "import numpy as np\n"
            "def make():\n"
            "    pictures = np.random.default_rng(0).integers(0, 256, (120, 8, 6, 3), np.uint8)\n"
            "    return [(each, n % 3) for n, each in enumerate(pictures)]\n"
        )
        return PythonDataConfig(code=f"{path}:make")

    def stored():
        return stored_kind.keep(StoredConfig(path=tmp_path, content=""), (pictures, np.arange(120) % 3))

    return {
        "digits": DigitsConfig, "npz": npz, "cifar": cifar, "text": text, "folder": folder, "csv": csv,
        "huggingface": huggingface, "parquet": parquet, "python": python, "stored": stored,
    }[request.param]()  # fmt: skip


def inputs(split: ImageSplit) -> torch.Tensor:
    return split.batch(torch.arange(len(split))).inputs


def numbers(split: ImageSplit) -> list[int]:
    """Which images of the file are in a split."""
    first = split.images.permute(0, 2, 3, 1).flatten(1).long()
    return (first[:, 0] * 256 + first[:, 1]).tolist()


@pytest.mark.parametrize("check", of_datasets.CHECKS[1:], ids=lambda check: check.__name__)
def test_every_data_set_passes_the_checks_of_its_table(config, check, monkeypatch):
    monkeypatch.setattr(of_datasets, "_config", lambda name: config)
    check(config.name)


def test_every_data_set_gives_inputs_in_their_range_and_labels_of_its_classes(config):
    splits = load_splits(config, seed=0)
    for split in (*(getattr(splits, name) for name in PARTS), load_test(config, seed=0)):
        batch = split.batch(torch.arange(len(split)))
        assert batch.inputs.dtype == splits.task.input_dtype
        assert batch.inputs.shape[1:] == splits.task.input_shape
        assert 0 <= batch.inputs.min() <= batch.inputs.max() <= (splits.task.vocab_size or 2) - 1
        assert batch.targets.dtype == torch.int64
        assert set(batch.targets.tolist()) <= set(range(splits.task.num_classes))


def test_the_splits_are_disjoint_and_cover_everything(npz):
    config = npz()
    splits = load_splits(config, seed=0)
    taken = [numbers(getattr(splits, name)) for name in PARTS]
    assert sorted(itertools.chain(*taken)) == list(range(120))
    assert numbers(load_test(config, seed=0)) == list(range(120, 150))


def test_a_data_set_without_a_test_part_of_its_own_gives_one_up():
    config = DigitsConfig()
    splits, test = load_splits(config, seed=0), load_test(config, seed=0)
    everything = [getattr(splits, name) for name in PARTS] + [test]
    assert sum(map(len, everything)) == 1797
    rows = torch.cat([split.images.flatten(1) for split in everything])
    _, whole = load_whole_train(config)
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, whole.images.flatten(1).tolist()))


def test_sizes_follow_the_configured_fractions(config):
    splits = load_splits(config, seed=0)
    pool = sum(len(getattr(splits, name)) for name in PARTS)
    assert len(splits.validation) == pytest.approx(config.validation_fraction * pool, abs=1)
    assert len(splits.reference) == pytest.approx(config.reference_fraction * pool, abs=1)
    assert splits.sizes == {name: len(getattr(splits, name)) for name in PARTS} | {"test": len(load_test(config, 0))}


def test_every_split_has_the_classes_in_the_same_shares(config):
    splits = load_splits(config, seed=0)
    whole = torch.cat([getattr(splits, name).targets for name in PARTS])
    shares = torch.bincount(whole) / len(whole)
    for name in PARTS:
        targets = getattr(splits, name).targets
        expected = shares * len(targets)
        assert (torch.bincount(targets, minlength=len(shares)) - expected).abs().max() <= 1.5


def test_the_same_seed_splits_alike_and_another_seed_otherwise(config):
    one, same, other = (load_splits(config, seed) for seed in (3, 3, 4))
    for name in PARTS:
        assert torch.equal(inputs(getattr(one, name)), inputs(getattr(same, name)))
    assert one.digests == same.digests
    assert all(one.digests[name] != other.digests[name] for name in PARTS)


def test_digests_name_the_indices_the_labels_and_the_pixels_of_each_split(npz):
    splits, test = load_splits(npz(), seed=0), load_test(npz(), seed=0)
    for name, split in [(name, getattr(splits, name)) for name in PARTS] + [("test", test)]:
        index = np.array(sorted(numbers(split)), dtype="<i8") - (120 if name == "test" else 0)
        kind = f"uint8 {tuple(split.images.shape[1:])}".encode()
        content = index.tobytes() + split.targets.numpy().tobytes() + kind + split.images.numpy().tobytes()
        assert splits.digests[name] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("key", ["x_train", "y_train", "x_test", "y_test", "x_unlabelled"])
def test_one_other_pixel_or_label_changes_the_digest_of_its_split_alone(npz, key):
    config = npz()
    with np.load(config.path) as file:
        arrays = dict(file) | {"x_unlabelled": file["x_train"][:5]}
    np.savez(config.path, **arrays)
    before = load_splits(config, seed=0).digests
    assert set(before) == {*PARTS, "test", "unlabelled"}
    if key.startswith("y"):  # two labels change places, so that the classes keep their sizes
        other = int(np.flatnonzero(arrays[key] != arrays[key][0])[0])
        arrays[key][[0, other]] = arrays[key][[other, 0]]
    else:
        arrays[key][0, -1, -1] ^= 1
    np.savez(config.path, **arrays)
    after = load_splits(config, seed=0).digests
    different = {name for name in before if before[name] != after[name]}
    if key == "y_train":
        assert different & set(PARTS)
        assert "test" not in different
    else:
        assert len(different) == 1
        assert different <= {"x_train": set(PARTS), "x_unlabelled": {"unlabelled"}}.get(key, {"test"})


def test_one_other_word_changes_the_digest_of_its_split(tmp_path):
    path = tmp_path / "texts.tsv"
    lines = [f"text number {n}\t{n % 2}" for n in range(60)]
    path.write_text("\n".join(["sentence\tlabel", *lines]), encoding="utf-8")
    config = TextConfig(path=path)
    before = load_splits(config, seed=0).digests
    path.write_text("\n".join(["sentence\tlabel", *lines]).replace("number 7", "number seven"), encoding="utf-8")
    after = load_splits(config, seed=0).digests
    assert len({name for name in before if before[name] != after[name]}) == 1


def test_nothing_of_the_test_split_is_in_what_the_stages_are_handed(npz):
    splits = load_splits(npz(), seed=0)
    held = [value for value in vars(splits).values() if isinstance(value, ImageSplit)]
    assert len(held) == 3
    for split in held:
        assert not set(numbers(split)) & set(range(120, 150))


def test_normalisation_is_that_of_the_training_split_alone(npz):
    splits = load_splits(npz(shape=(16, 16, 3)), seed=0)
    pixels = splits.train.images.numpy() / 255
    assert splits.task.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)), abs=1e-6)
    digits = load_splits(DigitsConfig(), seed=0)
    assert digits.task.std == pytest.approx([digits.train.images.numpy().std()], abs=1e-6)


def test_a_constant_channel_is_not_divided_by_zero(npz):
    assert load_splits(npz(shape=(4, 5, 3)), seed=0).task.std[2] == 1


@pytest.mark.parametrize("counts", [(60, 40, 1), (60, 40, 2), (300, 300, 3)])
def test_a_class_too_small_for_every_split_is_an_error(npz, counts):
    with pytest.raises(DataError, match=r"class '2' has \d example.* too few"):
        load_splits(npz(counts), seed=0)


def test_only_the_report_opens_the_test_split():
    """By name in the syntax trees: `load_test` is defined in one file and used in one function of another.

    (The tasks in benchmarks/ hand a test split to benchmarks/methods.py, which looks at it after the training, as
    benchmarks/prune.py, benchmarks/int8_weights.py and benchmarks/worth.py do by themselves.)
    """
    users = {}
    for package in ("pipeline", "search", "distill", "export", "flows", "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if mentions(tree, "load_test") and path.parent.name != "tasks":  # what a benchmark measures, at its end
                users[path.relative_to(ROOT).as_posix()] = tree
    del users["flows/cli/data.py"]  # writes its ids, without classes, for a teacher in a file
    del users["flows/registry/drift.py"]  # the promoted file on a night's other test split
    del users["flows/registry/compare.py"]  # shipped files of finished runs, and counts the looks
    benchmarks = {f"benchmarks/{name}.py" for name in ("prune", "int8_weights", "worth", "reproductions")}
    assert set(users) - benchmarks - {"pipeline/data/loading.py"} == {"flows/stages/report.py"}
    tree = users["flows/stages/report.py"]
    functions = [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and mentions(n, "load_test")]
    assert functions == ["_tested_and_bundled"]
    elsewhere = [n for n in tree.body if not isinstance(n, ast.FunctionDef | ast.ImportFrom)]
    assert not any(mentions(node, "load_test") for node in elsewhere)


def mentions(tree: ast.AST, name: str) -> bool:
    """By name, attribute, import (under another name too), or as a string for getattr."""
    for node in ast.walk(tree):
        found = getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "value", None)
        if name in [f for f in found if isinstance(f, str)]:
            return True
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return True
        if isinstance(node, ast.alias) and node.name == name:
            return True
    return False


def test_mentions_finds_every_way_to_get_at_a_name():
    for source in ("load_test(c)", "data.load_test", "from d import load_test as x", "getattr(d, 'load_test')"):
        assert mentions(ast.parse(source), "load_test")
    assert not mentions(ast.parse("load_tests(c)  # load_test"), "load_test")


# Batches


def test_bytes_become_floats_in_the_unit_interval_and_the_store_stays():
    split = ImageSplit(torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8), torch.arange(4))
    batch = split.batch(torch.tensor([3, 1]))
    assert torch.allclose(batch.inputs, torch.stack([split.images[3], split.images[1]]) / 255)
    assert batch.targets.tolist() == batch.index.tolist() == [3, 1]
    floats = ImageSplit(torch.full((2, 1, 2, 2), 0.5), torch.arange(2))
    floats.batch(torch.tensor([0, 1])).inputs.zero_()
    assert (floats.images == 0.5).all()


def test_batches_go_through_a_split_once_in_order(make_split, make_task):
    split = make_split(make_task(), 23)
    batches = list(split.batches(5))
    assert [len(b.targets) for b in batches] == [5, 5, 5, 5, 3]
    assert torch.cat([b.index for b in batches]).tolist() == list(range(23))
    assert torch.equal(torch.cat([b.inputs for b in batches]), split.images)


def test_a_batch_of_large_images_is_smaller():
    split = ImageSplit(torch.zeros(30, 1, 256, 256, dtype=torch.uint8), torch.zeros(30, dtype=torch.int64))
    assert [len(batch.targets) for batch in split.batches(512)] == [16, 14]
    small = ImageSplit(torch.zeros(600, 1, 32, 32, dtype=torch.uint8), torch.zeros(600, dtype=torch.int64))
    assert [len(batch.targets) for batch in small.batches(512)] == [512, 88]


def test_a_drawn_batch_has_no_image_twice_and_repeats_for_a_seed(make_split, make_task):
    split = make_split(make_task(), 30)
    one, same, other = (draw_batch(split, 20, seed) for seed in (0, 0, 1))
    assert len(set(one.index.tolist())) == 20
    assert torch.equal(one.inputs, same.inputs)
    assert one.index.tolist() != other.index.tolist()
    with pytest.raises(DataError, match="a batch of 31 was asked for, but there are 30 training examples"):
        draw_batch(split, 31, 0)


# Augmentation
