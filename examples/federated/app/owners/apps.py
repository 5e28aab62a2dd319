"""The two apps that Flower's processes start; edgestill has them ready."""

from edgestill.flows.federation.apps import client, server

__all__ = ["client", "server"]
