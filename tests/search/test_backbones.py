"""The space of timm's published networks: plain layers of the same function, published weights, and refusals."""

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from edgestill.distill.compression.fake_quant import fake_quantized
from edgestill.pipeline.errors import ArchitectureError, CheckpointError, ConfigError
from edgestill.pipeline.networks.cost import measure_cost
from edgestill.pipeline.torchvision_compat import repair
from edgestill.search.spaces.backbone_networks import created, known, plain, resized
from edgestill.search.spaces.backbones import DEFAULT, BackbonesConfig, BackbonesSpace

repair()
timm = pytest.importorskip("timm", reason="pip install 'edgestill[timm]'")

TINY = "test_efficientnet"  # of timm's own tests: 0.4 million parameters


def space_of(*models, **settings):
    return BackbonesSpace(BackbonesConfig(models=models, **settings))


def published_file(folder, model, classes=7):
    """A file as timm publishes it, with a classifier of its own; and the network."""
    torch.manual_seed(5)
    network = timm.create_model(model, num_classes=classes).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    save_file(network.state_dict(), folder / f"{model}.safetensors")
    return network


@pytest.mark.parametrize("side", [(33, 33), (32, 40)])
@pytest.mark.parametrize("model", [TINY, "tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_plain_layers_compute_the_same(model, side):
    network = created(model)
    other = plain(copy.deepcopy(network), side)
    images = torch.randn(4, 3, *side)
    for mode in (True, False):
        expected, found = (one.train(mode)(images.clone()) for one in (network, other))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_cost_counts_convolutions_that_pad_as_tensorflow_does(make_task):
    from torch.utils.flop_counter import FlopCounterMode

    space, task = space_of("tf_efficientnet_lite0", resolution=(33,)), make_task(channels=3, side=20)
    [architecture] = space.all_architectures()
    cost = measure_cost(lambda: space.build(architecture, task), task.input_shape)
    student = space.build(architecture, task).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        student(torch.rand(1, 3, 20, 20))
    assert 2 * cost.flops == counter.get_total_flops()


@pytest.mark.parametrize(
    ("sides", "resolution", "expected"),
    [((32, 32), 96, (96, 96)), ((32, 32), 0, (32, 32)), ((60, 80), 30, (30, 40)), ((80, 60), 120, (160, 120))],
)
def test_the_shorter_side_is_resized_and_the_shape_kept(sides, resolution, expected):
    assert resized(*sides, resolution) == expected


def test_published_weights_give_the_published_embedding_under_a_fresh_classifier(tmp_path, make_task):
    published = published_file(tmp_path, TINY)
    space, task = space_of(TINY, resolution=(48,), weights=tmp_path), make_task(channels=3, side=20, classes=4)
    [architecture] = space.all_architectures()
    student = space.build(architecture, task).eval()
    before = copy.deepcopy(student.get_classifier().state_dict())
    space.pretrain(student, architecture, task)
    images = torch.rand(3, 3, 20, 20)
    cfg = timm.get_pretrained_cfg(TINY)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (cfg.mean, cfg.std))
    seen = F.interpolate((images - mean) / std, (48, 48), mode="bilinear")
    expected = published.forward_head(published.forward_features(seen), pre_logits=True)
    embedding = student.forward_head(student.forward_features(images), pre_logits=True)
    torch.testing.assert_close(embedding, expected, rtol=1e-4, atol=1e-4)
    after = student.get_classifier().state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_grey_image_is_seen_as_the_same_image_in_colour(make_task):
    space = space_of(TINY, resolution=(32,))
    [architecture] = space.all_architectures()
    colour, grey = (space.build(architecture, make_task(channels=c, side=16)).eval() for c in (3, 1))
    grey.load_state_dict(colour.state_dict())
    image = torch.rand(2, 1, 16, 16)
    assert torch.equal(grey(image), colour(image.expand(-1, 3, -1, -1)))


def test_a_fine_pattern_does_not_alias_where_images_are_made_smaller(make_task):
    space = space_of(TINY, resolution=(32,))
    [architecture] = space.all_architectures()
    student = space.build(architecture, make_task(channels=3, side=96)).eval()
    rows = (torch.arange(96) % 3 == 0).float().view(1, 1, -1, 1).expand(1, 3, 96, 96)
    grey = torch.full((1, 3, 96, 96), float(rows.mean()))
    torch.testing.assert_close(student(rows), student(grey))


def test_models_without_a_file_are_named_with_the_way_out(tmp_path):
    published_file(tmp_path, TINY)
    with pytest.raises(ConfigError, match=r"has no weights of test_resnet, lcnet_035; add them as test_resnet\.safet"):
        space_of(TINY, "test_resnet", "lcnet_035", weights=tmp_path).require_weights()
    with pytest.raises(ConfigError, match=r"search\.space\.weights is not set; set it to hub, or to a folder"):
        space_of(TINY).require_weights()
    space_of(TINY, weights=tmp_path).require_weights()


def test_a_file_that_does_not_fit_says_which_tensors(tmp_path, make_task):
    published_file(tmp_path, TINY)
    (tmp_path / f"{TINY}.safetensors").rename(tmp_path / "test_resnet.safetensors")
    with pytest.raises(CheckpointError, match=r"test_resnet\.safetensors is a checkpoint of another architecture: "):
        space_of("test_resnet", weights=tmp_path).require_weights(make_task(channels=3))


def test_a_pickle_that_would_run_code_is_not_opened(tmp_path, make_task):
    torch.save({"network": created(TINY)}, tmp_path / f"{TINY}.pth")
    with pytest.raises(CheckpointError, match="was not opened, because that could run code"):
        space_of(TINY, weights=tmp_path).require_weights(make_task(channels=3))


def test_a_hub_that_is_out_of_reach_is_told_with_the_way_out(make_task, monkeypatch):
    def out_of_reach(model, pretrained):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("edgestill.search.spaces.backbones.created", out_of_reach)
    with pytest.raises(CheckpointError, match=r"cannot be had \(Network is unreachable\); give a folder of files in"):
        space_of(TINY, weights="hub").require_weights(make_task(channels=3))


def test_other_bytes_of_a_file_change_the_digest(tmp_path):
    published_file(tmp_path, TINY)
    space = space_of(TINY, weights=tmp_path)
    before = space.weights_digests()
    published_file(tmp_path, TINY, classes=8)
    assert len(before) == 1
    assert before != space.weights_digests()


def test_a_model_that_cannot_be_a_student_is_refused(make_task):
    assert all(known(model) is None for model in DEFAULT)
    with pytest.raises(ConfigError, match=r"timm knows no network 'resnet10x'; did you mean 'resnet10t'"):
        space_of("resnet10x").require(make_task())
    with pytest.raises(ConfigError, match="test_vit takes images of one size only"):
        space_of("test_vit").require(make_task())
    with pytest.raises(ConfigError, match="images of 1 or 3 channels; the data's have 4"):
        space_of(TINY).require(make_task(channels=4))
    with pytest.raises(ArchitectureError, match=r"did you mean 'lcnet_050'"):
        space_of("lcnet_050").parse("lcnet_050x@64")


def test_an_activation_fused_with_its_convolution_is_not_quantised_twice(make_task, make_split):
    space, task = space_of(TINY, resolution=(32,)), make_task(channels=3, side=16)
    [architecture] = space.all_architectures()
    split = make_split(task, 16)
    made = fake_quantized(space.build(architecture, task), [split.batch(torch.arange(16))], classifier=True)
    assert made(split.batch(torch.arange(4)).inputs).shape == (4, task.num_classes)
