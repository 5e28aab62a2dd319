"""`mnist_rotate` with a student that is a convolutional network."""

from functools import partial

from tasks._mnist import make_bench
from tasks.mnist_rotate import rotate

make = partial(make_bench, "rotated", rotate, "cnn")
