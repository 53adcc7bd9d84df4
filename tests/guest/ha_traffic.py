# SPDX-License-Identifier: GPL-2.0-only
"""Numbered datagrams between the road warriors and venus, and what the wire says of them.

There are four flows, one for each SA of a gateway: none waits for another.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ha_network import GATEWAYS, IN, OUT, PEERS
from xfrm_structures import family_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ha_gateways import Cluster
    from ha_network import Addresses, Packet
    from namespaces import Namespace

PORT = 4242
FLOWS = tuple(flow for peer in PEERS for flow in (f"{peer}-venus", f"venus-{peer}"))
_PAUSE = 0.03


@dataclass(frozen=True)
class Sent:
    """One datagram of a flow: when it went, and when, if at all, it came."""

    number: int
    at: float
    arrived: float | None = None


@dataclass
class Traffic:
    """A datagram of each flow every 30 ms; one thread does it all."""

    at: Addresses
    sockets: dict[str, socket.socket]
    sent: dict[str, list[Sent]] = field(default_factory=lambda: {flow: [] for flow in FLOWS})

    def step(self) -> None:
        """Send one datagram each, and see what comes until the next is due."""
        for flow in FLOWS:
            sender, receiver = flow.split("-")
            number = len(self.sent[flow])
            self.sent[flow].append(Sent(number, time.time()))
            with contextlib.suppress(OSError):
                there = (self.at.of(receiver), PORT)
                self.sockets[sender].sendto(f"{flow} {number}".encode(), there)
        until = time.monotonic() + _PAUSE
        while time.monotonic() < until:
            if not self._receive():
                time.sleep(0.002)

    def run(self, enough: Callable[[], bool], *, seconds: float) -> bool:
        """Send until enough came of it; tell whether it did in time."""
        until = time.monotonic() + seconds
        while not enough():
            if time.monotonic() > until:
                return False
            self.step()
        return True

    def arrived(self, flow: str, *, after: float = 0) -> list[Sent]:
        """Return the datagrams of a flow that were sent after a time, and came."""
        return [each for each in self.sent[flow] if each.at >= after and each.arrived]

    def exchange(self, count: int, *, seconds: float = 30) -> bool:
        """Send until so many more datagrams of each flow came."""
        begun = time.time()
        return self.run(
            lambda: all(len(self.arrived(flow, after=begun)) >= count for flow in FLOWS),
            seconds=seconds,
        )

    def _receive(self) -> bool:
        some = False
        for opened in self.sockets.values():
            # An error of ICMP's comes this way too.
            with contextlib.suppress(OSError):
                while True:
                    flow, number = opened.recv(100).decode().split()
                    some = True
                    old = self.sent[flow][int(number)]
                    self.sent[flow][int(number)] = replace(old, arrived=old.arrived or time.time())
        return some


def _socket(host: Namespace, address: str) -> socket.socket:
    opened = host.socket(family_of(address), socket.SOCK_DGRAM)
    opened.bind((address, PORT))
    opened.settimeout(0)
    return opened


@contextlib.contextmanager
def traffic(made: Cluster) -> Iterator[Traffic]:
    """Open a socket on each peer and on venus."""
    with contextlib.ExitStack() as undo:
        sockets = {
            name: undo.enter_context(_socket(made.net.hosts[name], made.at.of(name)))
            for name in (*PEERS, "venus")
        }
        yield Traffic(made.at, sockets)


def way_of(flow: str, at: Addresses) -> tuple[str, str]:
    """Return source and destination of the SA that carries a flow."""
    sender, receiver = flow.split("-")
    return at.outside.get(sender, at.virtual), at.outside.get(receiver, at.virtual)


def esp_of(packets: list[Packet], *hosts: str) -> list[Packet]:
    """Return the ESP packets with a peer's SAs that these hosts sent."""
    return [
        each
        for each in packets
        if each.host in hosts and each.port.endswith(f"-{OUT}") and each.esp
    ]


def delivered(packets: list[Packet]) -> list[tuple[str, Packet]]:
    """Return the datagrams in the clear that a gateway passed on to venus, and what they say."""
    return [
        (each.payload[8:].decode(errors="replace"), each)
        for each in packets
        if each.host in GATEWAYS
        and each.port.endswith(f"-{IN}")
        and each.protocol == socket.IPPROTO_UDP
        and each.payload[2:4] == PORT.to_bytes(2, "big")
    ]


def repeated(packets: list[Packet]) -> list[tuple[str, int]]:
    """Return the SPIs and sequence numbers that were on the wire more than once."""
    counted = Counter((each.destination, each.esp) for each in packets if each.esp)
    return [(f"{key[1][0]:08x}", key[1][1]) for key, times in counted.items() if times > 1]
