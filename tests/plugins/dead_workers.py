"""A run of the tests fails where a worker of pytest-xdist died, also one that was running no test then."""

from typing import Any

import pytest

_DIED = pytest.StashKey[list[str]]()


@pytest.hookimpl(optionalhook=True)  # without xdist there is no such hook
def pytest_testnodedown(node: Any, error: object) -> None:
    if error:
        node.config.stash.setdefault(_DIED, []).append(node.gateway.id)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.stash.get(_DIED, []):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for worker in config.stash.get(_DIED, []):
        terminalreporter.write_line(f"worker {worker} died, so the tests that it had left did not run")
