"""The commands for the registry of a folder of runs: registry, promote, rollback."""

from pathlib import Path
from typing import Annotated

import typer

from edgestill.flows.cli.options import Commands, Out, Run
from edgestill.flows.terminal import answer, joined, say, table

Because = Annotated[str, typer.Option("--because", metavar="TEXT", help="Reason to keep with the decision.")]


def registry(out: Out = Path("runs")) -> None:
    """Show the promoted run, and every decision with its reason."""
    from edgestill.flows.registry.book import read_book

    book = read_book(out)
    rows = [(one.at, one.run, one.kind.replace("_", " "), one.by, one.reason) for one in book.decisions]
    looks = [f"looks at test split {test[:12]}: {count}" for test, count in book.looks.items()]
    answer(
        joined(
            [
                f"promoted: {book.current or 'none yet'}",
                *(table(["at", "run", "decision", "by", "reason"], rows, words_last=True) if rows else []),
                *looks,
            ]
        )
    )


def promote(
    run: Run,
    by_rule: Annotated[
        bool, typer.Option("--by-rule", help="Promote it only if it is surely better, or faster at no loss.")
    ] = False,
    because: Because = "asked for",
    out: Out = Path("runs"),
) -> None:
    """Promote a finished run, by hand or by rule."""
    from edgestill.flows.registry import promotion
    from edgestill.pipeline.runs.find import find_run

    root = find_run(run, out).resolve()
    decision = promotion.consider(root) if by_rule else promotion.promote(root, because)
    say(f"{decision.run}: {decision.kind}; {decision.reason}")


def rollback(because: Because = "asked for", out: Out = Path("runs")) -> None:
    """Go back to the run that was promoted before the current one."""
    from edgestill.flows.registry import promotion

    decision = promotion.roll_back(out.resolve(), because)
    say(f"{decision.run} is the promoted run again, in the place of {decision.against}")


COMMANDS: Commands = {"registry": registry, "promote": promote, "rollback": rollback}
