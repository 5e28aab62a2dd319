"""Optional work of a run: if it fails, the run gets a caution and goes on."""

import contextlib
from collections.abc import Iterator

from edgestill.pipeline.errors import first_line


@contextlib.contextmanager
def nicety(failed: str, cautions: list[str]) -> Iterator[None]:
    """Go on after an error inside, and append a sentence to `cautions`: the missing thing and the reason.

    Use it for things that describe or adorn a result: a card, a bill of materials, a chart, a page, examples of a
    method. Models, deciding figures and the manifest are never written inside it.

    Args:
        failed: the beginning of the sentence, such as "MODEL_CARD.md was not written".
    """
    try:
        yield
    except Exception as error:
        why = first_line(error)[:300]
        cautions.append(f"{failed} ({type(error).__name__}{f': {why}' if why else ''})")
