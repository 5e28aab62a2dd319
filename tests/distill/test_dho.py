"""DHO's two heads: their losses, their mix, and what ships."""

import dataclasses

import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.conformance.prepared import prepared
from edgestill.distill.methods.heads.dho import DHO, DHOConfig, MixedHead, best_mix, log_shares, mixed
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.export.onnx.write import to_onnx
from edgestill.pipeline.conformance.samples import image_task, splits
from edgestill.pipeline.data.splits import UNLABELLED
from edgestill.pipeline.networks.network import look

N, K = 40, 4
CPU = torch.device("cpu")


def drawn(seed):
    return 2 * torch.randn(N, K, generator=torch.Generator().manual_seed(seed))


def few_labels(data, every=3):
    """Keep the label of each `every`-th training example."""
    targets = data.train.targets.clone()
    targets[torch.arange(len(targets)) // 3 % every != 0] = UNLABELLED
    return dataclasses.replace(data, train=dataclasses.replace(data.train, targets=targets))


def trained(make_network, data, epochs=2):
    config = DistillConfig.model_validate(
        {"methods": ["dho"], "training": StudentTrainingConfig(epochs=epochs, batch_size=32, patience=0)}
    )
    return distill(
        make_network(2, task=data.task), make_network(1, task=data.task), data, config, seed=0, device=CPU
    )  # fmt: skip


@pytest.mark.parametrize("unlabelled", [0, 8, 24])
def test_the_labels_mean_is_over_those_with_one_and_the_teachers_over_both_kinds(unlabelled):
    recipe, teacher, student, batch = prepared(DHO)
    batch.targets[:unlabelled] = UNLABELLED
    terms = recipe.loss(student.train(), batch)
    with torch.no_grad():
        logits = recipe.methods[0].extras()["heads"].linear(look(student, batch.inputs).embedding)
        t, (labels, teachers) = teacher(batch.inputs), logits.chunk(2, dim=1)
    known = batch.targets != UNLABELLED
    kd = 4 * F.kl_div((teachers / 2).log_softmax(1), (t / 2).softmax(1), reduction="none").sum(1)
    parts = [kd[chosen].mean() for chosen in (known, ~known) if bool(chosen.any())]
    assert terms["distillation"].item() == pytest.approx(0.5 * float(sum(parts)), rel=1e-3)
    expected = F.cross_entropy(labels[known], batch.targets[known]) if bool(known.any()) else torch.tensor(0.0)
    assert terms["cross_entropy"].item() == pytest.approx(0.5 * float(expected), rel=1e-3, abs=1e-7)


def test_each_head_learns_from_its_own_loss_alone():
    recipe, _, student, batch = prepared(DHO)
    weight = recipe.methods[0].extras()["heads"].linear.weight
    for term, learns, rests in (
        ("cross_entropy", slice(0, 3), slice(3, 6)),
        ("distillation", slice(3, 6), slice(0, 3)),
    ):
        weight.grad = None
        recipe.loss(student.train(), batch)[term].backward()
        assert float(weight.grad[learns].norm()) > 0
        assert float(weight.grad[rests].norm()) == 0


def test_the_mix_is_of_probabilities_and_its_ends_are_the_heads_themselves():
    labels, teachers = drawn(1), drawn(2)
    found = mixed(labels, teachers, log_shares(0.3), 2.0)
    expected = 0.3 * labels.softmax(1) + 0.7 * (teachers / 2).softmax(1)
    torch.testing.assert_close(found.exp(), expected)
    torch.testing.assert_close(
        mixed(labels, teachers, log_shares(1.0), 2.0), labels.log_softmax(1), atol=1e-2, rtol=1e-3
    )
    assert torch.equal(mixed(labels, teachers, log_shares(0.0), 2.0).argmax(1), teachers.argmax(1))


@pytest.mark.parametrize("seed", range(5))
def test_a_tuned_mix_is_never_below_a_head_alone_on_what_it_was_tuned_on(seed):
    labels, teachers, targets = drawn(seed), drawn(seed + 100), torch.arange(N) % K

    def right(share, temperature=1.0):
        return int((mixed(labels, teachers, log_shares(share), temperature).argmax(1) == targets).sum())

    share, temperature = best_mix(labels, teachers, targets)
    assert right(share, temperature) >= max(right(0.0), right(1.0), right(0.5))


def test_a_head_that_is_always_right_is_mixed_so_that_the_answer_is_always_right():
    targets = torch.arange(N) % K
    sure = 20.0 * F.one_hot(targets, K).float()
    for labels, teachers in ((sure, 3 * drawn(1)), (3 * drawn(1), sure)):
        share, temperature = best_mix(labels, teachers, targets)
        assert bool((mixed(labels, teachers, log_shares(share), temperature).argmax(1) == targets).all())


def test_a_graph_of_the_head_follows_a_later_mix():
    head = MixedHead(torch.nn.Linear(5, 2 * K))
    graph = torch.fx.symbolic_trace(head)
    head.mix(0.9, 2.0)
    inputs = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(graph(inputs), head(inputs))
        torch.testing.assert_close(head(inputs).exp().sum(1), torch.ones(3))


@pytest.fixture(scope="module")
def shipped():
    from edgestill.pipeline.networks.cifar_resnet import CifarResNet
    from edgestill.pipeline.networks.network import initialise

    data = few_labels(splits(image_task(classes=3)))

    def make(seed, task):
        network = CifarResNet((1, 1, 1), (4, 6, 8), num_classes=3, mean=task.mean, std=task.std)
        initialise(network, "kaiming", seed)
        return network

    return data, make, trained(make, data, epochs=4)


def test_what_ships_mixes_both_heads_by_the_mix_tuned_on_reference(shipped):
    data, _, done = shipped
    head = done.student.get_classifier()
    images = data.reference.images
    with torch.no_grad():
        logits = head.linear(look(done.student.eval(), images).embedding)
        labels, teachers = logits.chunk(2, dim=1)
        found = done.student(images)
    share, temperature = best_mix(labels, teachers, data.reference.targets)
    torch.testing.assert_close(found, mixed(labels, teachers, log_shares(share), temperature))
    assert done.measures["dho.share_of_labels_head"] == pytest.approx(share)
    assert done.measures["dho.temperature"] == pytest.approx(temperature)


def test_the_exported_file_answers_as_the_student_does_also_when_built_from_its_weights(shipped):
    data, make, done = shipped
    fresh = make_recipe([DHOConfig()]).deployable(make(5, data.task))
    fresh.load_state_dict(done.student.state_dict())
    with torch.no_grad():
        expected = done.student.eval()(data.reference.images).numpy()
    for network in (done.student, fresh):
        session = onnxruntime.InferenceSession(to_onnx(network.eval(), data.task.inputs, 20))
        [found] = session.run(None, {session.get_inputs()[0].name: data.reference.images.numpy()})
        assert abs(found - expected).max() < 1e-4


def test_both_heads_move_in_a_training_with_few_labels(shipped):
    _, _, done = shipped
    assert done.state["dho"]["linear.weight"].shape == (6, 8)
    assert all(record.terms["cross_entropy"] > 0 for record in done.fitted.curve)


def test_it_leaves_no_place_for_another_head_or_weight():
    for other in ("lelp", "kd_aif"):
        with pytest.raises(ValueError, match="both fill the slot"):
            DistillConfig.model_validate({"methods": ["dho", other]})
