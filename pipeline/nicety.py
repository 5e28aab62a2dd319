"""What a run can do without: where it fails there is a caution, and the run goes on."""

import contextlib
from collections.abc import Iterator

from pipeline.errors import first_line


@contextlib.contextmanager
def nicety(failed: str, cautions: list[str]) -> Iterator[None]:
    """Go on after an error inside; one sentence more in `cautions` says what is missing and why.

    It is for what describes or adorns a result: a card, a bill of materials, a chart, a page, examples that a method
    shows. Models, figures that decide, and the manifest never stand in it.

    Args:
        failed: the sentence's begin, such as "MODEL_CARD.md was not written".
    """
    try:
        yield
    except Exception as error:
        why = first_line(error)[:300]
        cautions.append(f"{failed} ({type(error).__name__}{f': {why}' if why else ''})")
