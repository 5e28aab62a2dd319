"""Division of a training split among clients, from even to one where each client has a class of its own."""

# N examples, C classes

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from edgestill.pipeline.errors import DataError
from edgestill.pipeline.frozen import derive_seed

Division = Literal["even", "dirichlet", "class"]
LEAST = 4  # examples of a client; batch norm cannot train on fewer than two a step
_DRAWS = 1000


def partition(targets: Tensor, clients: int, division: Division, alpha: float, seed: int) -> list[Tensor]:
    """Return the positions [N_k] of each client's examples; every example is one client's.

    - even: drawn without regard to classes.
    - dirichlet: each class is divided by shares drawn from Dirichlet(alpha, …, alpha), as Hsu, Qi and Brown 2019,
      arXiv:1909.06335, divide; 0.1 gives most clients two or three classes, 100 is nearly even.
    - class: client k has the classes c with c mod clients = k; where there are fewer classes than clients, the clients
      k with k mod classes = c share class c.

    Raises:
        DataError: a client would have fewer than four examples.
    """
    rng = np.random.default_rng(derive_seed(seed, "clients", division))
    labels = targets.cpu().numpy()
    if division == "even":
        parts = np.array_split(rng.permutation(len(labels)), clients)
    elif division == "class":
        parts = _by_class(labels, clients, rng)
    else:
        parts = _by_shares(labels, clients, alpha, rng)
    fewest = min(map(len, parts))
    if fewest < LEAST:
        raise DataError(
            f"{len(labels):,} training examples divided among {clients} clients ({division}) leave one with "
            f"{fewest}; each needs {LEAST}: ask for fewer clients or a larger alpha"
        )
    return [torch.from_numpy(np.sort(part)) for part in parts]


def _by_class(labels: np.ndarray, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
    classes = np.unique(labels)
    if len(classes) >= clients:
        return [np.flatnonzero(np.isin(labels, classes[k::clients])) for k in range(clients)]
    parts: list[np.ndarray] = [np.empty(0, int)] * clients
    for place, label in enumerate(classes):
        holders = range(place, clients, len(classes))
        shared = np.array_split(rng.permutation(np.flatnonzero(labels == label)), len(holders))
        for holder, part in zip(holders, shared, strict=True):
            parts[holder] = part
    return parts


def _by_shares(labels: np.ndarray, clients: int, alpha: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw until each client has enough examples; the best draw if none does."""
    best: list[np.ndarray] = []
    for _ in range(_DRAWS):
        drawn = _drawn(labels, clients, alpha, rng)
        if not best or min(map(len, drawn)) > min(map(len, best)):
            best = drawn
        if min(map(len, best)) >= LEAST:
            break
    return best


def _drawn(labels: np.ndarray, clients: int, alpha: float, rng: np.random.Generator) -> list[np.ndarray]:
    parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == label))
        ends = (np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1] * len(places)).round().astype(int)
        for part, more in zip(parts, np.split(places, ends), strict=True):
            part.append(more)
    return [np.concatenate(part) for part in parts]
