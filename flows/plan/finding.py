"""A finding of `edgestill doctor`."""

from typing import NamedTuple


class Check(NamedTuple):
    """One finding. `is_fault` ends in exit code 1; else a fix is advice."""

    name: str
    found: str
    fix: str = ""
    is_fault: bool = False

    @property
    def state(self) -> str:
        return "fault" if self.is_fault else "note" if self.fix else "ok"

    @property
    def line(self) -> str:
        return f"{self.state:<6} {self.name:<12} {self.found}{f'; {self.fix}' if self.fix else ''}"
