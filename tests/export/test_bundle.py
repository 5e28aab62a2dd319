"""The folder that a person is handed, and the script in it, run as that person would."""

import hashlib
import importlib.util
import json
import re
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import edgestill
from edgestill.export.bundle.card import model_card
from edgestill.export.bundle.schema import Bundle
from edgestill.pipeline.training.confusion import Confusion

HEIGHT, WIDTH = 10, 8


def answers(network, images):
    """Label numbers by torch, of images [H, W, C] in [0, 1] of the model's size."""
    with torch.no_grad():
        stack = torch.stack([torch.as_tensor(np.array(image)).permute(2, 0, 1).float() for image in images])
        return network(stack).argmax(1).tolist()


def run(folder, *images, prelude=None, cwd=None):
    """As a person would: another process, another working directory, nothing of ours on the path."""
    command = [sys.executable, "-I", str(folder / "run.py"), *map(str, images)]
    if prelude is not None:
        start = f"import sys, runpy; sys.argv = {command[2:]!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
        command = [sys.executable, "-I", "-c", f"{prelude}; {start}"]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", timeout=60, cwd=cwd or folder.parent, check=False
    )


@pytest.fixture(scope="module")
def script():
    """The script's functions, for comparisons pixel by pixel."""
    path = Path(edgestill.__file__).parent / "export" / "bundle" / "scripts" / "run_images.py"
    spec = importlib.util.spec_from_file_location("bundled_run", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The folder


SCRIPTS = {"run.py", "profile_device.py"}
FILES = {"model.onnx", "labels.txt", "MODEL_CARD.md", "bundle.json", "probes.safetensors", "sbom.cdx.json"} | SCRIPTS


def test_the_folder_is_whole_and_its_digests_are_true(bundles):
    folder, _, bundle = bundles(3)
    assert {p.name for p in folder.iterdir()} == FILES | {"manifest.json"}
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["files"]) == FILES
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    written = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    assert written["schema"] == "edgestill.bundle/2"
    assert json.loads(bundle.model_dump_json(by_alias=True)) == written
    assert written["models"]["fp32"]["bytes"] == (folder / "model.onnx").stat().st_size
    assert (folder / "labels.txt").read_text(encoding="utf-8").splitlines() == list(bundle.task.labels)


def test_the_manifest_covers_itself_by_a_digest_of_its_other_content(bundles):
    written = json.loads((bundles(3)[0] / "manifest.json").read_text(encoding="utf-8"))
    digest = written.pop("digest")
    rest = (json.dumps(written, indent=1, sort_keys=True) + "\n").encode()
    assert hashlib.sha256(rest).hexdigest() == digest


def test_the_model_card_quotes_the_measured_numbers(bundles):
    card = (bundles(3)[0] / "MODEL_CARD.md").read_text(encoding="utf-8")
    for said in ("95.12%", "450 images", "12,345", "853,018", "max_params 20,000"):
        assert said in card
    for said in (
        "0.0123",
        "15 bins",
        "| contrast halved | 50.00% |",
        "| cat | 75 | 90.00% | none |",
        "| model | MIT |",
    ):
        assert said in card
    assert "onnxruntime 1, 1 thread, batch 1, the timed CPU." in card
    assert "`model.onnx`: 4.00× faster than the teacher [3.90, 4.10]\n(95% interval)" in card
    assert "max_flops" not in card
    assert "resnet:1-1-1/4-6-8" in card


def test_the_card_names_classes_that_are_hardly_recognised_and_the_mistakes(bundles):
    bundle = bundles(3)[2]
    confusion = Confusion(num_classes=6, cells=((0, 0, 70), (0, 1, 5), (1, 1, 72), (1, 2, 3), (2, 0, 75)))
    card = model_card(bundle.model_copy(update={"quality": bundle.quality.model_copy(update={"confusion": confusion})}))
    assert "right on 33.33% of them; the mean recall\nof the classes is 63.11%." in card
    assert "Caution: the model hardly recognises 1 of 6 classes; recall on test: 'grün' 0.0% of 75; mean" in card
    assert "mean recall 63.1%." in card
    assert "| cat | 70 | 5 | 0 | 0 | 0 | 0 |" in card
    assert "| grün | 75 | 0 | 0 | 0 | 0 | 0 |" in card
    assert "Caution: the model hardly" not in model_card(bundle)


def test_nothing_of_others_is_markup_breaks_a_line_or_steers_a_terminal_in_the_card(bundles):
    bundle = bundles(3).bundle
    hostile = "<script>alert(1)</script>|`x`\n# head\x1b[2J\u202e\u2028"
    quality = bundle.quality.model_copy(
        update={"classes": tuple(c.model_copy(update={"label": hostile}) for c in bundle.quality.classes)}
    )
    changes = {
        "task": bundle.task.model_copy(update={"labels": (hostile, *bundle.task.labels[1:])}),
        "name": hostile,
        "quality": quality,
        "latency": {**bundle.latency, "cpu": hostile, "runtime": hostile},
        "versions": {hostile: hostile},
        "licences": bundle.licences.model_copy(update={"data": hostile}),
        "data": {**bundle.data, "description": hostile},
        "use": {"intended": hostile, "limits": hostile},
        "later": (hostile,),
        "cautions": (hostile,),
    }
    for name, value in changes.items():
        card = model_card(bundle.model_copy(update={name: value}))
        assert "\\<script\\>alert" in card, name
        assert card.replace("\n", "").isprintable(), name
        assert not re.search(r"(?<!\\)[<|`](?:script|`x|x`)", card), name
        assert "\n# head" not in card, name


def test_words_of_others_are_no_markup_in_the_card(bundles):
    card = (bundles(3)[0] / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "sorting \\*parcels\\*" in card
    assert "| \\<tag\\> |" in card


def test_a_default_that_only_another_runtime_opens_is_refused(bundles):
    bundle = bundles(3)[2]
    other = bundle.models["fp32"].model_copy(update={"runtime": "openvino"})
    values = bundle.model_copy(update={"models": {"fp32": other}}).model_dump(by_alias=True)
    with pytest.raises(ValueError, match=r"not for onnxruntime, which is all that run\.py has"):
        Bundle.model_validate(values)


# The script, as a process


def test_it_answers_as_the_network_for_every_format(bundles, tmp_path):
    folder, network, bundle = bundles(3)
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(7)]
    grey, palette = Image.fromarray(pixels[1][..., 0]), Image.fromarray(pixels[2]).quantize(16)
    alpha = Image.fromarray(np.dstack([pixels[3], pixels[0][..., 0]]), "RGBA")
    files = {}
    for name, image in {"rgb.png": Image.fromarray(pixels[0]), "grey.png": grey, "palette.png": palette,
                        "alpha.png": alpha, "grey.pgm": grey, "rgb.ppm": Image.fromarray(pixels[4]),
                        "rgb.bmp": Image.fromarray(pixels[5])}.items():  # fmt: skip
        image.save(tmp_path / name)
        files[name] = np.asarray(image.convert("RGB")) / 255
    files["alpha.png"] = pixels[3] / 255
    np.save(tmp_path / "bytes.npy", pixels[6])
    np.save(tmp_path / "floats.npy", (pixels[6] / 255).astype(np.float64))
    files["bytes.npy"] = files["floats.npy"] = pixels[6] / 255
    done = run(folder, *(tmp_path / name for name in files))
    assert done.returncode == 0, done.stderr
    labels = [bundle.task.labels[k] for k in answers(network, files.values())]
    assert done.stdout.splitlines() == [
        f"{tmp_path / name}: {label}" for name, label in zip(files, labels, strict=True)
    ]
    assert len(set(labels)) > 1
    assert done.stderr == ""


def test_one_image_gives_one_bare_label(bundles, tmp_path):
    folder, network, bundle = bundles(1)
    pixels = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    done = run(folder, "image.png", cwd=tmp_path)
    assert done.stdout == bundle.task.labels[answers(network, [pixels[..., None] / 255])[0]] + "\n"


def test_without_pillow_it_reads_what_it_promises_and_says_what_else_needs_it(bundles, tmp_path):
    folder, network, bundle = bundles(3)
    pixels = np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for name in ("image.png", "image.ppm", "image.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    without = "import sys; sys.modules['PIL'] = None"
    done = run(folder, tmp_path / "image.png", tmp_path / "image.ppm", prelude=without)
    assert done.returncode == 0, done.stderr
    label = bundle.task.labels[answers(network, [pixels / 255])[0]]
    assert [line.rsplit(": ", 1)[1] for line in done.stdout.splitlines()] == [label] * 2
    refused = run(folder, tmp_path / "image.jpg", prelude=without)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "install Pillow for this format, or convert it to an 8-bit PNG" in refused.stderr


def test_without_an_image_it_says_how_it_is_used(bundles):
    done = run(bundles(3)[0])
    assert done.returncode == 2
    assert "python run.py IMAGE" in done.stderr


def png(pixels, kind, colour, depth=8, interlace=0, palette=b""):
    """A PNG with one filter type on every line (PNG specification, section 9), written out by hand."""
    height, width, step = pixels.shape
    lines = pixels.reshape(height, width * step).astype(int)
    raw = b""
    for y, line in enumerate(lines):
        left = np.concatenate([np.zeros(step, int), line[:-step]])
        up = lines[y - 1] if y else np.zeros_like(line)
        corner = np.concatenate([np.zeros(step, int), up[:-step]])
        guess = [0 * line, left, up, (left + up) // 2, paeth(left, up, corner)][kind]
        raw += bytes([kind]) + ((line - guess) % 256).astype(np.uint8).tobytes()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    chunks = [(b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks if d or k != b"PLTE"
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def paeth(left, up, corner):
    estimate = left + up - corner
    near = np.stack([abs(estimate - left), abs(estimate - up), abs(estimate - corner)])
    return np.choose(near.argmin(0), [left, up, corner])


def on_white(image):
    """A picture as Pillow pastes it on white."""
    paper = Image.new("RGB", image.size, "white")
    paper.paste(image, mask=image.getchannel("A"))
    return np.asarray(paper)


@pytest.mark.parametrize(("colour", "step"), [(0, 1), (2, 3), (3, 1), (4, 2), (6, 4)])
@pytest.mark.parametrize("kind", range(5))
def test_every_png_filter_and_colour_type_is_read_as_pillow_reads_it(script, tmp_path, colour, step, kind):
    rng = np.random.default_rng(10 * colour + kind)
    pixels = rng.integers(0, 256, (7, 5, step), dtype=np.uint8)
    palette = rng.integers(0, 256, 768, dtype=np.uint8).tobytes() if colour == 3 else b""
    path = tmp_path / "image.png"
    path.write_bytes(png(pixels, kind, colour, palette=palette))
    found = script.read_image(path)
    with Image.open(path) as image:
        image.load()
        expected = on_white(image.convert("RGBA"))[..., : 1 if colour in (0, 4) else 3]
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.array_equal(np.round(found * 255).astype(np.uint8), expected)


def test_a_png_in_several_pieces_is_read(script, tmp_path):
    """IDAT may be cut anywhere."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    whole = png(pixels, 1, 2)
    start = whole.index(b"IDAT")
    (length,) = struct.unpack(">I", whole[start - 4 : start])
    body = whole[start + 4 : start + 4 + length]
    pieces = b"".join(
        struct.pack(">I", len(part)) + b"IDAT" + part + struct.pack(">I", zlib.crc32(b"IDAT" + part))
        for part in (body[:100], body[100:101], body[101:])
    )
    path = tmp_path / "image.png"
    path.write_bytes(whole[: start - 4] + pieces + whole[start + 8 + length :])
    assert np.array_equal(np.round(script.read_image(path) * 255), pixels)


def test_netpbm_comments_and_blanks_are_skipped(script, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 1), dtype=np.uint8)
    path = tmp_path / "image.pgm"
    path.write_bytes(b"P5 # made by hand\n# twice\n 4\t3\n255\n" + pixels.tobytes())
    assert np.array_equal(np.round(script.read_image(path) * 255), pixels)


def seconds(command):
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    return time.perf_counter() - start


@pytest.mark.parametrize("kind", ["raw", "image", "text"])
def test_the_first_answer_comes_within_300_ms_of_what_the_interpreter_and_onnxruntime_take(
    bundles, text_bundle, tmp_path, kind
):
    """Medians of processes that take turns, so that a busy machine slows both; at best of three tries."""
    folder = text_bundle.folder if kind == "text" else bundles(3, kind).folder
    given = "a moving film" if kind == "text" else str(tmp_path / "image.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "image.png")
    start = [sys.executable, "-I", "-c", "import onnxruntime"]
    whole = [sys.executable, "-I", str(folder / "run.py"), given]
    found = []
    for _ in range(3):
        pairs = [(seconds(start), seconds(whole)) for _ in range(5)]
        alone, answered = (float(np.median(column)) for column in zip(*pairs, strict=True))
        found.append(answered - alone)
        if found[-1] <= 0.3:
            return
    pytest.fail(f"run.py took {', '.join(f'{1000 * s:.0f}' for s in found)} ms beyond start-up and import")


def test_the_image_interface_gives_the_same_labels(bundles, tmp_path):
    images = np.random.default_rng(5).integers(0, 256, (6, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    paths = [tmp_path / f"{number}.png" for number in range(len(images))]
    raw, wrapped = (run(bundles(3, interface).folder, *paths) for interface in ("raw", "image"))
    assert wrapped.returncode == 0, wrapped.stderr
    assert wrapped.stdout == raw.stdout


# Files that are wrong


def wrong_files(folder):
    good = png(np.zeros((4, 4, 3), np.uint8), 0, 2)
    arrays = {
        "objects.npy": np.array([{}], dtype=object),
        "bright.npy": np.full((4, 4), 7.5),
        "nan.npy": np.full((4, 4), np.nan),
        "line.npy": np.zeros(16, np.uint8),
        "empty.npy": np.zeros((0, 4), np.uint8),
    }
    for name, array in arrays.items():
        np.save(folder / name, array, allow_pickle=True)
    contents = {
        "text.txt": b"this is no image\n",
        "nothing.png": b"",
        "signature.png": good[:8],
        "truncated.png": good[:-25],
        "damaged.png": good[:50] + b"\xff\xff" + good[52:],
        "no_palette.png": png(np.zeros((4, 4, 1), np.uint8), 0, 3),
        "short_palette.png": png(np.full((4, 4, 1), 9, np.uint8), 0, 3, palette=b"\0\0\0"),
        "truncated.ppm": b"P6 4 4 255\n" + bytes(10),
        "deep.pgm": b"P5 2 2 65535\n" + bytes(8),
        "header.pgm": b"P5 4",
        "truncated.npy": (folder / "bright.npy").read_bytes()[:70],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [*arrays, *contents, "missing.png", "."]


def test_a_wrong_file_gives_one_sentence_and_two(script, bundles, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script, "HERE", bundles(3)[0])
    for name in wrong_files(tmp_path)[:-1]:  # a folder stands for its pictures
        assert script.main([str(tmp_path / name)]) == 2, name
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(f"{tmp_path / name}: not an image that this script reads (")
        assert said.err.count("\n") == 1, said.err


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_photograph_is_read_as_a_viewer_shows_it(script, tmp_path, turn):
    """The tag Orientation (EXIF 2.32, section 4.6.4) says how the stored pixels lie in the picture that is seen."""
    seen = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14
    # By the standard: row 0 and column 0 of what is stored are which sides of what is seen.
    stored = {
        1: seen,  # top, left
        2: seen[:, ::-1],  # top, right
        3: seen[::-1, ::-1],  # bottom, right
        4: seen[::-1],  # bottom, left
        5: seen.swapaxes(0, 1),  # left, top
        6: seen[:, ::-1].swapaxes(0, 1),  # right, top
        7: seen[::-1, ::-1].swapaxes(0, 1),  # right, bottom
        8: seen[::-1].swapaxes(0, 1),  # left, bottom
    }
    exif = Image.Exif()
    exif[0x0112] = turn
    path = tmp_path / "photograph.webp"
    Image.fromarray(np.ascontiguousarray(stored[turn])).save(path, lossless=True, exif=exif)
    np.testing.assert_array_equal(script.decode(script.read_file(path)), seen)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_png_is_turned_by_its_tag_without_pillow(script, tmp_path, monkeypatch, turn):
    seen = np.random.default_rng(turn).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(seen).save(tmp_path / "photograph.png", exif=exif)
    with Image.open(tmp_path / "photograph.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    monkeypatch.setitem(sys.modules, "PIL", None)
    np.testing.assert_array_equal(script.decode(script.read_file(tmp_path / "photograph.png")), expected)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_of_16_bits_the_upper_8_are_kept_with_pillow_and_without(script, colour, channels):
    stored = np.random.default_rng(colour).integers(0, 256, (6, 4, 2 * channels), dtype=np.uint8)
    data = png(stored, 2, colour, depth=16)
    upper = stored[..., ::2]  # big-endian: the upper byte comes first
    opaque = np.full((6, 4, 1), 255, np.uint8)
    alpha = upper[..., -1:] if channels in (2, 4) else opaque
    colours = np.broadcast_to(upper[..., : 3 if channels >= 3 else 1], (6, 4, 3))
    expected = on_white(Image.fromarray(np.concatenate([colours, alpha], axis=2)))
    found = script.decode(data)
    np.testing.assert_array_equal(np.broadcast_to(found, (6, 4, 3)), expected)
    np.testing.assert_array_equal(script.read_with_pillow(data), expected)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_is_white_with_pillow_and_without(script, tmp_path, mode):
    pixels = np.random.default_rng(1).integers(0, 4, (9, 7), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode) if mode != "P" else Image.fromarray(pixels, "P")
    if mode == "P":
        image.putpalette(np.arange(768, dtype=np.uint32).astype(np.uint8).tobytes())
    image.save(tmp_path / "image.png", transparency={"P": 2, "L": 2, "RGB": (2, 2, 2)}[mode], bits=8)
    found = script.decode(script.read_file(tmp_path / "image.png"))
    assert (found[pixels == 2] == 255).all()
    assert (found[pixels == 1] < 16).all()
    by_pillow = script.read_with_pillow((tmp_path / "image.png").read_bytes())
    np.testing.assert_array_equal(np.broadcast_to(found, (9, 7, 3)), by_pillow)


def test_pngs_that_only_pillow_reads_are_read_with_it_and_refused_without(script, tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 4, (5, 6), dtype=np.uint8)
    path = tmp_path / "two_bits.png"
    image = Image.fromarray(pixels, "P")
    image.putpalette(bytes(range(12)))
    image.save(path, bits=2)
    assert path.read_bytes()[24] == 2
    assert np.array_equal(np.round(script.read_image(path) * 255), np.asarray(image.convert("RGB")))
    interlaced = tmp_path / "interlaced.png"
    interlaced.write_bytes(png(np.zeros((4, 4, 3), np.uint8), 0, 2, interlace=1))
    monkeypatch.setitem(sys.modules, "PIL", None)
    for refused in (path, interlaced):
        with pytest.raises(ValueError, match="install Pillow"):
            script.read_image(refused)


def test_a_wrong_file_ends_the_process_with_two(bundles, tmp_path):
    (tmp_path / "text.txt").write_text("no image")
    done = run(bundles(3)[0], tmp_path / "text.txt")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


# Sizes and channels


def test_another_size_is_resized_with_a_note(script, bundles, tmp_path, capsys, monkeypatch):
    folder, network, bundle = bundles(3)
    monkeypatch.setattr(script, "HERE", folder)
    pixels = np.random.default_rng(3).integers(0, 256, (2 * HEIGHT, 3 * WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    assert script.main([str(tmp_path / "image.png")]) == 0
    said = capsys.readouterr()
    small = np.asarray(Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)) / 255
    assert said.out.strip() == bundle.task.labels[answers(network, [small])[0]]
    assert f"resized from {3 * WIDTH}x{2 * HEIGHT} to {WIDTH}x{HEIGHT}" in said.err


def test_colour_becomes_grey_as_pillow_makes_it_and_grey_becomes_colour(script):
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    grey = script.fit_to(pixels, (1, HEIGHT, WIDTH), "crop", "image")
    by_pillow = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.array_equal(np.round(grey[0] * 255), by_pillow)
    colour = script.fit_to(by_pillow[..., None], (3, HEIGHT, WIDTH), "crop", "image")
    assert colour.shape == (3, HEIGHT, WIDTH)
    assert all(np.array_equal(channel, grey[0]) for channel in colour)


def test_floats_of_the_right_size_are_left_alone_and_others_become_bytes(script):
    pixels = np.random.default_rng(0).random((HEIGHT, WIDTH, 3)).astype(np.float32)
    found = script.fit_to(pixels, (3, HEIGHT, WIDTH), "crop", "image")
    assert np.array_equal(found, pixels.transpose(2, 0, 1))
    opaque = np.concatenate([pixels, np.ones((HEIGHT, WIDTH, 1), np.float32)], axis=2)
    found = script.fit_to(opaque, (3, HEIGHT, WIDTH), "crop", "image")
    assert np.array_equal(np.round(found * 255), np.floor(pixels * 255 + 0.5).transpose(2, 0, 1))


def test_an_array_of_five_channels_is_refused_for_three(script):
    with pytest.raises(ValueError, match="5 channels; the model takes 3"):
        script.fit_to(np.zeros((4, 4, 5), np.uint8), (3, HEIGHT, WIDTH), "crop", "image")
