"""Tournament between the best-scored students: successive halving by short trainings.

Every entrant trains for a rung's epochs, the best by validation accuracy go on, each from its own weights, and the
next rung is longer (Jamieson and Talwalkar 2016, arXiv:1502.07943; Li et al. 2018, arXiv:1603.06560). A rung is a
schedule of its own, down to a learning rate of zero at its end, and the next one is a warm restart (Loshchilov and
Hutter 2017, arXiv:1608.03983). One long schedule cut short would compare students at a high learning rate, where
accuracy is noise; training anew for every rung would pay for the first epochs again. The comparison is fair, since all
entrants of a rung have the same epochs, the same schedule and the same order of images.

The caller decides how a student is trained and passes in `train`.

A lead is judged on the examples answered right by only one of the two students. The winner's lead over the runner-up
needs no correction for picking the best of many: with more students the gap between the first two only shrinks
(Gutmann and Maymin 1987, Annals of Statistics 15, 456-461). Its lead over the search's pick needs one, since any
other entrant could have overtaken the pick.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from edgestill.pipeline.errors import CandidateError, TargetError, first_line
from edgestill.pipeline.frozen import Frozen, without_none
from edgestill.pipeline.training.metrics import right_alone, tells_apart
from edgestill.search.config import TournamentConfig
from edgestill.search.fitness import fitness_of, ranked
from edgestill.search.result import Candidate, SearchResult


class Trained(NamedTuple):
    accuracy: float  # on validation, in [0, 1]; the balanced accuracy where that chooses
    seconds: float
    right: str  # validation examples that it answers right, `packed`


# (candidate, rung from 0, epochs) -> result; training continues from the weights of the rung before.
Train = Callable[[Candidate, int, int], Trained]
# (candidates, rung from 0, epochs) -> a function for each, in order, that returns its result or raises its failure.
TrainAtOnce = Callable[[Sequence[Candidate], int, int], Iterator[Callable[[], Trained]]]
# (examples that one answers right, those of another, comparisons) -> interval of their difference
Interval = Callable[[str, str, int], tuple[float, float]]


class Entrant(Frozen):
    candidate: Candidate
    rank: int | None  # by the search's score, from 1; None: not met by the winner's search
    most_params: bool  # True for the params pick
    accuracies: tuple[float, ...] = ()  # on validation, after each finished rung
    seconds: float = 0.0
    failure: str | None = None


class Lead(Frozen):
    """Lead of the winner over another entrant after the last rung finished by both."""

    over: str  # the other's architecture
    accuracy: float  # difference on validation, as a share
    won: int  # validation examples that only the winner gets right
    lost: int  # validation examples that only the other gets right
    comparisons: int  # number of comparisons from which this one was picked by its outcome
    interval: tuple[float, float] | None = None  # of the lead in mean recall, where that chooses

    @property
    def is_noise(self) -> bool:
        if self.interval is not None:
            return self.interval[0] <= 0 <= self.interval[1]
        return not tells_apart(self.lost, self.won, self.comparisons)

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(handler(self), "interval")


class Rung(Frozen):
    epochs: int  # of each entrant, on top of the rungs before
    entrants: int


class TournamentResult(Frozen):
    enabled: bool
    winner: Candidate
    search_winner: Candidate
    entrants: tuple[Entrant, ...] = Field((), description="entrants by rank; those without a rank come last")
    rungs: tuple[Rung, ...] = ()
    leads: tuple[Lead, ...] = Field(
        (), description="winner's leads over the runner-up and, if it is another, the search's pick"
    )
    epochs: int = 0  # sum over all finished trainings
    seconds: float = 0.0
    validation_images: int = 0
    train_images: int = 0  # images in an epoch
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """True if another student than the search's winner wins."""
        return self.winner.architecture != self.search_winner.architecture

    @property
    def change(self) -> str:
        """`kept`, or `from A to B`."""
        return f"from {self.search_winner.architecture} to {self.winner.architecture}" if self.changed else "kept"


def shortlist(found: SearchResult, count: int, beside: Sequence[str] = ()) -> list[Entrant]:
    """Return the search's winner, the next best by score up to `count` in all, and the student with most parameters.

    Args:
        beside: architectures that take part too, if the search scored them.
    """
    order = ranked(found.candidates, fitness_of(found))
    order.sort(key=lambda candidate: candidate.architecture != found.winner.architecture)
    ranks = {candidate.architecture: rank for rank, candidate in enumerate(order, start=1)}
    largest = found.picks.get("params") or min(order, key=lambda c: (-c.cost.params, c.architecture))
    others = (candidate for candidate in order if candidate.architecture in beside)
    chosen = {candidate.architecture: candidate for candidate in (*order[:count], largest, *others)}
    return [
        Entrant(candidate=c, rank=ranks.get(name), most_params=name == largest.architecture)
        for name, c in chosen.items()
    ]


def play(
    found: SearchResult,
    count: int,
    config: TournamentConfig,
    train: Train,
    *,
    beside: Sequence[str] = (),
    known: Sequence[Mapping[str, Any]] = (),
    record: Callable[[Mapping[str, Any]], None] = lambda entry: None,
    tick: Callable[[int, int, str], None] = lambda done, total, note: None,
    interval: Interval | None = None,
    at_once: TrainAtOnce | None = None,
) -> TournamentResult:
    """Play successive halving over the shortlist; equal accuracies go to the better rank.

    A failed entrant is recorded with its reason and is out. The others are ordered by rungs finished, then accuracy;
    the first is the winner. If all failed, the search's winner stays.

    Args:
        count: size of the shortlist by score, beside the params pick; below 2 there is no tournament.
        beside: architectures that take part too, if the search scored them.
        known: entries given to `record` by an interrupted tournament; those trainings are not repeated.
        interval: of a lead, to judge it by; None where the accuracy chooses.
        at_once: trains all entrants of a rung; None: `train` trains one after another.
    """
    if count < 2:
        return TournamentResult(enabled=False, winner=found.winner, search_winner=found.winner)
    entrants = shortlist(found, count, beside)
    trainings = _Trainings(at_once or partial(_in_turn, train), known, record)
    plan = rungs(len(entrants), config)
    total, done = sum(rung.epochs * rung.entrants for rung in plan), 0
    alive, spent, played = list(range(len(entrants))), 0, []
    for number, rung in enumerate(plan):
        if len(alive) < 2:  # the others failed
            break
        played.append(Rung(epochs=rung.epochs, entrants=len(alive)))
        trainings.begin([entrants[place] for place in alive], number, rung.epochs)
        for place in alive:
            tick(done, total, f"rung {number + 1} of {len(plan)}: {entrants[place].candidate.architecture}")
            entrants[place] = trainings(entrants[place], number, rung.epochs)
            done += rung.epochs
            spent += rung.epochs * (entrants[place].failure is None)
        finished = [place for place in alive if entrants[place].failure is None]
        finished.sort(key=lambda place: (-entrants[place].accuracies[-1], place))
        alive = sorted(finished[: max(1, len(alive) // config.reduction)])
    tick(total, total, "")
    winner = _winner(entrants)
    return TournamentResult(
        enabled=True,
        winner=winner.candidate if winner else found.winner,
        search_winner=found.winner,
        entrants=tuple(entrants),
        rungs=tuple(played),
        leads=_leads(winner, entrants, found.winner, trainings.right, interval) if winner else (),
        epochs=spent,
        seconds=sum(entrant.seconds for entrant in entrants),
        notes=() if winner else ("every entrant failed, so the search's winner stays",),
    )


def rungs(entrants: int, config: TournamentConfig) -> list[Rung]:
    """Plan the rungs: rung k trains entrants // reduction^k students for epochs x reduction^k more, until one is left.

    Each rung thus costs about the same. A single entrant needs no rung.
    """
    plan, epochs = list[Rung](), config.epochs
    while entrants > 1:
        plan.append(Rung(epochs=epochs, entrants=entrants))
        entrants, epochs = max(1, entrants // config.reduction), epochs * config.reduction
    return plan


def _winner(entrants: Sequence[Entrant]) -> Entrant | None:
    """Return the best entrant without a failure: by rungs finished, then accuracy, then rank."""
    sound = [entrant for entrant in entrants if entrant.failure is None]
    return max(sound, key=lambda e: (len(e.accuracies), e.accuracies[-1:]), default=None)


def _leads(
    winner: Entrant,
    entrants: Sequence[Entrant],
    pick: Candidate,
    right: Mapping[tuple[int, str], str],
    interval: Interval | None,
) -> tuple[Lead, ...]:
    rivals = [e for e in entrants if e is not winner and e.failure is None and e.accuracies]
    if not rivals:
        return ()

    def lead(rival: Entrant, comparisons: int) -> Lead:
        name, other = winner.candidate.architecture, rival.candidate.architecture
        last = min(len(winner.accuracies), len(rival.accuracies)) - 1
        ours, theirs = right[last, name], right[last, other]
        won, lost = right_alone(ours, theirs)
        ahead = winner.accuracies[last] - rival.accuracies[last]
        apart = interval(ours, theirs, comparisons) if interval else None
        return Lead(over=other, accuracy=ahead, won=won, lost=lost, comparisons=comparisons, interval=apart)

    next_one = max(rivals, key=lambda e: (len(e.accuracies), e.accuracies[-1]))
    picks = (e for e in rivals if e.candidate.architecture == pick.architecture and e is not next_one)
    return lead(next_one, 1), *(lead(e, len(rivals)) for e in picks)


def _in_turn(train: Train, candidates: Sequence[Candidate], rung: int, epochs: int) -> Iterator[Callable[[], Trained]]:
    return (partial(train, candidate, rung, epochs) for candidate in candidates)


class _Trainings:
    """Trainings by (rung, architecture): taken from an interrupted tournament, else run and recorded."""

    def __init__(
        self, train: TrainAtOnce, known: Sequence[Mapping[str, Any]], record: Callable[[Mapping[str, Any]], None]
    ) -> None:
        told = (entry for entry in known if "failure" in entry or "right" in entry)
        self._known = {(entry["rung"], entry["architecture"]): entry for entry in told}
        self._train, self._record = train, record
        self._coming: Iterator[Callable[[], Trained]] = iter(())
        self.right: dict[tuple[int, str], str] = {}  # examples answered right, by rung and architecture

    def begin(self, entrants: Sequence[Entrant], rung: int, epochs: int) -> None:
        """Begin a rung, whose entrants are then asked for in this order."""
        candidates = [entrant.candidate for entrant in entrants]
        unknown = [candidate for candidate in candidates if (rung, candidate.architecture) not in self._known]
        self._coming = self._train(unknown, rung, epochs)

    def __call__(self, entrant: Entrant, rung: int, epochs: int) -> Entrant:
        architecture = entrant.candidate.architecture
        entry = self._known.get((rung, architecture))
        if entry is None:
            entry = {"rung": rung, "architecture": architecture, "epochs": epochs}
            entry |= self._outcome()
            self._record(entry)
        seconds = entrant.seconds + entry["seconds"]
        if "failure" in entry:
            return entrant.model_copy(update={"seconds": seconds, "failure": entry["failure"]})
        self.right[rung, architecture] = entry["right"]
        accuracies = (*entrant.accuracies, entry["accuracy"])
        return entrant.model_copy(update={"seconds": seconds, "accuracies": accuracies})

    def _outcome(self) -> dict[str, Any]:
        start, training = time.perf_counter(), next(self._coming)
        try:
            trained = training()
        except TargetError:  # the device is at fault, not the student
            raise
        except (RuntimeError, ArithmeticError, MemoryError) as error:  # NaN or out of memory: only this entrant fails
            reason = first_line(error)
            reason = reason if isinstance(error, CandidateError) else f"{type(error).__name__}: {reason}"
            return {"failure": reason, "seconds": round(time.perf_counter() - start, 3)}
        return {"accuracy": trained.accuracy, "seconds": round(trained.seconds, 3), "right": trained.right}
