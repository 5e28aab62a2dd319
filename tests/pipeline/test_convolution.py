"""Gradients of narrow strided 1x1 convolutions are right on any processor, and no call that spoils the heap is made."""

import subprocess
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgestill.pipeline.networks import convolution


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that needs the guard."""
    convolution.guard()
    monkeypatch.setattr(convolution, "is_faulty", lambda: True)


@pytest.fixture
def unasked(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """A processor that nobody has looked at yet."""
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path))
    convolution.is_faulty.cache_clear()
    yield
    convolution.is_faulty.cache_clear()


def gradients(convolve: Callable[..., Tensor], *given: Tensor, **settings: object) -> list[Tensor]:
    """Of a weighted sum of the output, with respect to everything given."""
    own = [tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_() for tensor in given]
    output = convolve(*own, **settings)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return list(torch.autograd.grad(output, own, weights))


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_here_do_not_depend_on_the_layout(threads):
    assert convolution.wrong_gradients([threads]) == []
    torch.set_num_threads(1)


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("channels", [1, 3, 6, 15])
@pytest.mark.parametrize(("stride", "sides"), [((2, 2), (8, 8)), ((3, 1), (7, 9)), ((1, 2), (5, 6))])
def test_the_guards_gradients_are_those_in_double_precision(channels, stride, sides):
    inputs = torch.randn(4, channels, *sides).contiguous(memory_format=torch.channels_last)
    given = inputs, torch.randn(8, channels, 1, 1), torch.randn(8)
    found = gradients(F.conv2d, *given, stride=stride)
    expected = gradients(F.conv2d, *(tensor.double() for tensor in given), stride=stride)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("guarded")
def test_one_dimension_and_groups_are_guarded_too():
    for given, settings in (
        ((torch.randn(4, 9, 5).transpose(1, 2), torch.randn(8, 5, 1)), {"stride": 2}),
        ((torch.randn(4, 6, 8, 8), torch.randn(4, 3, 1, 1)), {"stride": 2, "groups": 2}),
    ):
        convolve = F.conv1d if given[0].dim() == 3 else F.conv2d
        found = gradients(convolve, *given, **settings)
        for one, other in zip(found, gradients(convolve, *(t.double() for t in given), **settings), strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("guarded")
def test_a_gradient_of_a_gradient_goes_through_the_guard():
    inputs, weight = torch.randn(2, 3, 8, 8, dtype=torch.double), torch.randn(4, 3, 1, 1, dtype=torch.double)
    given = inputs.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x, w: F.conv2d(x, w, stride=2).square(), given)


@pytest.mark.usefixtures("guarded")
def test_frozen_inputs_get_no_gradient():
    weight = torch.randn(8, 3, 1, 1, requires_grad=True)
    F.conv2d(torch.randn(2, 3, 8, 8), weight, stride=2).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize(
    ("weight", "stride", "padding", "transposed", "concerned"),
    [
        ((8, 3, 1, 1), (2, 2), (0, 0), False, True),
        ((8, 15, 1, 1), (1, 2), (0, 0), False, True),
        ((8, 16, 1, 1), (2, 2), (0, 0), False, False),
        ((8, 3, 1, 1), (1, 1), (0, 0), False, False),
        ((8, 3, 3, 3), (2, 2), (1, 1), False, False),
        ((8, 3, 1, 1), (2, 2), (1, 1), False, False),
        ((3, 8, 1, 1), (2, 2), (0, 0), True, False),
    ],
)
def test_narrow_strided_pointwise_convolutions_alone_are_concerned(weight, stride, padding, transposed, concerned):
    assert convolution.is_concerned(weight, stride, padding, transposed) is concerned


@pytest.mark.usefixtures("unasked")
@pytest.mark.parametrize(("code", "expected"), [(10, False), (11, True), (-6, True), (0, True), (None, True)])
def test_a_child_is_asked_once_and_its_death_counts_as_a_fault(monkeypatch, code, expected):
    asked = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        asked.append(1)
        if code is None:
            raise subprocess.TimeoutExpired(command, 60)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", run)
    assert convolution.is_faulty() is expected
    convolution.is_faulty.cache_clear()  # as another process begins
    assert convolution.is_faulty() is expected
    assert len(asked) == 1


@pytest.mark.usefixtures("unasked")
def test_another_limit_of_instructions_is_asked_again(monkeypatch):
    said = iter([True, False])
    monkeypatch.setattr(convolution, "_found_faulty", lambda: next(said))
    assert convolution.is_faulty()
    convolution.is_faulty.cache_clear()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert not convolution.is_faulty()


@pytest.mark.usefixtures("unasked")
def test_a_damaged_record_is_made_again(monkeypatch):
    monkeypatch.setattr(convolution, "_found_faulty", lambda: False)
    assert not convolution.is_faulty()
    convolution._record().write_text("Tru")
    convolution.is_faulty.cache_clear()
    assert not convolution.is_faulty()
    assert convolution._record().read_text() == "False"


@pytest.mark.usefixtures("unasked")
def test_where_nothing_was_found_torchs_own_kernel_stays(monkeypatch):
    monkeypatch.setattr(convolution, "_found_faulty", lambda: False)
    convolution.is_faulty()
    monkeypatch.setattr(convolution, "_library", None)
    convolution.guard()
    assert convolution._library is None
