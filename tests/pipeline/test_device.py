import subprocess
import sys

import pytest

from pipeline.device import DeviceConfig, select_device
from pipeline.errors import UserError

_COUNT_FAULTS = """
import resource, sys, torch
from pipeline.device import DeviceConfig, select_device
if sys.argv[1] == "select":
    select_device(DeviceConfig(accelerator="cpu"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(12_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(argument: str) -> int:
    done = subprocess.run([sys.executable, "-c", _COUNT_FAULTS, argument], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of other systems is left alone")
def test_memory_that_torch_frees_is_not_faulted_in_again():
    assert 2 * faults("select") < faults("leave")  # the heap grows to what is needed, then serves


def test_a_missing_gpu_is_said_before_anything_runs(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert select_device(DeviceConfig()).type == "cpu"
    with pytest.raises(UserError, match="torch sees no CUDA device; use 'auto' or 'cpu'"):
        select_device(DeviceConfig(accelerator="cuda"))
