"""A student that goes on with its recipe is taught what it was taught before, by every method and several together."""

import copy
import io
import itertools

import pytest
import torch

from edgestill.distill.config import DistillConfig
from edgestill.distill.conflicts import conflicts
from edgestill.distill.methods import METHODS
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.checkpoint import state_bytes
from edgestill.pipeline.training.state import restarted

CPU = torch.device("cpu")
SETTINGS = {
    "hard": {"warmup_steps": 2, "every": 2, "images": 4},
    "lelp": {"subclasses": 3},
    "kd_aif": {"warmup_epochs": 1, "every": 1, "updates": 2},
}
VARIANTS = [
    {"name": "lelp", "subclasses": 3, "directions": "kmeans"},
    {"name": "lelp", "subclasses": 3, "control": "shuffled"},
    {"name": "lelp", "subclasses": 3, "control": "random_partition"},
    {"name": "hard", "family": "mix", "warmup_steps": 2, "policy": "lagrangian"},
    {"name": "hard", "family": "vae", "warmup_steps": 2, "vae_epochs": 1},
    {"name": "kd_aif", "warmup_epochs": 1, "mechanism": "teacher_only", "teacher_epochs": 1},
    {"name": "kd_aif", "warmup_epochs": 1, "mechanism": "both_sequential", "teacher_epochs": 1},
    {"name": "kd_aif", "warmup_epochs": 1, "mechanism": "simultaneous", "updates": 0, "apply_to": "both"},
]
OF_IMAGES = [name for name, method in METHODS.items() if method.inputs is None]  # the others: test_language_methods.py
ALONE = [{"name": name} | SETTINGS.get(name, {}) for name in OF_IMAGES] + VARIANTS
PAIRS = [two for two in itertools.combinations(OF_IMAGES, 2) if "hard" in two or "kd_aif" in two]
TOGETHER = [
    [{"name": name} | SETTINGS.get(name, {}) for name in names]
    for names in [*PAIRS, ("hard", "lelp", "kd_aif", "embedding_regression", "rkd")]
    if not conflicts([METHODS[name]() for name in names])
]


def told(methods, epochs):
    training = {"epochs": epochs, "batch_size": 30, "patience": 0, "learning_rate": 0.02}
    return DistillConfig.model_validate({"methods": methods, "training": training})


class _SeenError(Exception):
    pass


@pytest.fixture
def at_the_end_and_then(monkeypatch, make_task, make_splits, make_network):
    """(methods) to the terms of the loss on one batch after a training, and before the first step of the next one."""
    monkeypatch.setattr("edgestill.distill.methods.hard.method.MIN_AGREEMENT", 0.0)
    splits = make_splits(make_task())
    recipes = []

    def terms(recipe, student):
        batch = recipe.prepare_batch(splits.train.batch(torch.arange(24)), torch.Generator().manual_seed(0))
        with torch.no_grad(), drawn_from(0):
            return {name: term.item() for name, term in recipe.loss(student.eval(), batch).items()}

    def made(configs, *rest):
        recipes.append(make_recipe(configs, *rest))
        return recipes[-1]

    monkeypatch.setattr("edgestill.distill.config.make_recipe", made)

    def run(methods):
        student, teacher = make_network(2), make_network(1, (8, 12, 16))
        done = distill(student, teacher, splits, told(methods, 3), seed=0, device=CPU)
        state = torch.load(io.BytesIO(state_bytes(done.state)), weights_only=True)
        start = copy.deepcopy(done.student.state_dict())
        again = copy.deepcopy(student)
        at_the_end = terms(recipes[-1], student)
        with monkeypatch.context() as patch:
            for name in METHODS:
                patch.setattr(METHODS[name], "study", lambda *_: pytest.fail("what is known was studied again"))
            patch.setattr(
                "edgestill.distill.methods.kd_aif.method.KDAIF._update", lambda *_: pytest.fail("influence again")
            )
            seen = []

            def look(network, recipe, *rest, **options):
                seen.append(terms(recipe, network))
                recipe.end_epoch(0, network)
                raise _SeenError

            patch.setattr("edgestill.distill.train.fit", look)
            with pytest.raises(_SeenError):
                distill(again, teacher, splits, told(methods, 1), seed=99, device=CPU, start=start, state=state)
        return at_the_end, seen[0]

    return run


@pytest.mark.parametrize(
    "methods",
    [[one] for one in ALONE] + TOGETHER,
    ids=lambda m: "+".join("-".join(str(value) for value in one.values() if isinstance(value, str)) for one in m),
)
def test_the_first_step_of_a_later_training_has_the_terms_of_the_last(methods, at_the_end_and_then):
    before, after = at_the_end_and_then(methods)
    assert after == pytest.approx(before, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("begin", [dict, restarted], ids=["killed", "next rung"])
def test_a_training_that_goes_on_from_a_saved_state_studies_nothing_again(
    begin, monkeypatch, make_task, make_splits, make_network
):
    splits, saved = make_splits(make_task()), []
    methods = [
        {"name": "lelp", "subclasses": 3},
        {"name": "embedding_regression"},
        {"name": "kd_aif", "warmup_epochs": 2, "every": 1, "updates": 2},
    ]

    def run(epochs, seed, **options):
        config, teacher = told(methods, epochs), make_network(1, (8, 12, 16))
        return distill(make_network(2), teacher, splits, config, seed=seed, device=CPU, **options)

    first = run(1, 0, save=lambda state: saved.append(state_bytes(state)))
    assert first.measures["kd_aif.updates"] == 0
    for name in METHODS:
        monkeypatch.setattr(METHODS[name], "study", lambda *_: pytest.fail("what is known was studied again"))
    state = torch.load(io.BytesIO(saved[0]), weights_only=True)
    second = run(1 if begin is restarted else 2, 0 if begin is dict else 1, resume=begin(state))
    for part in ("weights", "offsets"):
        assert torch.equal(first.state["lelp"][part], second.state["lelp"][part])
    assert torch.equal(first.state["embedding_regression"]["mean"], second.state["embedding_regression"]["mean"])
    assert second.state["kd_aif"]["epochs"] == 2
    assert second.measures["kd_aif.updates"] == 1  # the warm-up of two epochs is over, and does not begin again
