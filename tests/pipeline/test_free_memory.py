"""Free memory is what the machine has, or less where the process is in a container."""

import pytest

from edgestill.pipeline import free_memory


@pytest.fixture
def container(tmp_path, monkeypatch):
    """A container of version 2 with these figures, in bytes."""

    def make(limit: str, use: int, files: int) -> None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{use}\n")
        (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {files}\n")

    groups = [(str(tmp_path), *names) for _, *names in free_memory._GROUPS]
    monkeypatch.setattr(free_memory, "_GROUPS", groups)
    return make


def test_of_a_containers_limit_what_it_uses_is_taken_but_not_files_that_can_be_dropped(container):
    container("1000000", 700000, 200000)
    assert free_memory.available_bytes() == 500000


def test_a_container_above_its_limit_has_nothing_free(container):
    container("1000", 5000, 0)
    assert free_memory.available_bytes() == 0


def test_a_container_without_a_limit_has_the_machines(container):
    container("max", 5000, 0)
    free = free_memory.available_bytes()
    assert free is None or free > 10**6
