"""The choice of the method: halving, its margin over plain KD, the estimate of label noise."""

import numpy as np
import pytest
from pydantic import ValidationError

from edgestill.distill.auto import AutoConfig, Lead, Trained, halve, label_noise, rungs, suiting
from edgestill.distill.config import DistillConfig
from edgestill.distill.methods import METHODS
from edgestill.distill.methods.facts import About
from edgestill.pipeline.errors import CandidateError
from edgestill.pipeline.training.metrics import packed

EXAMPLES = 400
EVERYTHING = frozenset({"embedding", "features", "classifier", "gradients", "inputs"})


class Trainings:
    """Gives each method its number of right answers, the first ones of all."""

    def __init__(self, **right):
        self.right, self.asked = right, []

    def __call__(self, method, rung, epochs):
        self.asked.append((method, rung, epochs))
        count = self.right[method]
        if isinstance(count, Exception):
            raise count
        return Trained(count / EXAMPLES, packed(np.arange(EXAMPLES) < count), 1.0)


def choose(train, methods=None, config=None, **given):
    return halve(
        methods or list(train.right), config or AutoConfig(), train, longest=60, validation_examples=EXAMPLES, **given
    )


def test_rungs_grow_until_one_method_is_left_beside_plain_kd_and_none():
    assert rungs(11, AutoConfig(epochs=2), 60) == [(2, 11), (6, 5), (18, 3)]
    assert rungs(2, AutoConfig(epochs=2), 60) == [(2, 2)]
    assert rungs(11, AutoConfig(epochs=2), 10) == [(2, 11), (6, 5), (10, 3)]


def test_the_best_go_on_and_plain_kd_and_none_always_do():
    train = Trainings(kd=200, none=100, pld=250, taid=240, nd=230, dbild=300)
    found = choose(train)
    assert [name for name, rung, _ in train.asked if rung == 1] == ["kd", "none", "dbild"]
    assert found.chosen == "dbild"
    assert found.lead.accuracy == pytest.approx(0.25)
    assert not found.lead.is_noise


def test_a_lead_below_its_standard_error_leaves_plain_kd():
    found = choose(Trainings(kd=200, none=100, pld=200))
    assert (found.chosen, found.lead.method) == ("kd", "pld")
    lead = Lead(method="pld", accuracy=0.01, won=12, lost=8, validation_examples=EXAMPLES, comparisons=3)
    assert lead.standard_error == pytest.approx(np.sqrt(20 - 16 / 400) / 400)
    assert not lead.is_worth_it
    assert lead.model_copy(update={"accuracy": 0.02}).is_worth_it


def test_no_teacher_is_chosen_where_it_is_better():
    assert choose(Trainings(kd=100, none=200)).chosen == "none"


def test_a_method_that_fails_is_out_with_its_reason():
    found = choose(Trainings(kd=200, none=100, pld=ArithmeticError("loss is NaN")))
    assert found.chosen == "kd"
    assert [one.failure for one in found.tried] == [None, None, "ArithmeticError: loss is NaN"]


def test_without_plain_kd_the_best_of_the_others_is_chosen():
    assert choose(Trainings(kd=RuntimeError("no"), none=100, pld=120)).chosen == "pld"
    with pytest.raises(CandidateError, match="no method could be trained: kd: RuntimeError: no"):
        choose(Trainings(kd=RuntimeError("no"), none=RuntimeError("nor this")))


def test_a_killed_choice_repeats_no_finished_training():
    kept, first = [], Trainings(kd=200, none=100, pld=250, taid=240)
    whole = choose(first, record=kept.append)
    again = Trainings(kd=200, none=100, pld=250, taid=240)
    assert choose(again, known=kept[:3]) == whole
    assert again.asked == first.asked[3:]


def test_methods_are_tried_where_they_suit_and_left_out_with_a_reason():
    two = About("text", classes=2, examples=1000)
    chosen, left_out = suiting(two, EVERYTHING)
    assert chosen[:2] == ["kd", "none"]
    assert "logit_standardisation" not in chosen
    assert left_out["logit_standardisation"] == "needs 3 classes"
    assert left_out["mixup_kd"] == "does not suit this task"
    assert "dho" in suiting(two._replace(pool=50), EVERYTHING)[0]
    assert left_out.keys() | set(chosen) == set(METHODS)


def test_a_black_box_rules_out_the_methods_that_look_inside():
    chosen, left_out = suiting(About("image", 10, 1000), frozenset())
    assert left_out["nd"] == "needs more than the teacher gives"
    assert "pld" in chosen


def test_named_methods_alone_are_tried_whether_they_suit_or_not():
    assert suiting(About("text", 2, 100), EVERYTHING, ["random_affine"])[0] == ["kd", "none", "random_affine"]


def test_noise_of_labels_is_estimated_from_answers_that_are_sure_of_another_class():
    rng, n = np.random.default_rng(0), 4000
    truth = rng.integers(4, size=n)
    wrong = rng.random(n) < 0.2
    labels = np.where(wrong, (truth + 1) % 4, truth)
    answers = np.full((n, 4), 0.02)
    answers[np.arange(n), truth] = 0.94
    assert label_noise(answers, labels) == pytest.approx(wrong.mean(), abs=0.01)
    assert label_noise(answers, truth) == 0


def test_a_configuration_asks_for_it_by_a_word():
    asked = DistillConfig.model_validate({"methods": "auto"})
    assert asked.auto == AutoConfig()
    assert asked.methods == (METHODS["kd"].Config(),)
    assert DistillConfig.model_validate(asked.model_dump()) == asked
    assert "auto" not in DistillConfig().model_dump()
    assert asked.with_method("pld").methods == (METHODS["pld"].Config(),)
    with pytest.raises(ValidationError, match="set methods to auto"):
        DistillConfig.model_validate({"methods": ["pld"], "auto": {}})
