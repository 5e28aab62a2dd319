"""OFA's exits: the loss by its formula, where exits stand, and that nothing of them stays."""

import copy

import pytest
import torch
import torch.nn.functional as F

from edgestill.distill.config import DistillConfig
from edgestill.distill.methods.features.ofa import OFAConfig, ofa_loss, stage_paths
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.data.splits import UNLABELLED
from edgestill.pipeline.device import FeaturesElsewhere
from edgestill.pipeline.networks.network import look
from edgestill.pipeline.networks.text_transformer import TextTransformer
from edgestill.pipeline.teachers.teacher import frozen

CPU = torch.device("cpu")


def drawn(seed, n=6, k=4):
    return 2 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("epsilon", [1.0, 1.5, 2.0])
def test_the_loss_is_its_formula_class_by_class(epsilon):
    s, t, y = drawn(0), drawn(1), torch.tensor([0, 1, 2, 3, 0, UNLABELLED])
    found = ofa_loss(s, t, y, epsilon)
    p, log_s = t.softmax(1), s.log_softmax(1)
    for n in range(6):
        total = 0.0
        for c in range(4):
            own = float(c == int(y[n]))
            total -= ((float(p[n, c]) + own) ** epsilon - own) * float(log_s[n, c])
        assert float(found[n]) == pytest.approx(total)


def test_with_epsilon_1_the_gradient_is_kds_at_temperature_1_and_above_the_label_gains():
    s, t, y = drawn(0).requires_grad_(), drawn(1), torch.arange(6) % 4
    own = torch.autograd.grad(ofa_loss(s, t, y, 1.0).sum(), s)[0]
    kd = torch.autograd.grad(F.kl_div(s.log_softmax(1), t.softmax(1), reduction="sum"), s)[0]
    torch.testing.assert_close(own, kd)
    p = t.softmax(1)
    label = F.one_hot(y, 4)
    target = (p + label) ** 1.5 - label
    assert bool((target[label > 0] > p[label > 0]).all())
    assert bool((target[label == 0] < p[label == 0]).all())
    torch.autograd.gradcheck(lambda logits: ofa_loss(logits, t, y, 1.5), drawn(3).requires_grad_())


@pytest.fixture
def prepared(make_task, make_splits, make_network, make_context):
    def make(student=None, splits=None, teacher=None, **settings):
        splits = splits or make_splits(make_task())
        student, teacher = student or make_network(2), frozen(teacher or make_network(1))
        recipe = make_recipe([OFAConfig(**settings)])
        recipe.prepare(make_context(recipe, splits, teacher, student))
        return recipe, student, splits.train.batch(torch.arange(9))

    return make


def test_exits_stand_evenly_behind_the_blocks_the_last_among_them(make_network):
    network = make_network(2)
    assert stage_paths(network, 4) == ["layer1.0", "layer2.0", "layer3.0"]
    assert stage_paths(network, 2) == ["layer1.0", "layer3.0"]
    assert stage_paths(network, 1) == ["layer3.0"]
    assert stage_paths(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1)), 4) == []


def test_each_exit_reads_the_mean_of_its_stage(prepared):
    recipe, student, batch = prepared()
    method = recipe.methods[0]
    student.eval()
    found = recipe.loss(student, batch)["ofa"]
    with torch.no_grad():
        hidden = F.relu(student.bn1(student.conv1(student.normalize(batch.inputs))))
        expected = 0.0
        told = recipe.look_at_teacher(batch).logits
        for leave, stage in zip(method._exits, (student.layer1, student.layer2, student.layer3), strict=True):
            hidden = stage(hidden)
            expected += float(ofa_loss(leave(hidden.mean((2, 3))), told, batch.targets, 1.0).mean())
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)


def test_no_hook_stays_on_the_student_which_can_be_copied_and_every_exit_learns(prepared):
    recipe, student, batch = prepared()
    recipe.loss(student.train(), batch)["ofa"].backward()
    assert all(not module._forward_hooks for module in student.modules())
    copy.deepcopy(student)
    assert all(float(p.grad.abs().sum()) > 0 for p in recipe.methods[0].trainable())
    assert recipe.methods[0]._seen == []


def test_a_student_whose_features_are_computed_elsewhere_is_watched_itself(prepared):
    class Elsewhere(FeaturesElsewhere):
        def forward_features(self, inputs):
            raise AssertionError("no hook would see this")

    recipe, student, batch = prepared()
    student.eval()
    assert torch.equal(recipe.loss(Elsewhere(student), batch)["ofa"], recipe.loss(student, batch)["ofa"])


def test_a_network_without_known_blocks_has_one_exit_on_its_features(prepared, make_network):
    class Foreign(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.whole, self.num_classes = network, network.num_classes

        def forward_features(self, inputs):
            return self.whole.forward_features(inputs)

        def forward_head(self, features, pre_logits=False):
            return self.whole.forward_head(features, pre_logits)

        def get_classifier(self):
            return self.whole.get_classifier()

        def forward(self, inputs):
            return self.whole(inputs)

    recipe, student, batch = prepared(Foreign(make_network(2)))
    assert recipe.measures() == {"ofa.exits": 1.0}
    assert float(recipe.loss(student, batch)["ofa"].detach()) > 0


def test_padding_of_a_text_moves_no_exit(prepared, make_token_task, make_splits):
    task = make_token_task()
    splits = make_splits(task)
    student, teacher = (TextTransformer(task, depth=2, heads=1, head_width=4, feed_forward=1) for _ in range(2))
    recipe, student, batch = prepared(student, splits, teacher)
    student.eval()
    longer = batch._replace(inputs=F.pad(batch.inputs, (0, 3)))
    found = [float(recipe.loss(student, one)["ofa"].detach()) for one in (batch, longer)]
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert len(recipe.methods[0]._exits) == 2


def test_the_papers_loss_has_the_last_layer_too_and_an_epsilon_for_each_exit(
    prepared, make_task, make_splits, make_network
):
    recipe, student, batch = prepared(final_weight=1.0, epsilons=(1.0, 1.2, 1.5))
    terms = recipe.loss(student.eval(), batch)
    told = recipe.look_at_teacher(batch).logits
    expected = ofa_loss(look(student, batch.inputs).logits, told, batch.targets, 1.5).mean()
    assert float(terms["ofa_final"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    told = {"methods": ["none", {"name": "ofa", "final_weight": 1}], "training": {"epochs": 2, "batch_size": 45}}
    config = DistillConfig.model_validate(told)
    done = distill(make_network(2), make_network(1), make_splits(make_task()), config, seed=0, device=CPU)
    assert done.fitted.curve[-1].loss < done.fitted.curve[0].loss
    assert all(not module._forward_hooks for module in done.student.modules())
