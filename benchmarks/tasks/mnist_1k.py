"""Ten digits from 1,000 images, as mnist_oddeven otherwise; `mnist_1k_pool` has labels for 100 of them alone."""

from lib.bench import Make
from tasks.mnist_oddeven import make_few

_DIGITS = tuple("0123456789")

VARIANTS: dict[str, Make] = {
    "": lambda seed, data, cache: make_few(seed, data, cache, "mnist_1k", _DIGITS),
    "_pool": lambda seed, data, cache: make_few(seed, data, cache, "mnist_1k", _DIGITS, labelled=100),
}
