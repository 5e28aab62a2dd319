"""Active distillation: rounds of training a student, choosing examples by what it does not know, and asking about them.

Kang, Lee and others, "ActiveKD / PCoreSet", 2025, arXiv:2506.00910: in each round a fresh student learns labels and the
teacher's answers (with method dho as they do), and an acquisition function chooses the next examples. Who is asked is
the oracle: people, the data set's own hidden labels, or the teacher, as in Robust Active Distillation (Baykal et al.
2023, arXiv:2210.01213).

Validation and reference split keep all their labels, which the budget does not count. The choice of a round is kept as
soon as it is made, and every answer as it comes: a resumed run asks nobody twice.
"""

# N examples, K classes, D embedding width

from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from edgestill.distill.acquisition import ACQUISITIONS, AcquisitionName, Outlook
from edgestill.distill.distilled import Distilled
from edgestill.distill.drivers.base import Driver, DriverConfig, Learn, Lesson
from edgestill.distill.drivers.oracles import ORACLES, Oracle, PeopleOracle, TeacherOracle, with_labels_of_start
from edgestill.pipeline.data.splits import UNLABELLED, ImageSplit, Splits
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import evaluating, look
from edgestill.pipeline.teachers.teacher import PARTS, Part


class ActiveConfig(DriverConfig):
    """Rounds of choosing examples, asking about them, and training on the answers."""

    name: Literal["active"] = "active"
    oracle: Literal["people", "dataset", "teacher"] = Field(
        "people",
        description="whom it asks; people: label by `edgestill label`; dataset: labels hidden by `start`, for "
        "benchmarks; teacher: its logits, and the student learns from nothing else but the labels of the start",
    )
    acquisition: AcquisitionName = Field(
        "pcoreset", description=f"what chooses the examples; one of {', '.join(ACQUISITIONS)}"
    )
    rounds: int = Field(3, ge=1, le=1000, description="number of rounds of asking")
    budget: int = Field(100, ge=1, le=1_000_000, description="number of examples asked about in a round")
    start: int | None = Field(
        None,
        ge=1,
        description="labels of each class that are known at the start, drawn by seed, the others being hidden from the "
        "whole run; null: all that the data have",
    )
    max_queries: int | None = Field(
        None,
        ge=1,
        description="most examples that the teacher is asked about as the oracle, those with a label included; null: "
        "no limit",
    )

    @model_validator(mode="after")
    def _has_something_hidden(self) -> Self:
        if self.oracle == "dataset" and self.start is None:
            raise ValueError(
                "oracle 'dataset' answers from labels that are hidden at first; set start to the labels that each "
                "class keeps, such as 1"
            )
        if self.max_queries is not None and self.oracle != "teacher":
            raise ValueError(f"max_queries limits the teacher as the oracle, and the oracle is {self.oracle!r}")
        return self

    @property
    def trainings(self) -> int:
        return self.rounds + 1

    @property
    def gives(self) -> frozenset[Part]:
        return frozenset({"logits"}) if self.oracle == "teacher" else PARTS

    @property
    def hides(self) -> tuple[Any, ...]:
        return () if self.start is None and self.oracle != "teacher" else (self.oracle == "teacher", self.start)


class Questions(NamedTuple):
    """Examples that people are asked about."""

    round: int
    split: ImageSplit  # of the round's examples; their names are its `ids`
    answers: Mapping[str, int | None]  # so far, of all rounds, by name; None: fits no class
    closed: frozenset[str]  # names of the rounds before, which were learnt from
    known: frozenset[str]  # names of all examples without a label at the start

    @property
    def unanswered(self) -> list[str]:
        """Names of the round's examples without an answer."""
        assert self.split.ids is not None
        return [str(name) for name in self.split.ids if name not in self.answers]


class Active(Driver):
    """A lesson before the first round, and one after each; the last round's student ships."""

    name: ClassVar[str] = "active"
    paper: ClassVar[str] = "Kang et al. 2025, arXiv:2506.00910; Baykal et al. 2023, arXiv:2210.01213"
    Config: ClassVar[type[DriverConfig]] = ActiveConfig
    config: ActiveConfig
    people: ClassVar[str] = PeopleOracle.name

    def at_start(self, splits: Splits) -> Splits:
        oracle, begun = ORACLES[self.config.oracle], self._begun(splits)
        if not bool(oracle.askable(splits, begun).any()):
            raise ConfigError(
                [
                    "driver 'active' has no example to ask about: name a folder of them in data.unlabelled, or hide "
                    "labels by distill.driver.start"
                ]
            )
        return oracle.at_start(begun, self.config.max_queries)

    def run(self, learn: Learn, teacher: nn.Module, splits: Splits) -> Distilled:
        oracle, acquisition = self._oracle_on(splits), ACQUISITIONS[self.config.acquisition]()
        rounds = self.logs("rounds")
        told = [dict(entry["told"]) for entry in rounds.entries]
        asked = [[oracle.place[name] for name in entry["chosen"]] for entry in rounds.entries]
        while True:
            chosen = list(chain.from_iterable(asked))
            oracle.ask(chosen, len(asked), teacher)
            on, taught_by = oracle.taught(chosen)
            found = learn(Lesson(f"round_{len(asked)}", taught_by, splits=on, draw=len(asked)))
            told.append({"asked": len(chosen), "validation": found.fitted.best.score})
            count = self._count(oracle, asked)
            if not count:
                return found._replace(measures=found.measures | _measures(told, oracle))
            if acquisition.reads_errors:
                told[-1]["teacher_error"] = oracle.error_rate(teacher)
            outlook, pool = _outlook(found.student, oracle, chosen, told[-1].get("teacher_error", 0.0))
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "choose", len(asked)))
            positions = pool[acquisition.choose(outlook, count, generator)].tolist()
            rounds.append({"chosen": [oracle.names[at] for at in positions], "told": told[-1]}, durable=True)
            asked.append(positions)

    def afterwards(self, splits: Splits) -> Lesson:
        oracle = self._oracle_on(splits)
        chosen = [oracle.place[name] for entry in self.logs("rounds").entries for name in entry["chosen"]]
        on, taught_by = oracle.taught(chosen)
        return Lesson("", taught_by, splits=on)

    def questions(self, splits: Splits) -> Questions | None:
        """Examples of the round that people have not answered for yet; None: nobody is asked now."""
        oracle, rounds = self._people_on(splits), self.logs("rounds").entries
        names = [list(entry["chosen"]) for entry in rounds]
        if not names or set(names[-1]) <= oracle.answers.keys():
            return None
        split = oracle.begun.train.select(torch.tensor([oracle.place[name] for name in names[-1]]))
        known = frozenset(oracle.names[at] for at in oracle.pool.nonzero()[:, 0].tolist())
        return Questions(len(names), split, oracle.answers, frozenset(chain.from_iterable(names[:-1])), known)

    def keep(self, splits: Splits, labels: Mapping[str, int | None]) -> None:
        """Keep people's labels by the examples' names, None for one that fits no class."""
        self._people_on(splits).keep(labels)

    def _begun(self, splits: Splits) -> Splits:
        return with_labels_of_start(splits, self.config.start, self.seed)

    def _oracle_on(self, splits: Splits) -> Oracle:
        config = self.config
        return ORACLES[config.oracle](splits, self._begun(splits), self.logs, config.max_queries)

    def _people_on(self, splits: Splits) -> PeopleOracle:
        oracle = self._oracle_on(splits)
        assert isinstance(oracle, PeopleOracle), "the caller has looked at the configuration"
        return oracle

    def _count(self, oracle: Oracle, asked: Sequence[Sequence[int]]) -> int:
        """Number of examples to ask about in the next round; 0 after the last one."""
        if len(asked) == self.config.rounds:
            return 0
        unasked, left = int(oracle.pool.sum()) - sum(map(len, asked)), oracle.left()
        return min(self.config.budget, unasked, unasked if left is None else left)


def area_under_curve(asked: Sequence[int], scores: Sequence[float]) -> float:
    """Mean height of a learning curve over the number of examples asked about, by trapezoids."""
    width = asked[-1] - asked[0]
    if not width:
        return scores[-1]
    points = zip(pairwise(asked), pairwise(scores), strict=True)
    return sum((b - a) * (low + high) / 2 for (a, b), (low, high) in points) / width


def _measures(told: Sequence[Mapping[str, float]], oracle: Oracle) -> dict[str, float]:
    found = {f"round_{number}.{name}": value for number, one in enumerate(told) for name, value in one.items()}
    area = area_under_curve([int(one["asked"]) for one in told], [one["validation"] for one in told])
    found["active.area_under_curve"] = area
    return found | ({"active.queries": float(oracle.queries)} if isinstance(oracle, TeacherOracle) else {})


def _outlook(student: nn.Module, oracle: Oracle, chosen: Sequence[int], wrong: float) -> tuple[Outlook, Tensor]:
    """The student's view of pool and known examples, and the pool's positions in the training split."""
    train, pool = oracle.begun.train, oracle.pool.clone()
    known = train.targets.cpu() != UNLABELLED
    pool[list(chosen)], known[list(chosen)] = False, True
    views = (*_seen(student, train.select(pool)), *_seen(student, train.select(known)))
    return Outlook(*views, wrong), pool.nonzero()[:, 0]


def _seen(student: nn.Module, split: ImageSplit) -> tuple[Tensor, Tensor]:
    """Probabilities [N, K] and embedding [N, D] of a network that ships, as float64 on the CPU."""
    device = next(student.parameters()).device
    with evaluating(student), torch.no_grad():
        views = [look(student, batch.inputs) for batch in split.batches(512, device)]
    logits = torch.cat([view.logits for view in views]).double().cpu()
    return logits.softmax(1), torch.cat([view.embedding for view in views]).double().cpu()
