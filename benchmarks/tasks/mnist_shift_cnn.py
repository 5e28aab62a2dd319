"""`mnist_shift` with a student that is a convolutional network."""

from functools import partial

from tasks._mnist import make_bench
from tasks.mnist_shift import shift

make = partial(make_bench, "shifted", shift, "cnn")
