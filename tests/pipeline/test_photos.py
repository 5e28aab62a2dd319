"""Folders and tables of pictures: from files to splits, once."""

import numpy as np
import pytest
from PIL import Image

from edgestill.pipeline.cache import cache_folder
from edgestill.pipeline.data import rows
from edgestill.pipeline.data.datasets import CsvConfig, FolderConfig
from edgestill.pipeline.data.datasets.csv import load_csv
from edgestill.pipeline.data.datasets.folder import load_folder
from edgestill.pipeline.data.decode import decode, fitted_fast
from edgestill.pipeline.errors import DataError

RNG = np.random.default_rng(0)


def picture(path, size=(20, 16), mode="RGB"):
    """Save a random picture of this height and width."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8)).convert(mode).save(path)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    """Two classes of five pictures of several sizes and modes."""
    root = tmp_path / "photos"
    for n, (size, mode) in enumerate([((20, 16), "RGB"), ((40, 30), "L"), ((33, 50), "RGB"), ((20, 16), "1")]):
        picture(root / "cat" / f"{n}.png", size, mode)
        picture(root / "dog" / f"{n}.png", size, mode)
    picture(root / "cat" / "4.jpg", (64, 64), "CMYK")
    picture(root / "dog" / "4.tif", (64, 64), "P")
    return root


def load(path, **settings):
    return load_folder(FolderConfig(path=path, **{"size": 16, "channels": 3, **settings}))


def test_a_folder_a_class_is_read_in_order_with_names(photos):
    raw = load(photos)
    assert raw.labels == ("cat", "dog")
    assert raw.train.names == tuple(
        f"{label}/{name}" for label, last in (("cat", "4.jpg"), ("dog", "4.tif"))
        for name in ("0.png", "1.png", "2.png", "3.png", last)
    )  # fmt: skip
    assert raw.train.targets.tolist() == [0] * 5 + [1] * 5
    assert raw.train.images.shape == (10, 3, 16, 16)
    for row, name in enumerate(raw.train.names):
        expected = fitted_fast(decode((photos / name).read_bytes()), 3, 16, 16, "crop").transpose(2, 0, 1)
        assert np.array_equal(raw.train.images[np.array([row])][0].numpy(), expected)


def test_pictures_are_decoded_once(photos, monkeypatch):
    before = load(photos)

    def never(data):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patched:
        patched.setattr(rows.decode, "decode", never)
        assert np.array_equal(load(photos).train.images.digests(), before.train.images.digests())
        with pytest.raises(AssertionError, match="decoded again"):
            load(photos, size=17)
    picture(photos / "cat" / "0.png", (21, 16))
    after = load(photos).train.images.digests()
    assert (after != before.train.images.digests()).any(axis=1).tolist() == [True] + [False] * 9


@pytest.mark.parametrize("damage", ["cut", "altered", "facts"])
def test_a_damaged_store_is_made_anew(photos, damage):
    expected = load(photos).train.images
    expected = expected[np.arange(10)]
    [folder] = (cache_folder() / "images").iterdir()
    path = folder / ("images.json" if damage == "facts" else "images.rows")
    data = bytearray(path.read_bytes())
    path.write_bytes(bytes(data[:-1]) if damage != "altered" else bytes([data[0] ^ 1]) + bytes(data[1:]))
    again = load(photos).train.images
    assert np.array_equal(again[np.arange(10)], expected)


def test_the_bytes_do_not_depend_on_the_number_of_threads(photos, tmp_path):
    paths = sorted(photos.rglob("*.*"))
    given = rows.Pictures([path.name for path in paths], lambda: iter(paths), "content")
    found = [rows.rows_of(given, rows.Fit(None, None, "pad"), n, tmp_path / str(n)).images for n in (1, 2, 5)]
    for other in found[1:]:
        assert np.array_equal(found[0][np.arange(10)], other[np.arange(10)])
        assert np.array_equal(found[0].digests(), other.digests())


def test_size_and_channels_are_found_by_looking(photos, tmp_path):
    raw = load(photos, size=None, channels=None)
    assert raw.train.images.shape[1:] == (3, 32, 32)  # the median of the shorter sides is 30
    assert raw.cautions == (
        "the pictures have 4 sizes; they are resized to 32 x 32 (data.size sets another)",
        "4 of 10 pictures are grey, the others coloured; all are taken as RGB",
    )
    for n in range(6):
        picture(tmp_path / "grey" / "ab"[n % 2] / f"{n}.png", (12, 9), "L")
    raw = load(tmp_path / "grey", size=None, channels=None)
    assert raw.train.images.shape[1:] == (1, 12, 9)
    assert raw.cautions == ()


def test_the_train_val_and_test_folders_are_found(photos, tmp_path):
    for part in ("train", "Valid", "test"):
        for n in range(4):
            picture(tmp_path / "parts" / part / "ab"[n % 2] / f"{n}.png")
    raw = load(tmp_path / "parts")
    assert [len(part.targets) for part in (raw.train, raw.validation, raw.test)] == [4, 4, 4]
    assert raw.test.names[0] == "test/a/0.png"
    picture(tmp_path / "parts" / "c" / "0.png")
    with pytest.raises(DataError, match=r"holds train, Valid|beside c"):
        load(tmp_path / "parts")


def test_a_class_may_be_called_train(tmp_path):
    for n in range(4):
        picture(tmp_path / "vehicles" / ("train", "bus")[n % 2] / f"{n}.png")
    assert load(tmp_path / "vehicles").labels == ("bus", "train")


def test_unreadable_pictures_are_named_and_left_out_up_to_a_share(photos):
    path = photos / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"1 of 10 pictures cannot be read: cat/1\.png .*max_unreadable allows 1\.00%"):
        load(photos)
    raw = load(photos, max_unreadable=0.1)
    assert len(raw.train.targets) == 9
    assert "cat/1.png" not in raw.train.names
    assert raw.train.targets.tolist() == [0] * 4 + [1] * 5
    assert "cat/1.png" in raw.cautions[0]


def test_other_files_are_counted_and_hidden_ones_ignored(photos):
    (photos / "cat" / "notes.txt").write_text("x")
    (photos / "cat" / ".DS_Store").write_text("x")
    for name in (".git", "__MACOSX/cat", "cat/@eaDir"):
        (photos / name).mkdir(parents=True)
    (photos / "readme.md").write_text("x")
    assert load(photos).cautions == (
        f"{photos}: files that are no pictures by their endings are left out: 1 .txt",
    )  # fmt: skip


def test_a_folder_that_is_no_class_is_an_error(photos):
    (photos / "bird").mkdir()
    with pytest.raises(DataError, match=r"bird, a class's folder, holds no picture of PNG, .*; add some, or remove"):
        load(photos)
    (photos / "bird" / "0.heic").write_text("x")
    with pytest.raises(DataError, match=r"it holds \.heic: convert these, or remove the folder"):
        load(photos)
    picture(photos / "bird" / "more" / "0.png")
    with pytest.raises(DataError, match=r"bird/more is a folder within a class's folder"):
        load(photos)


def test_loose_pictures_one_class_and_no_folder_are_errors(photos, tmp_path):
    picture(tmp_path / "one" / "cat" / "0.png")
    with pytest.raises(DataError, match="every label is 'cat'; a classifier needs two"):
        load(tmp_path / "one")
    picture(photos / "0.png")
    with pytest.raises(DataError, match="1 pictures outside class folders"):
        load(photos)
    with pytest.raises(DataError, match=r"no folder at .*names such folders$"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"if 0\.png is an archive, unpack it"):
        load(photos / "0.png")


def test_a_link_that_leads_out_is_refused_unless_it_is_followed(photos, tmp_path):
    picture(tmp_path / "elsewhere.png")
    (photos / "cat" / "9.png").symlink_to(tmp_path / "elsewhere.png")
    (photos / "cat" / "8.png").symlink_to(photos / "cat" / "0.png")
    with pytest.raises(DataError, match=r"9\.png is a link that leads out of"):
        load(photos)
    assert len(load(photos, follow_links=True).train.targets) == 12


def test_numbered_folders_are_ordered_as_imagefolder_does_and_it_is_said(tmp_path):
    for n in (0, 1, 2, 10):
        picture(tmp_path / "numbers" / str(n) / "0.png")
    raw = load(tmp_path / "numbers")
    assert raw.labels == ("0", "1", "10", "2")
    assert "ordered as torchvision's ImageFolder does" in raw.cautions[0]
    raw = load(tmp_path / "numbers", labels=("0", "1", "2", "10"))
    assert raw.train.targets.tolist() == [0, 1, 3, 2]
    with pytest.raises(DataError, match=r"10/0\.png has the label '10', which is no class"):
        load(tmp_path / "numbers", labels=("0", "1", "2"))
    with pytest.raises(DataError, match="class '3' has no example"):
        load(tmp_path / "numbers", labels=("0", "1", "2", "10", "3"))


def test_the_yaml_of_the_field_is_read(tmp_path):
    for part in ("train", "val"):
        for n in range(4):
            picture(tmp_path / "set" / "images" / part / str(n % 2) / f"{n}.png")
    path = tmp_path / "dataset.yaml"
    path.write_text("path: set\ntrain: images/train\nval: images/val\nnames: {0: dog, 1: cat}\nnc: 2\n")
    raw = load(path)
    assert raw.labels == ("dog", "cat")
    assert raw.train.targets.tolist() == [0, 0, 1, 1]
    assert raw.validation is not None
    assert raw.test is None
    path.write_text("path: set\ntrain: images/train\nnames: [dog, cat, bird]\n")
    with pytest.raises(DataError, match="names are dog, cat, bird, and the folders"):
        load(path)
    path.write_text("train: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ValueError, match=r"dataset\.yaml"):
        load(path)


def test_a_full_disk_is_said_before_anything_is_decoded(photos, monkeypatch):
    monkeypatch.setattr(rows.shutil, "disk_usage", lambda path: type("", (), {"free": 1000}))
    with pytest.raises(DataError, match=r"take 0\.0 GB, and .* GB free; a smaller data\.size"):
        load(photos)
    assert not list((cache_folder() / "images").glob("*"))


def test_progress_is_shown(photos, monkeypatch):
    told = []
    with rows.showing(lambda done, total, note: told.append((done, total, note))):
        load(photos)
    assert told[-1] == (10, 10, "pictures decoded")


# Tables


def table(photos, text, name="list.csv"):
    path = photos / name
    path.write_text(text)
    return path


def test_a_table_of_paths_is_read(photos):
    lines = ["image,label,split"]
    lines += [f"{label}/{n}.png,{label},{'val' if n == 3 else 'train'}" for n in range(4) for label in ("dog", "cat")]
    path = table(photos, "\n".join(lines))
    raw = load_csv(CsvConfig(path=path, size=16, split_column="split"))
    assert raw.labels == ("cat", "dog")
    assert raw.train.targets.tolist() == [1, 0] * 3
    assert raw.train.names[:2] == ("dog/0.png", "cat/0.png")
    assert len(raw.validation.targets) == 2
    unread = load_csv(CsvConfig(path=path, size=16))
    assert unread.validation is None
    assert any("column 'split' is not read; set data.split_column" in caution for caution in unread.cautions)
    assert CsvConfig.settings_for(str(path))["split_column"] == "split"


@pytest.mark.parametrize("outside", ["../secret.png", "/etc/hostname"])
def test_a_path_that_leads_out_is_refused_with_its_line(photos, outside):
    path = table(photos, f"image\tlabel\ncat/0.png\tcat\n{outside}\tdog\n", "list.tsv")
    with pytest.raises(DataError, match=r"list\.tsv, line 3: .* leads out of .* data\.root"):
        load_csv(CsvConfig(path=path))


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("a\0b.png", r"line 3: 'a\\x00b\.png'…, of 7 characters, is no path"),
        ("x" * 5000, "of 5,000 characters, is no path"),
    ],
)
def test_a_cell_that_is_no_path_is_refused_with_its_line(photos, cell, said):
    path = table(photos, f"image,label\ncat/0.png,cat\n{cell},dog\n")
    with pytest.raises(DataError, match=said):
        load_csv(CsvConfig(path=path))


def test_files_that_are_no_tables_are_told(photos):
    (photos / "wide.csv").write_text("image,label\ncat/0.png,cat\n", encoding="utf-16")
    for name, text, said in (("none.csv", "", "is empty"), ("wide.csv", None, "utf-16 is a frequent one")):
        with pytest.raises(DataError, match=said):
            load_csv(CsvConfig(path=photos / name if text is None else table(photos, text, name)))


def test_missing_files_empty_cells_and_unknown_parts_are_named(photos):
    path = table(photos, "image,label\ncat/0.png,cat\nnone.png,dog\ndog/0.png,dog\n")
    with pytest.raises(DataError, match=r"none\.png \(no such file\).*paths are relative to .*photos, data\.root"):
        load_csv(CsvConfig(path=path))
    with pytest.raises(DataError, match="line 2: a cell of image, label is empty"):
        load_csv(CsvConfig(path=table(photos, "image,label\ncat/0.png,\n")))
    with pytest.raises(DataError, match="line 2: 'tset' in column 'split' is no part; did you mean 'test'"):
        load_csv(CsvConfig(path=table(photos, "image,label,split\ncat/0.png,cat,tset\n"), split_column="split"))


def test_another_root_is_taken(photos, tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("file,class\n" + "".join(f"{c}/{n}.png,{c}\n" for c in ("cat", "dog") for n in range(3)))
    config = CsvConfig(path=path, root=photos, image_column="file", label_column="class", size=8)
    assert load_csv(config).train.images.shape == (6, 3, 8, 8)


def test_memory_holds_a_few_pictures_only(photos):
    raw = load(photos)
    assert type(raw.train.images).__name__ == "StoredImages"
    assert next((cache_folder() / "images").glob("*/images.rows")).stat().st_size == 10 * 3 * 16 * 16
