"""Random numbers from a seed alone, also where a library or a network draws them from a generator of the process.

What draws by itself is given a generator or a seed; this is for what cannot be: dropout, fresh layers, a third party's
code. Seeds are derived from content (`pipeline.frozen.derive_seed`), so that neither order nor a kill shows.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Seed the generators of torch, numpy and Python within, and leave them as they were.

    Of GPUs, those of a process that computes on one already. `torch.manual_seed` is not used: it takes longer than the
    rest together, and where there is no GPU yet it keeps every seed for the day that there is one.
    """
    on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 - the generator of others
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if on_gpu else ()):
        try:
            torch.default_generator.manual_seed(seed)
            if on_gpu:
                torch.cuda.manual_seed_all(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            random.seed(seed)
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
