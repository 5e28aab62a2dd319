"""Dask: a scheduler that is running, or one of this process with its workers on this machine."""

import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from edgestill.pipeline.child import inherited
from edgestill.pipeline.engines.address import host_of, is_loopback
from edgestill.pipeline.engines.base import LOOK_S, PATIENCE_S, Answer, Cluster, LostError, answer
from edgestill.pipeline.errors import FailedError, MissingDependencyError, first_line
from edgestill.pipeline.frozen import Frozen, GivenPath, existing_file

_TLS = ("tls_ca", "tls_cert", "tls_key")


class DaskConfig(Frozen):
    """A Dask cluster: its scheduler by address, or one of this process."""

    names_services: ClassVar[tuple[str, ...]] = ("address",)

    name: Literal["dask"] = "dask"
    address: str | None = Field(
        None,
        max_length=300,
        description="scheduler: tcp://127.0.0.1:8786, or tls://HOST:8786 on another machine; null starts workers here",
    )
    tls_ca: GivenPath | None = Field(None, description="certificate that the scheduler's and workers' are signed by")
    tls_cert: GivenPath | None = Field(None, description="certificate of this process")
    tls_key: GivenPath | None = Field(None, description="key of that certificate")

    @field_validator(*_TLS)
    @classmethod
    def _is_there(cls, path: Any, info: ValidationInfo) -> Any:
        return None if path is None else existing_file(path, info)

    @model_validator(mode="after")
    def _is_secure(self) -> "DaskConfig":
        given = [name for name in _TLS if getattr(self, name) is not None]
        if given and len(given) < len(_TLS):
            raise ValueError(f"{' and '.join(_TLS)} go together; only {' and '.join(given)} is given")
        if self.address is None:
            if given:
                raise ValueError("tls_ca is given without an address; workers started here make their own certificates")
            return self
        scheme = self.address.partition("://")[0] if "://" in self.address else "tcp"
        if scheme not in ("tcp", "tls") or not host_of(self.address):
            raise ValueError(f"address {self.address!r} is none of a scheduler; write tls://HOST:8786")
        if scheme == "tls" and not given:
            raise ValueError(f"address {self.address} needs {', '.join(_TLS)}: files in PEM")
        if scheme == "tcp" and not is_loopback(host_of(self.address)):
            raise ValueError(
                f"address {self.address} is another machine without TLS, where anyone on the way could run code; write "
                "tls://… with tls_ca, tls_cert and tls_key, or tunnel it to tcp://127.0.0.1"
            )
        return self


class Dask(Cluster):
    title = "the Dask cluster"
    tries_again = 0  # its scheduler does: `distributed.scheduler.allowed-failures`, three times by default
    config: DaskConfig

    def start(self) -> None:
        try:
            import distributed
        except ImportError:
            raise MissingDependencyError("device.engine: dask needs `pip install 'edgestill[dask]'`") from None
        self._losses: Counter[str] = Counter()
        self._cluster: Any = None
        self._client: Any = None
        self._scratch = tempfile.TemporaryDirectory(prefix="edgestill-dask-", ignore_cleanup_errors=True)
        logging.getLogger("distributed").setLevel(logging.ERROR)
        try:
            if self.config.address is None:
                self._cluster = self._own(distributed)
            where = self._cluster or self.config.address
            connect: Any = distributed.Client
            self._client = connect(where, security=self._security(distributed), timeout=PATIENCE_S / 4)
        except (OSError, TimeoutError, RuntimeError) as error:
            self.stop()
            where = self.config.address or "on this machine"
            raise FailedError(
                f"the Dask scheduler {where} does not answer ({first_line(error, 'no reason given')})"
            ) from error
        self._client.subscribe_topic("all", self._heard)

    def stop(self) -> None:
        if not hasattr(self, "_scratch"):
            return
        if self._client is not None:
            if self._client.status == "running":
                self._client.unsubscribe_topic("all")  # its own departure would be told to it
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()
        self._scratch.cleanup()
        del self._scratch

    def threads(self) -> int:
        return sum(self._client.nthreads().values())

    def hold(self, packed: bytes) -> Any:
        with warnings.catch_warnings():  # of a large graph: a task of its own can be run again when its worker is lost
            warnings.simplefilter("ignore", UserWarning)
            return self._client.submit(_same, packed, pure=False)

    def submit(self, held: Any, item: Any) -> Any:
        return self._client.submit(answer, held, item, pure=False)

    def finished(self, handles: Sequence[Any]) -> Sequence[Any]:
        import distributed

        wait: Any = distributed.wait
        try:
            return list(wait(handles, timeout=LOOK_S, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            if self._client.status not in ("running", "connecting"):
                raise FailedError(self._gone()) from None
            self._capacity()
            return ()
        except distributed.CancelledError as error:
            raise FailedError(self._gone()) from error

    def value(self, handle: Any) -> Answer:
        from distributed.scheduler import KilledWorker

        if handle.status == "finished":
            return Answer(handle.result(), self._losses.pop(handle.key, 0))
        error = None if handle.cancelled() else handle.exception()
        if isinstance(error, KilledWorker):
            raise LostError(f"{self._losses.pop(handle.key, 0) or 'several'} workers were lost while they had it")
        raise FailedError(self._gone() if error is None else f"a Dask worker failed: {first_line(error)}")

    def _own(self, distributed: Any) -> Any:
        """Start a scheduler in this process and its workers, on loopback and by certificates made for them."""
        with inherited():
            return distributed.LocalCluster(
                n_workers=self._workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                security=True,
                dashboard_address="127.0.0.1:0",
                memory_limit=0,
                local_directory=self._scratch.name,
                silence_logs=logging.ERROR,
            )

    def _security(self, distributed: Any) -> Any:
        if self._cluster is not None:
            return self._cluster.security
        if self.config.tls_ca is None:
            return None
        return distributed.Security(
            tls_ca_file=str(self.config.tls_ca),
            tls_client_cert=str(self.config.tls_cert),
            tls_client_key=str(self.config.tls_key),
            require_encryption=True,
        )

    def _heard(self, event: tuple[float, Any]) -> None:
        """Count a lost worker for each task that it had."""
        said = event[1]
        if isinstance(said, dict) and said.get("action") == "remove-worker":
            self._losses.update(str(key) for key in said.get("processing-tasks", ()))

    def _gone(self) -> str:
        return f"the Dask scheduler {self.config.address or 'of this process'} is gone; go on with `edgestill resume`"


def _same(packed: bytes) -> bytes:
    return packed
