"""A smaller sample for the default score's scale: what is tested here does not depend on its size."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _small_sample() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgestill.search.scoring.composed.SAMPLE", 16)
        yield
