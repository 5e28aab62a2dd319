"""Methods of different slots in one recipe: what they are together, and what is refused."""

import itertools

import pytest
import torch

from edgestill.distill.config import DistillConfig
from edgestill.distill.conflicts import conflicts
from edgestill.distill.conformance.prepared import network, recipe_on
from edgestill.distill.methods import METHODS
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.distill.tunable import tuning_ranges
from edgestill.distill.tune import search_ranges, with_hyperparameters
from edgestill.pipeline.conformance.samples import image_task, language_task, splits
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.device import Compute
from edgestill.pipeline.networks.network import look
from edgestill.pipeline.teachers.teacher import frozen

CPU = torch.device("cpu")
WITHOUT_HEADS = {"logit_standardisation", "tgeo"}  # they read the student's own class logits
WITHOUT_LOGITS = {"sequence_kd", "symbolic"}  # as configured, they give those of the teacher no weight
TOGETHER = [("hard", "lelp"), ("lelp", "kd_aif"), ("hard", "kd_aif"), ("hard", "lelp", "kd_aif", "diswot_plus")]
APART = [{"logit_standardisation", "dhkd"}]  # it reads logits of another kind
SETTINGS = {"hard": {"warmup_steps": 2, "images": 4}, "lelp": {"subclasses": 3}, "kd_aif": {"warmup_epochs": 1}}


def config(names, **training):
    methods = [{"name": name} | SETTINGS.get(name, {}) for name in names]
    told = {"epochs": 3, "batch_size": 16, "patience": 0} | training
    return DistillConfig.model_validate({"methods": methods, "training": told})


@pytest.mark.parametrize("names", TOGETHER, ids="+".join)
def test_methods_of_different_slots_train_together_and_ship_class_logits(names, make_task, make_splits, make_network):
    splits = make_splits(make_task(), train=96)
    teacher = make_network(1, (8, 12, 16))
    done = distill(make_network(2), teacher, splits, config(names), seed=0, device=CPU)
    assert all(torch.isfinite(torch.tensor(list(record.terms.values()))).all() for record in done.fitted.curve)
    images = splits.validation.batch(torch.arange(5)).inputs
    with torch.no_grad():
        view = look(done.student.eval(), images)
    assert view.logits.shape == (5, splits.task.num_classes)
    said = {name.partition(".")[0] for name in done.measures}
    assert {"hard", "kd_aif"} & set(names) <= said


PAIRS = [
    ("taid", "dbild"), ("taid", "bd_kd"), ("swing", "divergence"), ("swing", "dbild"), ("dhkd", "rkd"),
    ("logit_standardisation", "dbild"), ("logit_standardisation", "taid"), ("dhkd", "kd_aif"), ("dho", "rkd"),
    ("dho", "random_affine"), ("online_teacher", "rkd", "bd_kd"), ("online_teacher", "dho"), ("first", "kd_aif"),
    ("online_teacher", "pld"),
]  # fmt: skip


@pytest.mark.parametrize("names", PAIRS, ids="+".join)
def test_a_pair_of_other_slots_has_a_finite_loss_and_the_teacher_no_gradient(
    names, make_task, make_splits, make_network, make_context
):
    splits, recipe = make_splits(make_task(), train=48), make_recipe(config(names).methods)
    teacher, student = frozen(make_network(1)), make_network(2)
    recipe.prepare(make_context(recipe, splits, teacher, student))
    batch = recipe.prepare_batch(splits.train.batch(torch.arange(12)), torch.Generator().manual_seed(0))
    terms = recipe.loss(student.train(), batch)
    sum(terms.values(), torch.zeros(())).backward()
    assert all(bool(term.isfinite()) for term in terms.values())
    assert all(p.grad is None for p in teacher.parameters())
    assert any(p.grad is not None and float(p.grad.norm()) > 0 for p in student.parameters())


@pytest.mark.parametrize("names", TOGETHER, ids="+".join)
def test_every_hyperparameter_of_every_method_is_tuned_at_once(names):
    ranges = search_ranges(config(names))
    assert {name.partition(".")[0] for name in ranges} >= {n for n in names if n != "diswot_plus"} | {"training"}
    highest = {name: found.high for name, found in ranges.items()}
    moved = with_hyperparameters(config(names), highest)
    assert [method.name for method in moved.methods] == list(names)


def test_two_methods_conflict_where_they_fill_the_same_slot_and_nowhere_else():
    for one, other in itertools.combinations(METHODS, 2):
        shared = (METHODS[one].fills & METHODS[other].fills) - {"feature"}
        problems = conflicts([METHODS[one](), METHODS[other]()])
        rest = ({one, other} - {"none"}).pop()
        in_vain = "none" in (one, other) and METHODS[rest].fills & {"data", "target", "divergence", "head"}
        unread = any(
            a in WITHOUT_LOGITS and METHODS[b].fills & {"target", "divergence"} for a, b in ((one, other), (other, one))
        )
        whole = any("objective" in METHODS[name].fills for name in (one, other))
        crowded = whole and (METHODS[one].fills | METHODS[other].fills) & {"target", "divergence", "weight"}
        headed = any(a in WITHOUT_HEADS and "head" in METHODS[b].fills for a, b in ((one, other), (other, one)))
        studied = any(METHODS[name].studies_teacher for name in (one, other))
        apart = {one, other} in APART or ({"online_teacher", "opsd"} & {one, other} and studied)
        assert len(problems) == len(shared) + bool(in_vain) + unread + bool(crowded) + headed + bool(apart)
        assert all(repr(one) in problem and repr(other) in problem for problem in problems)


def test_augmented_images_have_subclass_targets_of_their_own(make_task, make_splits, make_network, make_context):
    """HARD x LELP: q comes from the teacher's embedding of the altered image, not from the clean one's."""
    splits = make_splits(make_task(), train=96)
    teacher, student = frozen(make_network(1, (8, 12, 16))), make_network(2)
    recipe = make_recipe(config(("random_affine", "lelp")).methods)
    context = make_context(recipe, splits, teacher, student)
    recipe.prepare(context, Augmentation())
    batch = recipe.prepare_batch(splits.train.batch(torch.arange(8)), torch.Generator().manual_seed(0))
    assert batch.altered is not None
    lelp = next(method for method in recipe.methods if method.name == "lelp")
    with torch.no_grad():
        target = lelp.target(look(teacher, batch.inputs), None, batch)
        found = recipe.loss(student.eval(), batch)["distillation"]
        seen = look(student, batch.inputs)
        expected = lelp.divergence(target, seen._replace(logits=lelp.head(seen.embedding)))
    assert not torch.allclose(target[:8], target[8:], atol=1e-4)
    assert found.item() == pytest.approx((expected * batch.weight).mean().item(), rel=1e-4)


def test_no_method_of_the_divergence_stands_beside_none_which_gives_it_no_weight():
    for name in ("kd", "hard", "random_affine", "lelp"):
        for names in (["none", name], [name, "none"]):
            with pytest.raises(ValueError, match=f"the teacher no weight, which is what method '{name}' is there for"):
                config(names)
    for name in ("rkd", "embedding_regression"):
        assert conflicts([METHODS["none"](), METHODS[name]()]) == []


def test_kd_sets_temperature_and_kd_aif_the_weights(make_task, make_splits, make_network):
    """Beside a method that fills `weight`, KD's own weight is not read and not tuned."""
    together = DistillConfig.model_validate(
        {
            "methods": [{"name": "kd", "temperature": 8, "distill_weight": 0.3}, {"name": "kd_aif", "sharpness": 0}],
            "training": {"epochs": 2, "batch_size": 16},
        }
    )
    alone = DistillConfig.model_validate(
        {"methods": [{"name": "kd", "temperature": 8, "distill_weight": 0.9}], "training": together.training}
    )
    splits = make_splits(make_task())
    curves = [
        [r.loss for r in distill(make_network(2), make_network(1), splits, c, seed=0, device=CPU).fitted.curve]
        for c in (together, alone)
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-6)
    assert "kd.distill_weight" not in search_ranges(together)
    assert {"kd.temperature", "kd_aif.distill_weight"} <= set(search_ranges(together))
    assert "kd.distill_weight" in search_ranges(alone)


@pytest.mark.parametrize(
    ("method", "unread"),
    [
        ({"name": "hard"}, set()),
        ({"name": "hard", "policy": "lagrangian"}, {"l_min_share"}),
        ({"name": "hard", "policy": "penalty"}, {"l_max", "l_min_share"}),
        ({"name": "kd_aif"}, set()),
        ({"name": "kd_aif", "backend": "identity"}, {"damping"}),
        ({"name": "kd_aif", "backend": "ekfac", "weight_map": "drop"}, {"damping", "sharpness"}),
        ({"name": "lelp"}, set()),
        ({"name": "lelp", "loss": "tempered_classes"}, {"subclass_weight"}),
        ({"name": "lelp", "control": "random_partition"}, {"subclass_temperature"}),
    ],
)
def test_what_the_configuration_does_not_read_is_not_tuned(method, unread):
    found = search_ranges(DistillConfig.model_validate({"methods": [method]}))
    declared = tuning_ranges(METHODS[method["name"]].Config)
    assert {name.partition(".")[2] for name in found if not name.startswith("training.")} == set(declared) - unread


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_hard_lelp_and_kd_aif_train_on_a_gpu_in_every_precision(precision, make_task, make_splits, make_network):
    splits, given = make_splits(make_task(), train=96), config(("hard", "lelp", "kd_aif"), epochs=4, learning_rate=0.02)
    teacher, student = make_network(1, (8, 12, 16)), make_network(2)
    cuda = torch.device("cuda")
    done = distill(student, teacher, splits, given, seed=0, device=cuda, compute=Compute(precision))
    assert all(torch.isfinite(torch.tensor(list(record.terms.values()))).all() for record in done.fitted.curve)
    assert done.fitted.curve[-1].loss < done.fitted.curve[0].loss
    assert all(weight.dtype == torch.float32 for weight in done.student.parameters())
    assert done.measures["kd_aif.updates"] == 2


@pytest.mark.parametrize("one", METHODS)
def test_a_method_takes_a_step_with_every_other_that_it_can_be_used_with(one):
    of_kind = {}
    for task in (image_task(classes=4), language_task()):
        of_kind[task.kind] = splits(task, train=48), network(task, 1, (8, 12, 16)), network(task, 2)
    for other in list(METHODS)[list(METHODS).index(one) + 1 :]:
        kinds = [METHODS[one], METHODS[other]]
        is_language = any(kind.inputs == "lm" for kind in kinds)
        if conflicts([kind() for kind in kinds]) or (is_language and not all(kind.takes_rows for kind in kinds)):
            continue
        data, teacher, student = of_kind["lm" if is_language else "image"]
        own = {"ddk": {"domains": "sources"}} if is_language else {}
        configs = [kind.Config.model_validate({**kind.facts.lively, **own.get(kind.name, {})}) for kind in kinds]
        recipe, batch = recipe_on(configs, frozen(teacher), student.train(), data)
        terms = recipe.loss(student, batch)
        recipe.backward(terms, lambda term: term, [*student.parameters(), *recipe.parameters()])
        assert all(bool(term.isfinite()) for term in terms.values()), other
        grown = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
        assert len(grown) > 0, other
        assert all(bool(gradient.isfinite().all()) for gradient in grown), other
        student.zero_grad(set_to_none=True)
