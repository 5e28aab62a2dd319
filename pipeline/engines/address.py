"""Addresses of clusters: this machine's own, or another's over TLS.

A cluster runs whatever function it is sent. Who can reach one without TLS can run code on its machines, and who stands
between can change what is run and what comes back.
"""

import ipaddress
from urllib.parse import urlsplit


def host_of(address: str) -> str:
    """Return the host of `scheme://host:port` or `host:port`; empty if there is none."""
    return urlsplit(address if "://" in address else f"//{address}").hostname or ""


def is_loopback(host: str) -> bool:
    """True for this machine by its own address; a name that must be looked up is another machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
