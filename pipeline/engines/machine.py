"""Engines that are this machine's own processes."""

from typing import Literal

from edgestill.pipeline.frozen import Frozen


class LocalConfig(Frozen):
    """Processes of this machine, forked where that is possible."""

    name: Literal["local"] = "local"


class ProcessesConfig(Frozen):
    """Processes of this machine, always spawned: they share nothing with this one."""

    name: Literal["processes"] = "processes"
