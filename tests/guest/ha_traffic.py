# SPDX-License-Identifier: GPL-2.0-only
"""Numbered datagrams from the road warriors to venus and back, and what the wire says of them."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ha_network import GATEWAYS, IN, INSIDE, OUTSIDE, PEERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ha_gateways import Cluster
    from ha_network import Packet
    from namespaces import Namespace

PORT = 4242
_PAUSE = 0.03


@dataclass(frozen=True)
class Sent:
    """One datagram of a peer's: when it went, and when, if at all, the answer came."""

    number: int
    at: float
    answered: float | None = None


@dataclass
class Traffic:
    """A datagram from each peer every 30 ms, each sent back by venus; one thread does it all."""

    sockets: dict[str, socket.socket]
    sent: dict[str, list[Sent]] = field(default_factory=lambda: {peer: [] for peer in PEERS})

    def step(self) -> None:
        """Send one datagram each, and serve what comes until the next is due."""
        for peer in PEERS:
            number = len(self.sent[peer])
            self.sent[peer].append(Sent(number, time.time()))
            with contextlib.suppress(OSError):
                self.sockets[peer].sendto(f"{peer} {number}".encode(), (INSIDE["venus"], PORT))
        until = time.monotonic() + _PAUSE
        while time.monotonic() < until:
            if not self._serve():
                time.sleep(0.002)

    def run(self, enough: Callable[[], bool], *, seconds: float) -> bool:
        """Send until enough came of it; tell whether it did in time."""
        until = time.monotonic() + seconds
        while not enough():
            if time.monotonic() > until:
                return False
            self.step()
        return True

    def answered(self, peer: str, *, after: float = 0) -> list[Sent]:
        """Return a peer's datagrams that were sent after a time, and answered."""
        return [each for each in self.sent[peer] if each.at >= after and each.answered]

    def exchange(self, count: int, *, seconds: float = 30) -> bool:
        """Send until this many more of each peer's datagrams were answered."""
        begun = time.time()
        return self.run(
            lambda: all(len(self.answered(peer, after=begun)) >= count for peer in PEERS),
            seconds=seconds,
        )

    def _serve(self) -> bool:
        served = False
        with contextlib.suppress(BlockingIOError):
            while True:
                data, whence = self.sockets["venus"].recvfrom(100)
                served = True
                with contextlib.suppress(OSError):
                    self.sockets["venus"].sendto(data, whence)
        for peer in PEERS:
            with contextlib.suppress(OSError):
                while True:
                    number = int(self.sockets[peer].recv(100).split()[1])
                    served = True
                    old = self.sent[peer][number]
                    self.sent[peer][number] = Sent(number, old.at, old.answered or time.time())
        return served


def _socket(host: Namespace, address: str) -> socket.socket:
    opened = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.bind((address, PORT))
    opened.settimeout(0)
    return opened


@contextlib.contextmanager
def traffic(made: Cluster) -> Iterator[Traffic]:
    """Open a socket on each peer and on venus."""
    with contextlib.ExitStack() as undo:
        sockets = {
            name: undo.enter_context(_socket(made.net.hosts[name], made.net.address(name)))
            for name in (*PEERS, "venus")
        }
        yield Traffic(sockets)


def esp_of(packets: list[Packet], *hosts: str) -> list[Packet]:
    """Return the ESP packets that these hosts sent, outside."""
    return [each for each in packets if each.host in hosts and each.esp is not None]


def delivered(packets: list[Packet], *, to_venus: bool = True) -> list[tuple[str, Packet]]:
    """Return the datagrams in the clear that a gateway sent to venus, or venus sent back.

    Each with what is in it: the peer's name and its number.
    """
    found = []
    for each in packets:
        if each.port.partition("-")[2] != IN or each.protocol != socket.IPPROTO_UDP:
            continue
        data = each.payload
        if PORT in (int.from_bytes(data[0:2], "big"), int.from_bytes(data[2:4], "big")):
            wanted = each.host in GATEWAYS if to_venus else each.host == "venus"
            if wanted:
                found.append((data[8:].decode(errors="replace"), each))
    return found


def repeated(packets: list[Packet]) -> list[tuple[str, str]]:
    """Return the SPIs and sequence numbers that were on the wire more than once."""
    counted = Counter(each.esp for each in packets if each.esp is not None)
    return [(f"{key[0]:08x}", str(key[1])) for key, times in counted.items() if times > 1]


def peer_of(address: str) -> str:
    """Return the peer that has an address outside."""
    return next(peer for peer in PEERS if OUTSIDE[peer] == address)
