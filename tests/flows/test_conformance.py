"""Each conformance suite finds a plug-in that breaks its contract; the tests of each table show that it passes ours."""

import random
from typing import Literal

import numpy as np
import pytest
from pydantic import Field

from edgestill.distill.conformance import contract as of_methods
from edgestill.distill.conformance import facts as of_facts
from edgestill.distill.methods import METHODS, Method, MethodConfig
from edgestill.distill.methods.facts import Facts
from edgestill.export import conformance as of_formats
from edgestill.export.formats import FORMATS
from edgestill.export.formats.fp32 import Fp32
from edgestill.flows.cli import conformance as command
from edgestill.pipeline.conformance import datasets as of_datasets
from edgestill.pipeline.conformance.suite import ConformanceError, NotHereError, outcomes
from edgestill.pipeline.data.datasets import DATASETS, DigitsConfig
from edgestill.pipeline.data.datasets.digits import load_digits
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import Frozen
from edgestill.search.conformance import scorers as of_scorers
from edgestill.search.conformance import spaces as of_spaces
from edgestill.search.conformance import strategies as of_strategies
from edgestill.search.scorers import SCORERS, Scorer
from edgestill.search.spaces import ResNetConfig, ResNetSpace
from edgestill.search.strategies import STRATEGIES
from edgestill.search.strategies.base import Progress


class ForgetfulConfig(MethodConfig):
    name: Literal["forgetful"] = "forgetful"
    strength: float = Field(1.0, description="of nothing")
    undescribed: int = 0


class Forgetful(Method):
    """Weighs the labels less with every epoch, and forgets at which it was."""

    name, paper, fills, Config = "forgetful", "nobody", frozenset({"weight"}), ForgetfulConfig
    epochs = 0

    def weight(self, teacher, student, batch):
        return 1 / (1 + self.epochs), 0.5

    def end_epoch(self, epoch, student):
        self.epochs += 1


class Boastful(Forgetful):
    """Fills a slot without a hook for it."""

    fills = frozenset({"weight", "feature"})


class Misprinted(ResNetSpace):
    """Writes a network with one block more, and is cruel to a crossover's child."""

    def format(self, architecture):
        first = architecture.choices["blocks1"] + 1
        return super().format(self.make(architecture.choices | {"blocks1": first}))

    def crossover(self, mother, father, rng):
        return self.make(mother.choices | {"blocks1": 99})


class Dice(Scorer):
    name = "dice"

    def __call__(self, student):
        return random.SystemRandom().random()


class BlindConfig(Frozen):
    name: Literal["blind"] = "blind"


def blind(search, config):
    """Score whatever is drawn, and some of it twice."""
    progress = Progress(search)
    progress.score([search.space.sample(search.rng) for _ in range(search.evaluations)])
    return [result for _, result in progress.scored]


class Shifted(Fp32):
    name = "shifted"

    def open(self, path, threads):
        run = super().open(path, threads)
        return lambda inputs: run(inputs)[::-1].astype(np.float32)


SHIFTED = Shifted()


def load_unlabelled(config):
    raw = load_digits(config)
    return raw._replace(train=raw.train._replace(targets=raw.train.targets.astype(np.float64)))


FAULTS = [
    (METHODS, "forgetful", Forgetful, of_methods.CONTRACT, Forgetful, [
        "it names its source with a year and says what it computes",
        "its hyperparameters are described and misspelt ones refused",
        "training goes on from a saved state bit for bit",
    ]),
    (METHODS, "forgetful", Boastful, of_methods.CONTRACT[:3], Boastful, [
        "it overrides the hooks of the slots that it fills and no others",
    ]),
    (None, "resnet", None, of_spaces.OF_GENES, Misprinted(ResNetConfig()), [
        "parsing a formatted architecture gives it back", "crossover takes every gene from a parent",
    ]),
    (SCORERS, "dice", Dice, of_scorers.CHECKS, Dice, ["a seed repeats its scores whatever memory held"]),
    (STRATEGIES, "blind", (BlindConfig, blind), of_strategies.CHECKS, "blind", [
        "it scores feasible members alone and none twice",
        "an unreachable budget is an error that names the nearest miss",
    ]),
    (FORMATS, "shifted", SHIFTED, of_formats.CHECKS, SHIFTED, ["it computes the student whatever the batch"]),
    (DATASETS, "digits", (DigitsConfig, load_unlabelled), of_datasets.CHECKS, "digits", [
        "its examples have the shapes and labels that they should",
    ]),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: getattr(fault[4], "__name__", fault[1]))
def test_a_broken_plug_in_fails_the_checks_that_it_should(monkeypatch, fault):
    table, name, line, checks, subject, broken = fault
    if table is not None:
        monkeypatch.setitem(table, name, line)
    failures = {o.claim: o.failure for o in outcomes(checks, subject) if o.failure is not None}
    assert failures.keys() >= set(broken)
    assert all(sentence and "\n" not in sentence for sentence in failures.values())


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("check", of_datasets.CHECKS, ids=lambda check: check.__name__)
def test_every_data_set_passes(check, name):
    try:
        check(name)
    except NotHereError as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("edgestill.distill.methods.kd:KD", "methods"),
        ("edgestill.search.spaces.resnet:ResNetSpace", "spaces"),
        ("edgestill.search.scorers.nwot:Nwot", "scorers"),
        ("edgestill.export.formats.fp32:Fp32", "formats"),
    ],
)
def test_the_command_finds_the_table_by_the_objects_type(place, kind):
    found = command._loaded(place)
    table = command._table_of(found, place)
    assert table.kind == kind
    assert command._name_in(table, found) in table


def test_an_object_of_no_table_and_a_place_of_nothing_are_refused():
    whys = {"json:dumps": "is for no table", "json": "no place such as", "json:nothing": "cannot be imported"}
    for place, why in whys.items():
        with pytest.raises(ConfigError, match=why):
            command._table_of(command._loaded(place), place)


class Boaster(METHODS["kd"]):
    """Plain KD that says of itself what is not so."""

    facts = Facts(
        evidence="ours",
        ablation={"distill_weight": 0.5},
        reduces_to=({"name": "none"},),
        zero_at_teacher=False,
        invariant_to=frozenset({"scale"}),
        cost=0.01,
    )


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (of_facts.without_its_idea_it_is_the_recipe_that_it_names, "the losses differ"),
        (of_facts.a_student_that_is_the_teacher_learns_nothing_from_it_where_it_says_so, "the gradient at the teacher"),
        (of_facts.its_distillation_is_invariant_to_what_it_says_and_to_nothing_else, "do not change with a shift"),
        (of_facts.its_step_takes_no_longer_than_it_says, "times plain KD's; 0.01 is said"),
    ],
)
def test_facts_that_are_not_so_are_found(check, words):
    with pytest.raises(ConformanceError, match=words):
        check(Boaster)
