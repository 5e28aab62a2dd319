"""One training in several processes: each computes the features of its share of a batch, and their gradients.

Pooling, logits, losses and the optimizer stay in this process, which sees the whole batch: comparisons within a batch,
and anything that a method keeps, are as in one process. Batch norm takes its statistics over all shares. So the numbers
are those of one process with the same batch, to rounding; dropout alone draws others. The others have nothing but the
network, so a checkpoint is this process's, and a resumed training may have another number of processes.

After torch's DistributedDataParallel (Li et al. 2020, arXiv:2006.15704): weights are sent and gradients summed once a
step, by the same collectives (gloo, NCCL). Its copies of the loss and of the optimizer are not there.
"""

# B batch, C channels

import contextlib
import copy
import multiprocessing
import os
import pickle
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from edgestill.pipeline.child import inherited
from edgestill.pipeline.device import Compute, FeaturesElsewhere
from edgestill.pipeline.errors import FailedError, first_line
from edgestill.pipeline.networks.network import Classifier
from edgestill.pipeline.training.shared_norm import shared_norms

_PATIENCE = timedelta(minutes=10)  # of a process for the others


@contextlib.contextmanager
def spreading(compute: Compute, network: nn.Module, device: torch.device) -> Iterator[Callable[[nn.Module], nn.Module]]:
    """Yield a function of the network as it runs: itself, or one whose features several GPUs or processes compute.

    Raises:
        FailedError: a process cannot be started, or ended.
    """
    is_whole = hasattr(network, "look")  # it gives its view in one pass, and cannot go on from features
    if compute.processes == 1 or is_whole:
        yield lambda running: compute.spread(running, device)
        return
    with tempfile.TemporaryDirectory(prefix="edgestill-train-") as folder:
        team = Team(network, device, compute.processes, folder)
        try:
            shared = team.start()
            yield lambda running: shared
        finally:
            team.stop()


class Team:
    """Processes beside this one; this one is the first."""

    def __init__(self, network: nn.Module, device: torch.device, size: int, folder: str) -> None:
        self.network, self.device, self.size = network, device, size
        self._meeting, self.links = f"file://{folder}/meeting", list[Connection]()
        self._processes = list[Any]()
        self._sent: tuple[int, ...] = ()  # versions of the weights that the others have
        self._passes, self.over = 0, list[int]()  # passes begun, and those whose graphs may go

    def start(self) -> nn.Module:
        context: Any = multiprocessing.get_context("spawn")
        packed = pickle.dumps(copy.deepcopy(self.network).cpu())
        with inherited():
            for rank in range(1, self.size):
                ours, theirs = context.Pipe()
                given = (theirs, packed, self.device.type, rank, self.size, self._meeting, torch.get_num_threads())
                self._processes.append(context.Process(target=_serve, args=given, name="edgestill-train", daemon=True))
                self._processes[-1].start()
                theirs.close()
                self.links.append(ours)
        with self.telling():
            _meet(self.device.type, 0, self.size, self._meeting)
        return _Shared(self)

    def stop(self) -> None:
        for link in self.links:
            link.close()  # ends an idle process
        if dist.is_initialized():
            dist.destroy_process_group()
        for process in self._processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Turn an error that the end of another process causes into one sentence."""
        try:
            yield
        except (RuntimeError, OSError) as error:
            said = [words for words in map(_last_words, self.links) if words]
            for process in self._processes:
                process.join(1)
            ended = [process.exitcode for process in self._processes if process.exitcode is not None]
            if not said and not ended:
                raise
            reason = said[0] if said else f"exit code {ended[0]}"
            raise FailedError(
                f"a process that trains ended ({reason}); go on with `edgestill resume`, or set fewer device.processes"
            ) from error

    def begin(self, inputs: Tensor, keeps: bool) -> int:
        """Send the others their shares of a batch, and the weights if they have changed; return the pass's number."""
        self._passes += 1
        versions = tuple(parameter._version for parameter in self.network.parameters())
        is_mixed, dtype = torch.is_autocast_enabled(self.device.type), torch.get_autocast_dtype(self.device.type)
        order = {
            "pass": self._passes, "keeps": keeps, "weights": versions != self._sent, "over": list(self.over),
            "training": self.network.training, "mixed": is_mixed, "dtype": dtype, "type": inputs.dtype,
            "needs": inputs.requires_grad,
        }  # fmt: skip
        self.over.clear()
        shares = inputs.detach().tensor_split(self.size)
        for link, share in zip(self.links, shares[1:], strict=True):
            link.send({**order, "shape": tuple(share.shape)})
        _broadcast(self.network, order)
        self._sent = versions
        for rank, share in enumerate(shares[1:], 1):
            dist.send(share.contiguous(), rank)
        return self._passes

    def backward(self, number: int, gradient: Tensor) -> None:
        """Send the others the gradients of their features."""
        for link in self.links:
            link.send({"backward": number})
        for rank, share in enumerate(gradient.tensor_split(self.size)[1:], 1):
            dist.send(share.contiguous(), rank)


class _Shared(FeaturesElsewhere):
    """A classifier whose features are computed by all processes of a team."""

    def __init__(self, team: Team) -> None:
        super().__init__(team.network)
        self._team = [team]

    def forward_features(self, inputs: Tensor) -> Tensor:
        team, network = self._team[0], cast(Classifier, self.network)
        if len(inputs) < 2 * team.size:
            features: Tensor = network.forward_features(inputs)
            return features
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        with team.telling():
            shared: Tensor = _Exchange.apply(team, torch.is_grad_enabled(), inputs, *parameters)  # type: ignore[no-untyped-call]
        return shared


class _Ticket:
    """Handle of a pass: the other processes keep its graphs until it is deleted."""

    def __init__(self, team: Team, number: int) -> None:
        self.team, self.number = team, number

    def __del__(self) -> None:
        self.team.over.append(self.number)


class _Exchange(torch.autograd.Function):
    """Features of a whole batch; the gradient of a parameter is the sum over all processes."""

    @staticmethod
    def forward(ctx: Any, team: Team, keeps: bool, inputs: Tensor, *parameters: nn.Parameter) -> Tensor:
        number = team.begin(inputs, keeps)
        ctx.ticket, ctx.own = _Ticket(team, number), _Pass(team.network, inputs.tensor_split(team.size)[0], keeps)
        parts = [ctx.own.features.detach()]
        for rank, share in enumerate(inputs.tensor_split(team.size)[1:], 1):
            parts.append(parts[0].new_empty((len(share), *parts[0].shape[1:])))
            dist.recv(parts[-1], rank)
        return torch.cat(parts)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        team: Team = ctx.ticket.team
        with team.telling():
            team.backward(ctx.ticket.number, gradient)
            shares = gradient.tensor_split(team.size)
            of_inputs, of_parameters = ctx.own.backward(shares[0])
            if of_inputs is not None:
                parts = [of_inputs, *(of_inputs.new_empty((len(s), *of_inputs.shape[1:])) for s in shares[1:])]
                for rank, part in enumerate(parts[1:], 1):
                    dist.recv(part, rank)
                of_inputs = torch.cat(parts)
            return None, None, of_inputs, *_summed(of_parameters)


class _Pass:
    """One forward pass of a process's own share, with its graph."""

    def __init__(self, network: nn.Module, inputs: Tensor, keeps: bool) -> None:
        self._inputs = inputs.detach().requires_grad_(inputs.requires_grad)
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        with torch.set_grad_enabled(keeps), shared_norms(network):
            self.features: Tensor = cast(Classifier, network).forward_features(self._inputs)

    def backward(self, gradient: Tensor) -> tuple[Tensor | None, list[Tensor]]:
        needs = [self._inputs] if self._inputs.requires_grad else []
        found = torch.autograd.grad(
            self.features, [*needs, *self._parameters], gradient, retain_graph=True, allow_unused=True,
            materialize_grads=True,
        )  # fmt: skip
        return (found[0] if needs else None), list(found[len(needs) :])


def _serve(link: Connection, packed: bytes, kind: str, rank: int, size: int, meeting: str, threads: int) -> None:
    """Run a process of a team: passes, and their gradients, until the link is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    try:
        _meet(kind, rank, size, meeting)
        device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
        network: nn.Module = pickle.loads(packed).to(device)
        passes: dict[int, _Pass] = {}
        while True:
            order = link.recv()
            if "backward" in order:
                _descend(passes[order["backward"]])
            else:
                for number in order["over"]:
                    passes.pop(number, None)
                made = _ascend(network, order, device)
                if order["keeps"]:
                    passes[order["pass"]] = made
    except EOFError:
        pass
    except Exception as error:
        with contextlib.suppress(OSError):
            link.send(f"{type(error).__name__}: {first_line(error)}")
        raise


def _ascend(network: nn.Module, order: dict[str, Any], device: torch.device) -> _Pass:
    _broadcast(network, order)
    inputs = torch.empty(order["shape"], dtype=order["type"], device=device)
    dist.recv(inputs, 0)
    network.train(order["training"])
    if order["needs"]:
        inputs.requires_grad_()
    with torch.autocast(device.type, order["dtype"], enabled=order["mixed"]):
        made = _Pass(network, inputs, order["keeps"])
    dist.send(made.features.detach().contiguous(), 0)
    return made


def _descend(made: _Pass) -> None:
    gradient = torch.empty_like(made.features, memory_format=torch.contiguous_format)
    dist.recv(gradient, 0)
    of_inputs, of_parameters = made.backward(gradient)
    if of_inputs is not None:
        dist.send(of_inputs.contiguous(), 0)
    _summed(of_parameters)


def _meet(kind: str, rank: int, size: int, meeting: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this machine
    if kind == "cuda":
        torch.cuda.set_device(rank)
    backend = "nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=size, timeout=_PATIENCE)


def _broadcast(network: nn.Module, order: dict[str, Any]) -> None:
    """Give the first process's weights to all, in one message: those that have changed, and what evaluation reads."""
    buffers = [] if order["training"] else [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    tensors = [*(network.parameters() if order["weights"] else ()), *buffers]
    if not tensors:
        return
    flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
    dist.broadcast(flat, 0)
    if dist.get_rank():
        with torch.no_grad():
            for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(part.view_as(tensor))


def _summed(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Sum gradients over all processes, in one message; the sum is the first one's."""
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.reduce(flat, 0)
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    return [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]


def _last_words(link: Connection) -> str:
    try:
        return str(link.recv()) if link.poll(0.5) else ""
    except (EOFError, OSError):
        return ""
