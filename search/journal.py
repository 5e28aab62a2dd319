"""Journal of scores by scorer and architecture: taken from an interrupted search, else computed and recorded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgestill.search.result import Failure
from edgestill.search.scoring.outcome import Outcome
from edgestill.search.space import Architecture, SearchSpace


class Journal:
    """Journal of scores, recorded in the order in which candidates were asked for, not the order of finishing."""

    def __init__(
        self,
        space: SearchSpace,
        known: Sequence[Mapping[str, Any]],
        record: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._space, self._record = space, record
        self._known = {(entry["scorer"], entry["architecture"]): entry for entry in known}
        self._failed: dict[tuple[str, str], Failure] = {}
        self._met: dict[str, Architecture] = {}

    @property
    def failures(self) -> list[Failure]:
        """Failures, each once, in the order met."""
        return list(self._failed.values())

    def architecture(self, text: str) -> Architecture:
        """Return an architecture that was asked for, by its string form."""
        return self._met[text]

    def score(
        self,
        scorer: str,
        architectures: Sequence[Architecture],
        outcomes: Callable[[Sequence[Architecture]], Iterator[Outcome]],
    ) -> Iterator[tuple[Architecture, Mapping[str, Any] | None]]:
        """Yield each architecture in order with its entry, None if it failed; `outcomes` scores the unknown ones."""
        texts = [self._space.format(architecture) for architecture in architectures]
        pairs = list(zip(architectures, texts, strict=True))
        self._met |= dict(zip(texts, architectures, strict=True))
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
        """Add a failure to those listed in the search result."""
        text = self._space.format(architecture)
        failure = Failure(
            scorer=scorer, architecture=text, type=outcome.get("type", "error"), reason=outcome["failure"]
        )
        self._failed[scorer, text] = failure
