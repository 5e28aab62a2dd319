"""Scores by scorer and architecture: looked up where an interrupted search left them, else computed and recorded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from search.outcome import Outcome
from search.result import Failure
from search.space import Architecture, SearchSpace


class Journal:
    """Entries are recorded in the order in which candidates were asked for, whatever order they finish in."""

    def __init__(
        self,
        space: SearchSpace,
        known: Sequence[Mapping[str, Any]],
        record: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._space, self._record = space, record
        self._known = {(entry["scorer"], entry["architecture"]): entry for entry in known}
        self._failed: dict[tuple[str, str], Failure] = {}

    @property
    def failures(self) -> list[Failure]:
        """Each once, in the order met."""
        return list(self._failed.values())

    def score(
        self,
        scorer: str,
        architectures: Sequence[Architecture],
        outcomes: Callable[[Sequence[Architecture]], Iterator[Outcome]],
    ) -> Iterator[tuple[Architecture, Mapping[str, Any] | None]]:
        """Each architecture in order with its entry, None where it failed; `outcomes` scores those not known."""
        texts = [self._space.format(architecture) for architecture in architectures]
        pairs = list(zip(architectures, texts, strict=True))
        unknown = {text: architecture for architecture, text in pairs if (scorer, text) not in self._known}
        fresh = outcomes(list(unknown.values()))
        for architecture, text in pairs:
            entry = self._known.get((scorer, text))
            if entry is None:
                entry = self._known[scorer, text] = {"scorer": scorer, "architecture": text, **next(fresh)}
                self._record(entry)
            if "failure" in entry:
                self.fail(scorer, architecture, entry)
            yield architecture, None if "failure" in entry else entry

    def fail(self, scorer: str, architecture: Architecture, outcome: Mapping[str, Any]) -> None:
        """Note a failure for the result."""
        text = self._space.format(architecture)
        failure = Failure(
            scorer=scorer, architecture=text, type=outcome.get("type", "error"), reason=outcome["failure"]
        )
        self._failed[scorer, text] = failure
