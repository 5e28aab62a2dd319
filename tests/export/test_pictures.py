"""From a picture's file to its probabilities: training, ONNX Runtime, OpenVINO, run.py and `predict` see the same."""

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image, ImageOps

from edgestill.export.bundle.predict import predict
from edgestill.export.bundle.read import open_bundle
from edgestill.export.bundle.scripts import measure, run_images
from edgestill.export.device import worker
from edgestill.export.onnx.fitting import Fitting, check_fitting
from edgestill.export.onnx.interface import with_image_interface
from edgestill.export.onnx.sessions import IMAGE, open_session
from edgestill.export.onnx.sizes import wrong_ends
from edgestill.pipeline.data.pixels import RESIZES, fitted, with_channels
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.task import Task

HEIGHT, WIDTH, CLASSES = 10, 8, 6
MODES = ("RGB", "L", "RGBA", "CMYK", "P", "turned")


def generated(count):
    """Smooth fields with edges and some noise, of many sizes."""
    for number in range(count):
        rng = np.random.default_rng(number)
        height, width = rng.integers(6, 120, 2)
        coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        field = np.asarray(coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC)).astype(int)
        field[rng.integers(height) :, rng.integers(width) :] //= 2
        yield np.clip(field + rng.integers(-8, 9, field.shape), 0, 255).astype(np.uint8)


def cifar(sheet, count):
    """The first pictures of a sheet of 32 x 32 tiles, of 25 sizes: OpenVINO prepares itself for each anew."""
    tiles = np.asarray(Image.open(sheet).convert("RGB"))
    tiles = tiles.reshape(40, 32, 50, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
    for number, pixels in enumerate(tiles[:count]):
        size = tuple(int(side) for side in np.random.default_rng(number).choice([24, 37, 64, 101, 180], 2))
        yield np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def written(folder, pictures):
    """Write pictures as people have them: colour, grey, transparent, CMYK, with a palette, stored sideways."""
    paths = []
    for number, pixels in enumerate(pictures):
        mode, image = MODES[number % len(MODES)], Image.fromarray(pixels)
        path = folder / f"{number}.{'jpg' if mode in ('RGB', 'L', 'CMYK', 'turned') else 'png'}"
        if mode == "RGBA":
            alpha = Image.fromarray(np.tile(np.linspace(0, 255, image.width).astype(np.uint8), (image.height, 1)))
            image.putalpha(alpha)
        elif mode == "P":
            image = image.quantize(16)
        elif mode != "turned":
            image = image.convert(mode)
        if mode == "turned":
            exif = Image.Exif()
            exif[0x0112] = 6
            image.transpose(Image.Transpose.ROTATE_90).save(path, quality=92, exif=exif)
        else:
            image.save(path, **({"quality": 92} if path.suffix == ".jpg" else {}))
        paths.append(path)
    return paths


def decoded(path):
    """A picture as a viewer shows it, on white, by Pillow."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        if not upright.has_transparency_data:
            return upright.convert("RGB")
        paper, clear = Image.new("RGB", upright.size, "white"), upright.convert("RGBA")
        paper.paste(clear, mask=clear.getchannel("A"))
        return paper


def by_pillow(image, resize):
    """The rule in Pillow's words: width first, then height; centre crop or black borders."""
    height, width = HEIGHT, WIDTH
    if resize != "stretch":
        choose = max if resize == "crop" else min
        share = choose(HEIGHT / image.height, WIDTH / image.width)
        height, width = (max(1, int(side * share + 0.5)) for side in (image.height, image.width))
    image = image.resize((width, image.height), Image.Resampling.BILINEAR)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    top, left = (int((old - new) / 2) for old, new in ((height, HEIGHT), (width, WIDTH)))  # towards zero
    return np.asarray(image.crop((left, top, left + WIDTH, top + HEIGHT)))  # black beyond the picture


def trained(network, pixels):
    """Probabilities on the training path: stored bytes, a batch of the split, the network."""
    images = torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2).copy())
    batch = ImageSplit(images, torch.zeros(len(images), dtype=torch.int64)).batch(torch.arange(len(images)))
    with torch.no_grad():
        return network(batch.inputs).softmax(1).numpy()


def by_onnxruntime(path):
    session = onnxruntime.InferenceSession(path)
    return lambda image: session.run(["probabilities"], {"image": np.asarray(image)[None]})[0][0]


def by_openvino(path):
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: compiled({"image": np.asarray(image)[None]})["probabilities"][0]


def assert_same(found, expected, what):
    assert np.abs(found - expected).max() <= 1e-3, what
    assert (found.argmax(1) == expected.argmax(1)).all(), what


def assert_all_agree(made, paths, resize):
    images = [decoded(path) for path in paths]
    expected = trained(made.network, [by_pillow(image, resize) for image in images])
    assert len(set(expected.argmax(1))) > 1
    if made.bundle.interface == "image":
        for runtime in (by_onnxruntime, by_openvino):
            run = runtime(made.folder / "model.onnx")
            assert_same(np.stack([run(image) for image in images]), expected, runtime.__name__)
    with open_bundle(made.folder) as opened:
        answers = predict(opened, [str(path) for path in paths])
    assert_same(np.array([answer.probabilities for answer in answers]), expected, "predict")
    command = [sys.executable, "-I", str(made.folder / "run.py"), *map(str, paths)]
    said = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=True).stdout
    labels = [made.bundle.task.labels[best] for best in expected.argmax(1)]
    assert said.splitlines() == [f"{path}: {label}" for path, label in zip(paths, labels, strict=True)]


@pytest.mark.parametrize(
    ("interface", "resize"), [("raw", "pad"), ("image", "crop"), ("image", "pad"), ("image", "stretch")]
)
def test_a_picture_s_file_gets_the_same_probabilities_everywhere(bundles, tmp_path, interface, resize):
    assert_all_agree(bundles(3, interface, resize), written(tmp_path, generated(36)), resize)


@pytest.mark.data
def test_500_real_pictures_get_the_same_answers_everywhere(bundles, tmp_path, development_data):
    sheet = development_data / "cifar10" / "test_00.webp"
    assert_all_agree(bundles(3, "image", "crop"), written(tmp_path, cifar(sheet, 500)), "crop")


def test_a_bundle_without_a_rule_stretches(bundles, tmp_path):
    assert_all_agree(bundles(3), written(tmp_path, generated(12)), "stretch")


def test_a_batch_of_equal_pictures_is_resized_like_single_ones(bundles):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 33, 47, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(bundles(3, "image", "pad").folder / "model.onnx")
    together = session.run(["logits"], {"image": pictures})[0]
    single = [session.run(["logits"], {"image": picture[None]})[0][0] for picture in pictures]
    assert together == pytest.approx(np.stack(single), abs=1e-4)


def test_the_bundle_says_that_any_size_goes_in(bundles):
    made = bundles(3, "image", "crop")
    (taken,) = onnxruntime.InferenceSession(made.folder / "model.onnx").get_inputs()
    assert taken.shape == ["batch", "height", "width", 3] == made.bundle.input["shape"]
    assert (made.bundle.input["resize"], made.bundle.input["size"]) == ("crop", [HEIGHT, WIDTH])
    assert "resizing, scaling and normalisation are inside" in (made.folder / "MODEL_CARD.md").read_text()


def test_a_file_of_one_size_is_refused_where_any_size_is_promised(bundles):
    from edgestill.export.onnx.interface import ends_of

    model = onnx.load(bundles(3, "image").folder / "model.onnx")
    ends = ends_of(bundles(3, "image", "crop").bundle.task, "image")
    assert wrong_ends(model.graph, ends) == "has other image than UINT8 [batch, any size, any size, 3]"


@pytest.mark.parametrize("resize", RESIZES)
def test_operators_that_resize_otherwise_are_caught(resize):
    fitting = Fitting(HEIGHT, WIDTH, resize, IMAGE)
    check_fitting(fitting, (HEIGHT, WIDTH, 3), resize, 20, open_session)
    half = next(tensor for tensor in fitting.tensors if numpy_helper.to_array(tensor).dtype == np.float32)
    half.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(half) / 2, half.name))
    with pytest.raises(ExportError, match="otherwise than training did"):
        check_fitting(fitting, (HEIGHT, WIDTH, 3), resize, 20, open_session)


@pytest.mark.parametrize("opset", [18, 23])
def test_every_opset_of_the_settings_has_the_operators(bundles, opset):
    raw = onnx.load(bundles(3, "image", "pad").folder.parent / "raw.onnx")
    raw.opset_import[0].version = opset
    taken = onnx.load_from_string(with_image_interface(raw.SerializeToString(), "pad")).graph.input[0]
    assert [side.dim_param or side.dim_value for side in taken.type.tensor_type.shape.dim][1:] == ["height", "width", 3]
    assert taken.name == IMAGE
    assert helper.tensor_dtype_to_np_dtype(taken.type.tensor_type.elem_type) == np.uint8


def test_a_task_keeps_its_rule_and_one_without_is_written_as_before():
    plain = Task(labels=("a", "b"), input_shape=(1, 2, 2), mean=(0.5,), std=(1.0,))
    assert "resize" not in plain.model_dump()
    told = plain.model_copy(update={"resize": "pad"})
    assert Task.model_validate_json(told.model_dump_json()) == told
    with pytest.raises(ValueError, match="only an image task has a resize"):
        Task(kind="text", labels=("a", "b"), input_shape=(4,), vocab_size=9, resize="pad")


def test_training_reads_a_picture_s_file_as_run_py_does(tmp_path):
    training = pytest.importorskip("edgestill.pipeline.data.decode")
    for path in written(tmp_path, generated(24)):
        read, taken = (module.decode(path.read_bytes()) for module in (training, run_images))
        assert np.array_equal(with_channels(read, 3), with_channels(taken, 3)), path
        for resize in RESIZES:
            fast = training.fitted_fast(read, 3, HEIGHT, WIDTH, resize)
            assert np.array_equal(fast, fitted(taken, 3, HEIGHT, WIDTH, resize)), (path, resize)


def test_a_profile_times_pictures_with_the_longer_side_of_the_network_s(bundles):
    folder = bundles(3, "image", "crop").folder
    length = measure._length(json.loads((folder / "bundle.json").read_text(encoding="utf-8")))
    taken = onnxruntime.InferenceSession(folder / "model.onnx").get_inputs()
    given = next(worker.inputs_of(taken, {"seed": 0, "examples": None, "batch": 2, "length": length}))
    assert given["image"].shape == (2, HEIGHT, HEIGHT, 3)
    assert measure._length({"input": {"max_length": 12}}) == 12
    assert measure._length(json.loads((bundles(3).folder / "bundle.json").read_text(encoding="utf-8"))) == 0
