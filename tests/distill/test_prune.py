"""Pruning: which channels go, how many, and whether what is left computes what it should."""

import copy
import json
import logging
import random
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgestill.distill.compression.narrow import changed_widths, narrow, widths_of
from edgestill.distill.compression.prune import TOLERANCE, PruningError, _prunable, _scored, prune
from edgestill.distill.compression.tracing import traceable
from edgestill.distill.config import DistillConfig, PruneConfig
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.networks.network import initialise
from edgestill.pipeline.nni_compat import contexts, load
from edgestill.pipeline.runs.checkpoint import load_weights, weights_bytes

CPU = torch.device("cpu")
BLOCKS = ("layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1")


@pytest.fixture(scope="module")
def task(make_task):
    return make_task(channels=1, side=8, classes=3)


@pytest.fixture(scope="module")
def network(task):
    made = CifarResNet((2, 2, 2), (8, 12, 16), num_classes=3, mean=task.mean, std=task.std)
    initialise(made, "kaiming", 0)
    generator = torch.Generator().manual_seed(1)
    for module in made.modules():  # channels with nothing special about them would hide a wrong index
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.add_(0.5 * torch.rand(tensor.shape, generator=generator))
    return made.eval()


@pytest.fixture(scope="module")
def batches(task, make_split):
    return list(make_split(task, 96, seed=4).batches(32))


@pytest.fixture(scope="module")
def pruned(network, batches):
    methods = ("l1", "fpgm", "taylor")
    return {m: prune(network, network.linear, PruneConfig(method=m, keep=0.5), batches, seed=0) for m in methods}


def params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def rebuilt(network: nn.Module, found) -> nn.Module:
    made = narrow(copy.deepcopy(network), found.widths)
    made.load_state_dict(found.state)
    return made.eval()


def kept_filters(network: nn.Module, found, layer: str) -> list[int]:
    """Positions of the kept filters of a convolution whose input channels all stay."""
    original = network.get_submodule(layer).weight
    positions = [
        int(torch.nonzero((original == w).flatten(1).all(1)).squeeze()) for w in found.state[f"{layer}.weight"]
    ]
    assert positions == sorted(set(positions))
    return positions


def importance(method: str, network: nn.Module, batches) -> dict[str, torch.Tensor]:
    """Each criterion by its formula, for each block's first convolution."""
    if method == "taylor":
        network = copy.deepcopy(network)
        layers = {name: network.get_submodule(f"{name}.conv1").weight for name in BLOCKS}
        scores = {name: torch.zeros(len(weight)) for name, weight in layers.items()}
        for batch in batches:
            loss = F.cross_entropy(network(batch.inputs), batch.targets)
            gradients = torch.autograd.grad(loss, list(layers.values()))
            for (name, weight), gradient in zip(layers.items(), gradients, strict=True):
                scores[name] += (weight * gradient).square().flatten(1).sum(1).detach() / len(batches)
        return scores
    filters = {name: network.get_submodule(f"{name}.conv1").weight.detach().flatten(1) for name in BLOCKS}
    if method == "l1":
        return {name: weight.abs().sum(1) for name, weight in filters.items()}
    return {name: torch.cdist(weight, weight).sum(1) for name, weight in filters.items()}


@pytest.mark.parametrize("method", ["l1", "fpgm", "taylor"])
def test_the_share_of_parameters_that_was_asked_for_is_left(method, network, pruned) -> None:
    left = params(rebuilt(network, pruned[method])) / params(network)
    assert left == pytest.approx(0.5, rel=TOLERANCE)
    assert not pruned[method].sums_pruned


def test_rounds_take_equal_shares_of_what_is_left_and_end_at_what_was_asked_for() -> None:
    shares = PruneConfig(method="l1", keep=0.4, rounds=3).shares
    assert shares == pytest.approx((0.4 ** (1 / 3), 0.4 ** (2 / 3), 0.4))
    assert PruneConfig(method="l1", keep=0.4).shares == (0.4,)


@pytest.mark.parametrize(("keep", "most"), [(0.5, 13), (0.9, 2)])
def test_rounds_that_take_next_to_nothing_are_refused(keep, most) -> None:
    assert PruneConfig(method="l1", keep=keep, rounds=most).shares[0] <= 0.95
    with pytest.raises(ValueError, match=f"{most + 1} rounds to {keep} take less than 5 % each; at most {most} do"):
        PruneConfig(method="l1", keep=keep, rounds=most + 1)


def test_a_number_of_parameters_can_be_asked_for(network, batches) -> None:
    wanted = PruneConfig(method="l1", keep=0.9)
    found = prune(network, network.linear, wanted, batches, seed=0, params=0.6 * params(network))
    assert params(rebuilt(network, found)) / params(network) == pytest.approx(0.6, rel=TOLERANCE)


@pytest.mark.parametrize("method", ["l1", "fpgm"])
def test_the_channels_that_stay_are_the_best_of_their_layer_by_the_criterion(method, network, pruned, batches) -> None:
    for name, scores in importance(method, network, batches).items():
        kept = kept_filters(network, pruned[method], f"{name}.conv1")
        assert len(kept) < len(scores)
        assert set(kept) == set(scores.topk(len(kept)).indices.tolist())


def test_taylor_ranks_the_channels_of_all_layers_together(network, pruned, batches) -> None:
    kept, removed = [], []
    for name, scores in importance("taylor", network, batches).items():
        stay = set(kept_filters(network, pruned["taylor"], f"{name}.conv1"))
        spared = set(scores.topk(max(1, round(0.1 * len(scores)))).indices.tolist())
        kept += [float(s) for i, s in enumerate(scores) if i in stay - spared]
        removed += [float(s) for i, s in enumerate(scores) if i not in stay]
    assert len(removed) > 10
    assert min(kept) >= max(removed) * (1 - 1e-4)


@pytest.mark.parametrize("method", ["l1", "fpgm", "taylor"])
def test_the_pruned_network_is_the_original_with_those_channels_silenced(method, network, pruned, batches) -> None:
    silenced = copy.deepcopy(network)
    for name in BLOCKS:
        norm = silenced.get_submodule(f"{name}.bn1")
        mask = torch.zeros(norm.num_features)
        mask[kept_filters(network, pruned[method], f"{name}.conv1")] = 1
        norm.register_forward_hook(lambda _, inputs, output, mask=mask: output * mask[:, None, None])
    with torch.no_grad():
        expected, found = silenced(batches[0].inputs), rebuilt(network, pruned[method])(batches[0].inputs)
    assert not torch.allclose(expected, network(batches[0].inputs), atol=1e-2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_network_comes_back_from_json_and_safetensors(network, pruned, batches, tmp_path) -> None:
    found = rebuilt(network, pruned["l1"])
    (tmp_path / "w.safetensors").write_bytes(weights_bytes(found))
    again = narrow(copy.deepcopy(network), json.loads(json.dumps(pruned["l1"].widths)))
    load_weights(again, tmp_path / "w.safetensors")
    with torch.no_grad():
        assert torch.equal(again.eval()(batches[0].inputs), found(batches[0].inputs))
    assert changed_widths(network, again) == pruned["l1"].widths


def test_pruning_leaves_the_network_the_generator_and_the_log_alone(network, pruned, batches) -> None:
    before, state = {k: v.clone() for k, v in network.state_dict().items()}, torch.random.get_rng_state()
    level, training = logging.getLogger("nni").level, network.training
    again = prune(network, network.linear, PruneConfig(method="taylor"), batches, seed=0)
    assert torch.equal(state, torch.random.get_rng_state())
    assert (logging.getLogger("nni").level, network.training) == (level, training)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert again.widths == pruned["taylor"].widths
    assert all(torch.equal(value, pruned["taylor"].state[name]) for name, value in again.state.items())


def kept_by(order, network, batches, monkeypatch) -> list[dict[str, list[bool]]]:
    """The channels that stay at each share, where NNI walks through its sets of names in this order."""

    class Ordered(set):
        def __iter__(self):
            return iter(order(super().__iter__()))

    load("nni.compression.pruning")
    example = batches[0].inputs[:2]
    original = traceable(network, example)
    found = []
    with monkeypatch.context() as patch, contexts():
        patch.setattr(sys.modules["nni.compression.base.config"], "set", Ordered, raising=False)
        for layers in _prunable(original, example):
            masks = _scored(original, network.linear, layers, PruneConfig(method="taylor"), batches, example)
            for share in range(1, 18):
                told = masks(share / 20)
                found.append({name: told[name]["weight"].flatten(1).any(1).tolist() for name in sorted(told)})
    return found


def test_the_channels_that_go_do_not_depend_on_the_order_of_a_set_of_names(network, batches, monkeypatch) -> None:
    """Python hashes text anew in every process, and NNI walks through sets of the layers' names."""
    one, other = (
        kept_by(order, network, batches, monkeypatch) for order in (sorted, lambda names: sorted(names, reverse=True))
    )
    assert one == other


def test_channels_of_residual_sums_go_only_where_the_others_are_not_enough(network, batches) -> None:
    found = prune(network, network.linear, PruneConfig(method="l1", keep=0.15), batches, seed=0)
    small = rebuilt(network, found)
    assert found.sums_pruned
    assert params(small) / params(network) == pytest.approx(0.15, rel=TOLERANCE)
    assert widths_of(small)["conv1"][1] < 8
    assert small.linear.in_features == 16, "the embedding keeps its width"
    assert small(batches[0].inputs).shape == (32, 3)


NB201 = "|{0}~0|+|{1}~0|nor_conv_3x3~1|+|{0}~0|nor_conv_3x3~1|nor_conv_3x3~2|"


@pytest.mark.parametrize(
    ("space", "architecture"), [("mobile", None), ("nb201", NB201.format("nor_conv_3x3", "nor_conv_1x1"))]
)
def test_students_of_other_spaces_can_be_pruned_too(space, architecture, small_space, make_task, make_split) -> None:
    space, task = small_space(space), make_task()
    chosen = space.parse(architecture) if architecture else space.sample(random.Random(0))
    network = space.build(chosen, task).eval()
    batch = make_split(task, 8).batch(torch.arange(8))
    found = prune(network, network.linear, PruneConfig(method="taylor", keep=0.7), [batch], seed=0)
    assert params(rebuilt(network, found)) / params(network) == pytest.approx(0.7, rel=TOLERANCE)


def test_a_cell_whose_skip_connections_tie_all_channels_is_refused_with_the_nearest_size(
    small_space, make_task, make_split
) -> None:
    space, task = small_space("nb201"), make_task()
    network = space.build(space.parse(NB201.format("skip_connect", "skip_connect")), task)
    with pytest.raises(PruningError, match=r"l1 cannot take the student from [\d,]+ to [\d,]+ parameters; the nearest"):
        prune(network, network.linear, PruneConfig(method="l1", keep=0.3), list(make_split(task, 8).batches(8)), seed=0)


def test_a_transformer_has_no_channels_to_prune(small_space, make_task, make_split) -> None:
    space, task = small_space("vit"), make_task()
    network = space.build(space.sample(random.Random(0)), task)
    with pytest.raises(PruningError, match="transformers have none"):
        prune(network, network.linear, PruneConfig(method="l1"), list(make_split(task, 8).batches(8)), seed=0)


def test_a_speed_up_that_changes_nothing_is_found_out(network, batches, monkeypatch) -> None:
    monkeypatch.setattr("edgestill.distill.compression.prune._speed_up", lambda network, *_: copy.deepcopy(network))
    with pytest.raises(PruningError, match=f"the nearest is {params(network):,}"):
        prune(network, network.linear, PruneConfig(method="l1"), batches, seed=0)


def test_fine_tuning_goes_on_from_the_pruned_weights_and_the_heads(network, task, make_splits, make_network) -> None:
    splits, config = make_splits(task), {"methods": [{"name": "lelp", "subclasses": 2}], "training": {"epochs": 1}}
    head = make_recipe(DistillConfig.model_validate(config).methods).deployable(network).get_classifier()
    found = prune(network, head, PruneConfig(method="l1"), list(splits.reference.batches(18)), seed=0)
    student = rebuilt(network, found)
    start = make_recipe(DistillConfig.model_validate(config).methods).deployable(student)
    start.get_classifier().load_state_dict(head.state_dict())
    whole = params(network) - params(network.linear) + params(head)
    assert params(start) == pytest.approx(0.5 * whole, rel=TOLERANCE)
    begun = {name: value.clone() for name, value in start.state_dict().items()}
    config["training"]["learning_rate"] = 1e-12
    done = distill(
        student, make_network(task=task), splits, DistillConfig.model_validate(config), seed=0, device=CPU, start=begun
    )
    for name, parameter in done.student.named_parameters():
        torch.testing.assert_close(parameter, begun[name], atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("widths", "problem"),
    [
        ({"layer9.conv1": (1, 1)}, "no convolution, batch norm or linear layer called 'layer9.conv1'"),
        ({"bn1": (4, 5)}, "bn1 is a batch norm: 4 channels in cannot become 5"),
    ],
)
def test_widths_that_fit_no_layer_are_refused(widths, problem, network) -> None:
    with pytest.raises(ValueError, match=problem):
        narrow(copy.deepcopy(network), widths)


@pytest.mark.parametrize("keeps_statistics", [True, False])
def test_a_batch_norm_without_weights_is_narrowed_too(keeps_statistics):
    norm = nn.BatchNorm2d(6, affine=False, track_running_stats=keeps_statistics)
    network = narrow(nn.Sequential(nn.Conv2d(3, 6, 1), norm), {"0": (3, 4), "1": (4, 4)})
    assert network(torch.rand(2, 3, 5, 5)).shape == (2, 4, 5, 5)
    assert not network[1].affine
