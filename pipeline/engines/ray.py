"""Ray: a cluster that is running, or one of this process on this machine."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from edgestill.pipeline.child import inherited
from edgestill.pipeline.engines.address import host_of, is_loopback
from edgestill.pipeline.engines.base import LOOK_S, Answer, Cluster, LostError, answer
from edgestill.pipeline.errors import FailedError, MissingDependencyError, first_line
from edgestill.pipeline.frozen import Frozen

_STORE_BYTES = 512 * 2**20  # of a cluster of this process; it holds the function that is sent
_SWITCH = "RAY_USE_TLS"  # Ray's own, which the certificates' places stand beside


class RayConfig(Frozen):
    """A Ray cluster: its head by address, or one of this process."""

    names_services: ClassVar[tuple[str, ...]] = ("address",)

    name: Literal["ray"] = "ray"
    address: str | None = Field(
        None,
        max_length=300,
        description="head, as HOST:6379; one on another machine needs RAY_USE_TLS=1 in the environment; null starts "
        "workers here",
    )

    @model_validator(mode="after")
    def _is_secure(self) -> "RayConfig":
        if self.address is None:
            return self
        host = host_of(self.address)
        if not host:
            raise ValueError(f"address {self.address!r} is none of a head; write HOST:6379")
        if not is_loopback(host) and os.environ.get(_SWITCH) != "1":
            raise ValueError(
                f"address {self.address} is another machine without TLS, where anyone on the way could run code; set "
                f"{_SWITCH}=1 and RAY_TLS_CA_CERT, RAY_TLS_SERVER_CERT, RAY_TLS_SERVER_KEY in the environment, or "
                "tunnel it to 127.0.0.1"
            )
        return self


class Ray(Cluster):
    title = "the Ray cluster"
    tries_again = 3
    config: RayConfig
    _ray: Any
    _is_ours = False

    def start(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise MissingDependencyError("device.engine: ray needs `pip install 'edgestill[ray]'`") from None
        self._ray = ray
        logging.getLogger("ray").setLevel(logging.ERROR)
        own: dict[str, Any] = {
            "num_cpus": self._workers,
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
        }
        given = {"address": self.config.address} if self.config.address else {"address": "local", **own}
        if not ray.is_initialized():
            # Workers import from the folder that is current now, and stay there: it must be empty, and last.
            self._empty = tempfile.TemporaryDirectory(prefix="edgestill-ray-")
            with contextlib.chdir(self._empty.name), inherited():
                try:
                    ray.init(**given, log_to_driver=False, configure_logging=False)
                except (ConnectionError, OSError, RuntimeError, ValueError) as error:
                    where = self.config.address or "on this machine"
                    raise FailedError(f"the Ray head {where} does not answer ({first_line(error)})") from error
            self._is_ours = True
        self._answer = ray.remote(num_cpus=1, max_retries=0)(answer)

    def stop(self) -> None:
        if self._is_ours:
            self._is_ours = False
            self._ray.shutdown()
            self._empty.cleanup()

    def threads(self) -> int:
        return int(self._ray.cluster_resources().get("CPU", 0))

    def hold(self, packed: bytes) -> Any:
        return self._ray.put(packed)

    def submit(self, held: Any, item: Any) -> Any:
        return self._answer.remote(held, item)

    def finished(self, handles: Sequence[Any]) -> Sequence[Any]:
        done: Sequence[Any] = self._ray.wait(list(handles), num_returns=1, timeout=LOOK_S)[0]
        if not done:
            self._capacity()
        return done

    def value(self, handle: Any) -> Answer:
        errors = self._ray.exceptions
        try:
            return Answer(self._ray.get(handle), 0)
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            raise LostError(f"{self.tries_again + 1} workers were lost while they had it") from error
        except errors.RayError as error:
            raise FailedError(f"a Ray worker failed: {first_line(error)}") from error
