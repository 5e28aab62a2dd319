"""Random numbers that depend on a seed alone, even where a library or a network draws from a global generator.

Our own code takes a generator or a seed. This is for code that takes neither: dropout, fresh layers, third parties.
Seeds are derived from content (`pipeline.frozen.derive_seed`), so that neither order nor a kill changes results.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Seed the generators of torch, numpy and Python within, and restore their states afterwards.

    GPU generators are seeded only if the process already uses a GPU. `torch.manual_seed` is not used: it takes longer
    than the rest together, and before CUDA is initialised it queues every seed until then.
    """
    on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 - libraries draw from it
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
