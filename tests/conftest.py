"""What several test files need: small tasks, small data, and the optional development data."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from dead_workers import pytest_sessionfinish, pytest_terminal_summary, pytest_testnodedown

from edgestill.pipeline.conformance import samples
from edgestill.pipeline.data.splits import Batch, ImageSplit, Splits
from edgestill.pipeline.task import Task
from edgestill.search.space import SearchSpace
from edgestill.search.spaces import (
    BackbonesConfig,
    CausalTransformerConfig,
    LayersOfTeacherConfig,
    MobileConfig,
    Nb201Config,
    NniHubConfig,
    ResNetConfig,
    TextTransformerConfig,
    VitConfig,
    make_space,
)

__all__ = ["pytest_sessionfinish", "pytest_terminal_summary", "pytest_testnodedown"]

# Each space of the table at a size that a test can enumerate; a newcomer adds its line.
SMALL_SPACES = {
    "resnet": ResNetConfig(blocks=((1, 2), (1, 2), (1,)), widths=((4, 6), (6, 8), (8,))),
    "nb201": Nb201Config(channels=2, cells=1),
    "mobile": MobileConfig(
        depths=((1, 2), (1,), (1, 2), (1,)),
        widths=((4,), (4, 6), (6,), (8,)),
        kernels=(3, 5),
        expansions=(2,),
        last_widths=(8, 12),
    ),
    "vit": VitConfig(depth=(1, 2), heads=(1, 2, 3), head_width=(4,), feed_forward=(1, 2), grid=(2, 4)),
    "text_transformer": TextTransformerConfig(depth=(1, 2), heads=(1, 2), head_width=(4, 6), feed_forward=(1, 2)),
    "causal_transformer": CausalTransformerConfig(depth=(1, 2), heads=(1, 2), head_width=(4, 6), feed_forward=(1, 2)),
    "layers_of_teacher": LayersOfTeacherConfig(heads=(1, 4), feed_forward=(1, 4)),
    "backbones": BackbonesConfig(models=("test_resnet", "test_efficientnet"), resolution=(None, 24, 32)),
    "nni": NniHubConfig(space="NasBench201", options={"stem_out_channels": 2, "num_modules_per_stack": 1}),
}

# Files that take a minute or more, the longest first: the processes that share the files out then end together.
LONGEST = (
    "test_run.py", "test_matrix.py", "test_foreign_run.py", "test_server.py", "test_stages.py", "test_text_run.py",
    "test_language_run.py", "test_layers_of_teacher_run.py", "test_examples.py", "test_compression.py",
    "test_packaging.py", "test_fit_device.py", "test_start.py", "test_smoke.py", "test_plugin.py", "test_profile.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Sums in one order, so that a test can ask for equal bits; and the machine is shared."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept between runs is neither read from the user's folder nor written to it."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own  # by all processes of this run of the tests
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESTILL_CACHE", str(shared / "cache"))
        yield


@pytest.fixture(autouse=True)
def _own_random_numbers() -> Iterator[None]:
    """Each test draws from the same seed, whatever ran before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def development_data() -> Path:
    """The folder of development data, which no part of the product needs."""
    root = Path(__file__).resolve().parents[1]
    found = Path(os.environ.get("EDGESTILL_DATA", root.parent / "shared" / "data"))
    if not found.is_dir():
        pytest.skip("the development data is not here; set EDGESTILL_DATA to its folder")
    return found


@pytest.fixture(scope="session")
def make_task() -> Callable[..., Task]:
    """(channels=1, side=8, classes=3) to a task."""
    return samples.image_task


@pytest.fixture(scope="session")
def make_token_task() -> Callable[..., Task]:
    """(length=10, vocab_size=20, classes=3) to a task of text."""
    return samples.text_task


@pytest.fixture(scope="session")
def make_task_for() -> Callable[..., Task]:
    """(space, channels=1, side=8, classes=3) to a task that the space's students take; text as long as `side`."""
    return lambda space, *sizes, **named: samples.task_of(space.inputs, *sizes, **named)


@pytest.fixture(scope="session")
def make_split() -> Callable[..., ImageSplit]:
    """(task, count, seed=0) to learnable images, or to token ids for a task of text."""
    return samples.examples


@pytest.fixture(scope="session")
def make_splits() -> Callable[..., Splits]:
    """(task, augment=None, train=90) to the splits that the stages are handed."""
    return samples.splits


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    """(task, size=12, seed=0) to one batch."""
    return samples.batch


@pytest.fixture(scope="session")
def small_space() -> Callable[[str], SearchSpace]:
    """A space of the table, by name, at a size that can be enumerated."""
    return lambda name: make_space(SMALL_SPACES[name])
