"""A look at data: each planted fault is found, and nothing is found where nothing was planted."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from edgestill.pipeline.data.datasets import NpzConfig, TextConfig
from edgestill.pipeline.data.loading import load_splits

RNG = np.random.default_rng(0)


def pictures(count: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, 6, 7, 3), np.uint8)


def arrays(train: int = 120, test: int = 30) -> dict[str, np.ndarray]:
    return {
        "x_train": pictures(train),
        "y_train": np.arange(train) % 3,
        "x_test": pictures(test),
        "y_test": np.arange(test) % 3,
    }


@pytest.fixture
def findings(tmp_path):
    """Looks at arrays and returns the findings by name."""

    def look(given):
        np.savez(tmp_path / "data.npz", **given)
        splits = load_splits(NpzConfig(path=tmp_path / "data.npz"), seed=0, looking=True)
        return {finding.name: finding for finding in splits.look.findings}

    return look


def test_clean_data_have_no_findings(findings):
    assert findings(arrays()) == {}


def test_copies_of_training_images_in_test_are_named(findings):
    given = arrays()
    given["x_test"][[4, 7]] = given["x_train"][0]
    given["y_test"][[4, 7]] = given["y_train"][0]
    found = findings(given)["shared"]
    assert found.count >= 2
    assert "test 4" in found.sentence
    assert "30 test" in found.sentence


def test_copies_with_another_label_are_told(findings):
    given = arrays()
    given["x_train"][1] = given["x_train"][0]
    found = findings(given)["contradictions"]
    assert found.count == 1
    assert "'0'" in found.sentence
    assert "'1'" in found.sentence


def test_classes_without_a_test_example_are_told(findings):
    given = arrays()
    found = findings(given | {"y_test": given["y_test"] % 2})
    assert found.keys() == {"lacking"}
    assert found["lacking"].sentence.startswith("test has no example of '2': ")


def test_images_of_one_colour_and_grey_ones_are_counted(findings):
    given = arrays()
    given["x_train"][5] = 200
    given["x_train"][6:10] = given["x_train"][6:10, ..., :1]
    found = findings(given)
    assert found["flat"].count == 1
    assert found["grey"].count == 5  # the flat one is grey too
    assert not found["grey"].is_caution


def test_counts_cover_every_example_and_strips_are_pictures_of_each_class(tmp_path):
    np.savez(tmp_path / "data.npz", **arrays())
    splits = load_splits(NpzConfig(path=tmp_path / "data.npz"), seed=0, looking=True)
    assert {name: sum(counts) for name, counts in splits.look.counts.items()} == splits.sizes
    assert list(splits.look.strips) == ["0", "1", "2"]
    strip = Image.open(io.BytesIO(base64.b64decode(splits.look.strips["1"])))
    assert strip.size == (8 * 8, 6)
    first = splits.train.images[splits.train.targets == 1][0].permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(strip)[:, :7], first)


def test_texts_that_are_cut_and_copied_are_told(tmp_path):
    words = ["good", "bad", "film", "plot", "cast", "scene"]
    rows = [f"{' '.join(RNG.choice(words, 4 if n % 4 else 30))} {n}\t{n % 2}" for n in range(200)]
    rows += ["the same text\t0"] * 60
    (tmp_path / "rows.tsv").write_text("\n".join(["sentence\tlabel", *rows]))
    config = TextConfig(path=tmp_path / "rows.tsv", max_length=16)
    splits = load_splits(config, seed=0, looking=True)
    found = {finding.name: finding for finding in splits.look.findings}
    assert found["cut"].is_caution
    assert "16 tokens" in found["cut"].sentence
    assert "shared" in found
    assert set(splits.look.texts) == {"0", "1"}
    longer = load_splits(TextConfig(path=tmp_path / "rows.tsv", max_length=200), seed=0, looking=True)
    assert "cut" not in {finding.name for finding in longer.look.findings}
