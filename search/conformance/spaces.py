"""Checks of a search space: it keeps the contract of `search/space.py`."""

import random
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgestill.pipeline.conformance.samples import batch, task_of
from edgestill.pipeline.conformance.suite import Check, require
from edgestill.pipeline.errors import ArchitectureError, ConfigError
from edgestill.pipeline.networks.cost import measure_cost
from edgestill.pipeline.networks.network import BlockClassifier, Classifier, initialise, look
from edgestill.pipeline.task import Task
from edgestill.search.config import SearchConfig
from edgestill.search.space import Architecture, SearchSpace
from edgestill.search.spaces import SPACES, make_space

SIZES = ((1, 8), (3, 9), (1, 11), (3, 15), (1, 28), (3, 32))  # channels and side
_ENUMERABLE = 3000  # members


def it_is_listed_under_its_own_name_which_alone_chooses_it(space: SearchSpace) -> None:
    name = type(space).name  # an instance may add to its own, as those of NNI's hub do
    require(name in SPACES, f"the table has no space {name!r}")
    chosen = make_space(SearchConfig.model_validate({"space": name}).space)
    require(type(chosen) is type(space), f"search.space={name} makes a {type(chosen).__name__}")


def parsing_a_formatted_architecture_gives_it_back(space: SearchSpace) -> None:
    for architecture in samples(space, 50):
        text = space.format(architecture)
        for given in (text, f"  {text}\n"):
            again = space.parse(given)
            require(again == architecture and again.key == architecture.key, f"{given!r} is read as {again.choices}")


def an_architecture_is_described_in_a_line_of_words(space: SearchSpace) -> None:
    for architecture in samples(space, 5):
        words = space.describe(architecture)
        require(bool(words.strip()) and words.isprintable(), f"{space.format(architecture)} is described as {words!r}")


def a_string_that_names_no_architecture_is_refused(space: SearchSpace) -> None:
    for text in ("", "nonsense", "\N{SNOWMAN}"):
        require_refused(space, text)


def students_keep_the_classifier_contract_at_every_size_that_is_not_refused(space: SearchSpace) -> None:
    for task in tasks(space, SIZES):
        for architecture in samples(space, 3):
            _require_contract(space.build(architecture, task).eval(), task)


def a_students_embedding_has_a_width_that_the_space_tells(space: SearchSpace) -> None:
    told = space.embedding_dims()
    task = next(tasks(space, SIZES))
    for architecture in samples(space, 20):
        width = space.build(architecture, task).embedding_dim
        require(width in told, f"{space.format(architecture)} has the width {width}; told: {sorted(told)}")


def its_size_counts_every_architecture_once(space: SearchSpace) -> None:
    if space.size <= _ENUMERABLE:
        keys = [architecture.key for architecture in space.all_architectures()]
        require(len(keys) == len(set(keys)) == space.size, f"{len(set(keys))} different members; size {space.size}")


def sampling_reaches_every_choice_and_a_seed_repeats_it(space: SearchSpace) -> None:
    draws = 60 * max(len(gene.choices) for gene in space.genes)
    met = [architecture.choices for architecture in samples(space, draws)]
    for gene in space.genes:
        require({c[gene.name] for c in met} == set(gene.choices), f"{draws} draws miss a choice of {gene.name}")
    require(met == [a.choices for a in samples(space, draws)], "the same seed draws others")


def mutation_changes_one_gene_at_least_and_every_free_gene_at_rate_1(space: SearchSpace) -> None:
    rng = random.Random(0)
    free = {gene.name for gene in space.genes if len(gene.choices) > 1}
    for parent in samples(space, 30):
        for rate, expected in ((1e-12, 1), (1.0, len(free))):
            child = space.mutate(parent, rng, rate=rate)
            changed = {name for name in child.choices if child.choices[name] != parent.choices[name]}
            require(len(changed) == min(expected, len(free)), f"at rate {rate:g}, {len(changed)} genes changed")
            _require_member(space, child)


def crossover_takes_every_gene_from_a_parent(space: SearchSpace) -> None:
    rng = random.Random(0)
    for mother, father in zip(samples(space, 30), samples(space, 30, seed=2), strict=True):
        child = space.crossover(mother, father, rng)
        _require_member(space, child)
        for name, choice in child.choices.items():
            require(choice in (mother.choices[name], father.choices[name]), f"{name} is of neither parent")


def costs_are_those_that_torch_counts(space: SearchSpace) -> None:
    for task in tasks(space, (*SIZES[:2], SIZES[-1])):
        for architecture in samples(space, 3):
            require_cost(space, architecture, task)


def a_seed_decides_every_weight(space: SearchSpace) -> None:
    task = next(tasks(space, SIZES))
    for architecture in samples(space, 3):
        one, other = (_initialised(space, architecture, task) for _ in range(2))
        for name, value in one.state_dict().items():
            require(torch.equal(value, other.state_dict()[name]), f"{name} differs; `initialise` does not reach it")


OF_GENES: tuple[Check, ...] = (
    it_is_listed_under_its_own_name_which_alone_chooses_it,
    parsing_a_formatted_architecture_gives_it_back,
    an_architecture_is_described_in_a_line_of_words,
    a_string_that_names_no_architecture_is_refused,
    its_size_counts_every_architecture_once,
    sampling_reaches_every_choice_and_a_seed_repeats_it,
    mutation_changes_one_gene_at_least_and_every_free_gene_at_rate_1,
    crossover_takes_every_gene_from_a_parent,
)
OF_NETWORKS: tuple[Check, ...] = (
    students_keep_the_classifier_contract_at_every_size_that_is_not_refused,
    a_students_embedding_has_a_width_that_the_space_tells,
    costs_are_those_that_torch_counts,
    a_seed_decides_every_weight,
)
CHECKS = OF_GENES + OF_NETWORKS


def samples(space: SearchSpace, count: int = 8, seed: int = 1) -> list[Architecture]:
    rng = random.Random(seed)
    return [space.sample(rng) for _ in range(count)]


def tasks(space: SearchSpace, sizes: tuple[tuple[int, int], ...]) -> Iterator[Task]:
    """Yield a task of each size that the space does not refuse; one it takes at least."""
    refused, taken = "", False
    for channels, side in sizes:
        task = task_of(space.inputs, channels, side, classes=5)
        try:
            space.require(task)
        except ConfigError as error:
            refused = str(error)
            require(refused and "\n" not in refused, f"the refusal is not one sentence: {refused}")
            continue
        taken = True
        yield task
    require(taken, f"it takes no size of {sizes}: {refused}")


def require_refused(space: SearchSpace, text: str) -> None:
    """Require an ArchitectureError that quotes the text and names the space and the form expected."""
    try:
        found = space.parse(text)
    except ArchitectureError as error:
        said = str(error)
        lacking = [part for part in (repr(text), space.name, "expected") if part not in said]
        require(not lacking, f"the refusal lacks {lacking}; `self.error(text, 'expected …')` makes it: {said}")
        return
    require(False, f"{text!r} is read as {found.choices}")


def require_cost(space: SearchSpace, architecture: Architecture, task: Task) -> None:
    """Compare with torch's counter, which knows attention by its plain implementation alone."""
    network = space.build(architecture, task).eval()
    cost = measure_cost(lambda: space.build(architecture, task), task.input_shape, task.input_dtype)
    params = sum(p.numel() for p in network.parameters())
    require(cost.params == params, f"{cost.params} parameters are counted, and there are {params}")
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network(batch(task, 1).inputs)
    flops = counter.get_total_flops()
    require(2 * cost.flops == flops, f"2 x {cost.flops} operations are counted, and torch counts {flops}")


def _require_contract(student: BlockClassifier, task: Task) -> None:
    require(isinstance(student, Classifier), "a student lacks forward_features, forward_head or get_classifier")
    inputs, width, channels = batch(task, 2).inputs, student.embedding_dim, student.feature_dim
    with torch.no_grad():
        features = student.forward_features(inputs)
        embedding, logits = student.forward_head(features, pre_logits=True), student(inputs)
        if features.dim() == 4:
            require(features.shape[:2] == (2, channels), f"features are {list(features.shape)}; told: {channels} wide")
        else:
            require((len(features), features.shape[2]) == (2, channels), f"features are {list(features.shape)}")
        require(embedding.shape == (2, width), f"the embedding is {list(embedding.shape)}, and embedding_dim {width}")
        require(
            logits.shape == (2, task.num_classes), f"logits are {list(logits.shape)} for {task.num_classes} classes"
        )
        require(torch.equal(student.forward_head(features), logits), "forward_head(features) gives other logits")
        require(torch.equal(student.get_classifier()(embedding), logits), "get_classifier() gives other logits")
        view = look(student, inputs)
        same = zip(view, (features, embedding, logits), strict=True)
        require(all(torch.equal(one, other) for one, other in same), "one forward pass shows other tensors")


def _require_member(space: SearchSpace, architecture: Architecture) -> None:
    require(set(architecture.choices) == {gene.name for gene in space.genes}, "a child has other genes")
    for gene in space.genes:
        choice = architecture.choices[gene.name]
        require(choice in gene.choices, f"a child's {gene.name} is {choice}, which is no choice")


def _initialised(space: SearchSpace, architecture: Architecture, task: Task) -> nn.Module:
    network = space.build(architecture, task)
    initialise(network, "kaiming", 0)
    return network
