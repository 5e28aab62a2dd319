"""Make the files of the example from scikit-learn's digits: public ones, a pool without labels, and three owners'."""

import argparse

import numpy as np
from sklearn.datasets import load_digits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--owners", type=int, default=3)
    owners = parser.parse_args().owners
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = (digits.images[order] / 16).astype(np.float32), digits.target[order]
    np.savez("public.npz", x_train=x[:300], y_train=y[:300], x_test=x[300:500], y_test=y[300:500])
    np.savez("pool.npz", x=x[500:900])
    for number in range(owners):
        own = np.flatnonzero(y[900:] % owners == number) + 900  # each has classes of its own
        np.savez(f"owner_{number}.npz", x=x[own], y=y[own])


if __name__ == "__main__":
    main()
