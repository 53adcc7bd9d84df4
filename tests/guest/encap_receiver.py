# SPDX-License-Identifier: GPL-2.0-only
"""What takes ESP in UDP over IPv6 in a gateway, and the far end that sends it."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import esp_in_udp as eu
import xfrm_structures as xs
from esp_oracle import EspOracle

if TYPE_CHECKING:
    from collections.abc import Iterator


class Receiver:
    """The socket of the daemon and that of whom the datagrams inside ESP are for."""

    def __init__(self, gateway: eu.Gateway, *, zero_checksums: bool, gro: bool = False) -> None:
        """Open both."""
        self._gateway = gateway
        self.daemon = eu.encap_socket(gateway.namespace, zero_checksums=zero_checksums, gro=gro)
        self.inner = gateway.namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.inner.bind(("::", eu.INNER_PORT))

    def close(self) -> None:
        """Close both."""
        self.daemon.close()
        self.inner.close()

    def takes(self, *packets: bytes) -> list[bytes]:
        """Let packets arrive and return what was inside of those that were taken.

        They are through when ``send`` returns: a TUN device has no queue of its own.
        """
        for packet in packets:
            self._gateway.wire.send(packet)
        self.inner.settimeout(0.2)
        taken = []
        with contextlib.suppress(TimeoutError):
            while True:
                taken.append(self.inner.recv(10000))
        return taken


@contextlib.contextmanager
def receiver(gateway: eu.Gateway, *, zero_checksums: bool, gro: bool = False) -> Iterator[Receiver]:
    """Open a receiver and close it."""
    opened = Receiver(gateway, zero_checksums=zero_checksums, gro=gro)
    with contextlib.closing(opened):
        yield opened


class Sealer:
    """What the far end of an input SA sends."""

    def __init__(self, made: xs.Sa) -> None:
        """Begin at sequence number 1."""
        self._oracle = EspOracle(made, eu.KEY)
        self._inner = eu.INNER[::-1] if made.mode == xs.MODE_TUNNEL else None

    def seal(self, data: bytes) -> bytes:
        """Return IPv6 with ESP, not yet in UDP."""
        return self._oracle.seal(data, inner=self._inner, port=eu.INNER_PORT)
