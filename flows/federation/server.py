"""The server's part of a federation in Flower's processes: rounds, and files from which a killed one goes on."""

import sys
from pathlib import Path
from typing import Any

from edgestill.distill.drivers.federated import FederatedConfig, make_federation
from edgestill.distill.federation.answers_file import answers_bytes
from edgestill.distill.federation.rounds import Federation, Progress, await_clients, federate
from edgestill.flows.config.loading import load_config
from edgestill.flows.federation.public import driver_of, pool_of
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import canonical_json, digest
from edgestill.pipeline.runs.checkpoint import read_state, state_bytes, write_atomic
from edgestill.pipeline.runs.sealed import read_sealed, write_sealed

STATE, ROUNDS, ANSWERS = ".rounds.pt", "rounds.json", "answers.npz"


def serve(grid: Any, context: Any) -> None:
    """Run the rounds that are left, and write `answers.npz` and `rounds.json` into the folder `out`.

    --run-config gives `config` and `out`. A server that was killed goes on after its last finished round if it is
    started with the same folder.

    Raises:
        UserError: the configuration, the pool or the folder is wrong.
        FailedError: no client gave a usable answer.
    """
    given = context.run_config
    if not given.get("config") or not given.get("out"):
        raise ConfigError(["--run-config needs config, a file, and out, a folder"])
    config, out = load_config(Path(str(given["config"]))), Path(str(given["out"])).expanduser()
    driver, splits = driver_of(config), load_splits(config.read_data, config.seed)
    federation = make_federation(driver, splits, pool_of(splits))
    out.mkdir(parents=True, exist_ok=True)
    _await(grid, driver)
    owner = _owner(driver, federation)
    kept = read_sealed(out / STATE, owner)

    def save(progress: Progress) -> None:
        write_sealed(out / STATE, state_bytes(progress.state()), owner)
        write_atomic(out / ROUNDS, canonical_json([one.model_dump() for one in progress.rounds]).encode())
        _say(f"round {len(progress.rounds)} of {driver.rounds}: {progress.rounds[-1].known:,} answers known")

    start = None if kept is None else Progress.of(read_state(kept))
    ended = federate(grid, federation, progress=start, save=save, tell=_say)
    assert ended.fused is not None, "or it would have failed"
    write_atomic(out / ANSWERS, answers_bytes(ended.fused.shipped, federation.pool_digest))
    _say(f"{out / ANSWERS} holds the answers for distill.driver.answers")


def _await(grid: Any, driver: FederatedConfig) -> None:
    found = await_clients(grid, driver.clients, driver.deadline_s)
    if found < driver.clients:
        _say(f"{found} of {driver.clients} clients are connected after {driver.deadline_s:g} s; the others may follow")


def _owner(driver: FederatedConfig, federation: Federation) -> str:
    """Owner of the state's file: more rounds or another deadline go on from the same state."""
    return digest(driver.model_dump(mode="json", exclude={"rounds", "deadline_s", "answers"}), federation.pool_digest)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
