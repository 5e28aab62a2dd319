"""The command label: what a run asks people, and their labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgestill.flows.cli.options import Commands, Out, Run
from edgestill.flows.terminal import say

if TYPE_CHECKING:
    from edgestill.flows.labelling.desk import Desk


def label(
    run: Run,
    answers: Annotated[
        Path | None, typer.Option("--answers", metavar="FILE.csv", help="Table to read labels from: id, label.")
    ] = None,
    out: Out = Path("runs"),
) -> None:  # fmt: skip
    """Write what to label next, or read the labels.

    For a run with distill.driver active that asks people. Write a page and a table of the examples of its open round
    into the run's folder `labels`; with --answers, read a table. `edgestill resume` goes on once all are labelled.
    """
    from edgestill.flows.labelling.desk import Desk
    from edgestill.pipeline.runs.find import find_run
    from edgestill.pipeline.runs.rundir import RunDir

    with RunDir.open(find_run(run, out)) as directory:
        desk = Desk(directory)
        if answers is None:
            _ask(desk)
        else:
            _read(desk, answers)


def _ask(desk: "Desk") -> None:
    from edgestill.flows.labelling.page import label_page, label_table
    from edgestill.flows.stages.context import LASTING
    from edgestill.pipeline.errors import command

    run, questions, splits = desk.run, desk.questions, desk.splits
    name = f"round_{questions.round}"
    table = run.path(LASTING, f"{name}.csv")
    is_new = not table.exists()
    if is_new:  # one that is there may hold labels that nobody has read yet
        run.write(LASTING, table.name, label_table(questions, splits))
    page = run.write(LASTING, f"{name}.html", label_page(questions, splits, run.root.name, table.name))
    say(f"page   {page}")
    say(f"table  {table}{'' if is_new else '  (as it was)'}")
    say(f"write a class beside each id, or ? for none; then {command('label', run.root, '--answers', table)}")


def _read(desk: "Desk", path: Path) -> None:
    from edgestill.flows.labelling.table import read_labels
    from edgestill.pipeline.errors import command

    labels = read_labels(path, desk.questions, desk.splits.task.labels)
    left = desk.keep(labels)
    number, root = desk.questions.round, desk.run.root
    way_on = f"{left:,} of round {number} to go" if left else f"round {number} is complete: {command('resume', root)}"
    say(f"{len(labels):,} label{'s' * (len(labels) != 1)} read; {way_on}")


COMMANDS: Commands = {"label": label}
