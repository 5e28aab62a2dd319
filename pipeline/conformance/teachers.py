"""Checks of a family of teachers, by its name in the table."""

import tempfile
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from edgestill.pipeline.conformance.samples import batch, task_of
from edgestill.pipeline.conformance.suite import Check, NotHereError, require
from edgestill.pipeline.errors import MissingDependencyError
from edgestill.pipeline.frozen import first_problem
from edgestill.pipeline.networks.network import Classifier
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.checkpoint import weights_bytes
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import TEACHERS, AnyTeacherConfig, Teacher, make_teacher

_SIDE = 16


def its_name_chooses_it_and_it_says_which_inputs_it_takes(name: str) -> None:
    family = TEACHERS[name]
    require(family.kinds, "kinds is empty")
    teacher = _made(name)
    require(type(teacher) is family, f"teacher.name={name} chooses {type(teacher).__name__}")
    require(teacher.title, "title is empty")


def it_builds_a_classifier_for_each_kind_of_input(name: str) -> None:
    for task, network in _networks(name):
        require(isinstance(network, Classifier), f"its network has not the methods of {Classifier.__name__}")
        logits = network(batch(task).inputs)
        require(logits.shape == (len(batch(task).inputs), task.num_classes), f"its logits are {list(logits.shape)}")
        require(bool(logits.isfinite().all()), "its logits are not finite")


def a_seed_repeats_its_fresh_weights(name: str) -> None:
    for (_, one), (_, other) in zip(_networks(name), _networks(name), strict=True):
        pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        require(all(torch.equal(a, b) for a, b in pairs), "the same seed gives other weights")


def weights_that_were_written_load_again(name: str) -> None:
    for task, network in _networks(name):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "weights.safetensors"
            path.write_bytes(weights_bytes(network, _made(name).metadata(task)))
            again = _made(name).load(task, path).eval()
        inputs = batch(task).inputs
        require(torch.equal(again(inputs), network(inputs)), "loaded weights give other logits")


CHECKS: tuple[Check, ...] = (
    its_name_chooses_it_and_it_says_which_inputs_it_takes,
    it_builds_a_classifier_for_each_kind_of_input,
    a_seed_repeats_its_fresh_weights,
    weights_that_were_written_load_again,
)


def _made(name: str) -> Teacher:
    """Make it with its default configuration: by name, or by the first architecture of a built-in family.

    Raises:
        NotHereError: it has none, as a folder's path must be given.
    """
    family = TEACHERS[name]
    if "name" in family.Config.model_fields:
        chosen = {"name": name, **family.example}
    elif family.architectures:
        chosen = {"architecture": family.architectures[0]}
    else:
        raise NotHereError("its default configuration is not complete: it needs a path")
    try:
        return make_teacher(TypeAdapter(AnyTeacherConfig).validate_python(chosen))
    except ValidationError as error:
        raise NotHereError(f"its default configuration is not complete: {first_problem(error)}") from None


def _networks(name: str) -> list[tuple[Task, nn.Module]]:
    tasks = [task_of(kind, side=_SIDE) for kind in sorted(TEACHERS[name].kinds)]
    found = []
    for task in tasks:
        try:
            with drawn_from(0):
                found.append((task, _made(name).build(task).eval()))
        except MissingDependencyError as error:
            raise NotHereError(str(error)) from None
    return found
