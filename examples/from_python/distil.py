"""Distil your own network on your own data set, both from Python; further settings as arguments."""

import sys

from mine import Bars, trained

import edgestill

BUDGET = ("search.budget.max_params=60k", "distill.training.epochs=20")

if __name__ == "__main__":
    train, test = Bars(600, seed=0), Bars(300, seed=1)
    outcome = edgestill.compress(
        data=(train, test), teacher=trained(train), settings=[*BUDGET, *sys.argv[1:]], out="runs"
    )
    bundle = edgestill.Bundle(outcome.bundle)
    print(f"{outcome.tested.shipped.accuracy:.2%} on {outcome.tested.shipped.n} test images; {bundle.verify().summary}")
