"""First weights of students: those of another run's student, and digests of the files that students begin from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from pydantic import BaseModel
from torch import nn

from edgestill.distill.config import DistillConfig
from edgestill.distill.recipe import make_recipe
from edgestill.distill.result import DistillResult, PruneResult
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.network import Classifier
from edgestill.pipeline.runs.checkpoint import load_tensors, load_weights
from edgestill.pipeline.runs.find import find_run
from edgestill.pipeline.runs.rundir import RunDir, file_digest
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import AnyTeacherConfig
from edgestill.search.config import SearchConfig
from edgestill.search.space import Architecture, SearchSpace
from edgestill.search.spaces import make_space
from edgestill.search.tournament import TournamentResult

_WEIGHTS = "distill/weights.safetensors"


class _Config(BaseModel):
    """Settings of a run that say which network its student is; the others are left unread."""

    teacher: AnyTeacherConfig
    search: SearchConfig

    @property
    def space(self) -> SearchSpace:
        config = self.search.space
        beside = getattr(config, "beside", None)  # of a space of the teacher's own layers
        return make_space(config if beside is None else beside(self.teacher))


class _Data(BaseModel):
    task: Task


class Source(NamedTuple):
    """A finished student of another run."""

    root: Path
    config: _Config
    task: Task
    architecture: str
    methods: Sequence[Mapping[str, Any]]  # that it was taught by

    @property
    def weights(self) -> Path:
        return self.root / _WEIGHTS


def source_of(start: str, parent: Path) -> Source:
    """Find the run to start from, by its path or its folder's name below `parent`.

    Raises:
        ConfigError: its student was pruned, so that no space has its architecture.
        RunDirError: there is no such run, it has no student yet, or it was altered.
    """
    run = RunDir.view(find_run(start, parent))
    played, data = run.read("tournament", TournamentResult), run.read("data", _Data)
    methods = run.read("distill", DistillResult).methods  # it refuses altered weights
    pruned = run.read("prune", PruneResult) if "prune" in run.manifest.stages else None
    if pruned is not None and pruned.refused is None:
        raise ConfigError([f"distill.start: the student of {run.root} was pruned, and a start needs a whole one"])
    return Source(run.root, run.config(_Config), data.task, played.winner.architecture, methods)


def require_start(start: str, parent: Path, space: SearchSpace, task: Task) -> None:
    """Refuse, before anything is trained, a start that no student of the space can have.

    Raises:
        ConfigError: published weights are missing, or another run's student is not the space's only member.
        RunDirError: there is no run to start from.
    """
    if start == "pretrained":
        space.require_weights(task)
    if not is_run(start):
        return
    it = source_of(start, parent)
    if space.size > 1 and space.name == it.config.search.space.name:
        raise ConfigError(
            [
                f"distill.start: the student of {it.root} is {it.architecture}, and search.space has {space.size:,} "
                "members, which its weights do not fit; leave one choice for each gene, this student's"
            ]
        )
    _require_same(it, space, space.format(next(space.all_architectures())), task)


def is_run(start: str) -> bool:
    """True if the start names a run."""
    return start not in DistillConfig.no_places


def begin_from_run(network: nn.Module, architecture: Architecture, task: Task, space: SearchSpace, it: Source) -> None:
    """Load another run's student into the network; its classifier only if it tells the same classes apart.

    Raises:
        CheckpointError: its weights do not fit.
        ConfigError: its space, its architecture or its tokenizer is another.
    """
    _require_same(it, space, space.format(architecture), task)
    theirs = it.config.space
    taught = theirs.build(theirs.parse(it.architecture), it.task)
    methods = DistillConfig.model_validate({"methods": list(it.methods)}).methods if it.methods else ()
    shipped = make_recipe(methods).deployable(taught)
    load_weights(shipped, it.weights)
    given = taught.state_dict()
    is_shipped = cast(Classifier, shipped).get_classifier() is taught.get_classifier()
    if not is_shipped or it.task.labels != task.labels:
        given |= _classifier(network)
    load_tensors(network, given, it.weights)


def start_digests(start: str, parent: Path, space: SearchSpace) -> tuple[str, ...]:
    """Digests of the files that students begin from."""
    if start == "pretrained":
        return space.weights_digests()
    return (file_digest(source_of(start, parent).weights),) if is_run(start) else ()


def _require_same(it: Source, space: SearchSpace, text: str, task: Task) -> None:
    theirs = it.config.space
    if (theirs.name, it.task.kind) != (space.name, task.kind):
        raise ConfigError([f"distill.start: {it.root} has a student of space {theirs.name!r}, not of {space.name!r}"])
    if text != it.architecture:
        raise ConfigError([f"distill.start: {it.root} has the student {it.architecture}, and this one is {text}"])
    if it.task.tokenizer_sha256 != task.tokenizer_sha256:
        raise ConfigError([f"distill.start: the student of {it.root} reads texts by another tokenizer than this run's"])


def _classifier(network: nn.Module) -> dict[str, object]:
    """Return the network's own classifier's tensors, by their names in the network."""
    last = cast(Classifier, network).get_classifier()
    [place] = [name for name, module in network.named_modules() if module is last]
    return {f"{place}.{name}": tensor for name, tensor in last.state_dict().items()}
