# SPDX-License-Identifier: GPL-2.0-only
"""The network of strongSwan's HA cases in one guest, and a tap on every cable of it.

Outside, 192.168.0.0/24, are the road warriors carol and dave; inside,
10.1.0.0/16, is venus. The gateways alice and moon are on both and share an
address on either. Each side is a bridge that floods what goes to a multicast
MAC, and both bridges are in one namespace, so that one packet socket sees what
enters at which port: each packet once, with the host that sent it.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from namespaces import Namespace, namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What the gateways share, outside and inside.
VIRTUAL = "192.168.0.5"
VIRTUAL_INSIDE = "10.1.0.5"
OUTSIDE = {
    "alice": "192.168.0.50",
    "moon": "192.168.0.1",
    "carol": "192.168.0.100",
    "dave": "192.168.0.200",
}
INSIDE = {"alice": "10.1.0.10", "moon": "10.1.0.1", "venus": "10.1.0.20"}
GATEWAYS = ("alice", "moon")
PEERS = ("carol", "dave")
#: A host's devices; the one it has if it is on one side only is named alike.
OUT, IN = "out", "in"

_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_IGNORE_OUTGOING = 23
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("=qq")
_BUFFER = 8 << 20
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFREQ = struct.Struct("=16sH22x")
_IFF_UP = 1
_IPPROTO_ESP = 50
_NAT_T_PORT = 4500


@dataclass(frozen=True)
class Packet:
    """An IPv4 packet as it left a host; ``at`` is the guest's clock, in seconds.

    ``port`` is the host's name and device, ``frame`` all of it.
    """

    at: float
    port: str
    frame: bytes

    @property
    def host(self) -> str:
        """Who sent it."""
        return self.port.partition("-")[0]

    @property
    def source(self) -> str:
        """The IPv4 source address."""
        return str(ipaddress.IPv4Address(self.frame[26:30]))

    @property
    def destination(self) -> str:
        """The IPv4 destination address."""
        return str(ipaddress.IPv4Address(self.frame[30:34]))

    @property
    def payload(self) -> bytes:
        """What follows the IPv4 header."""
        return self.frame[14 + (self.frame[14] & 15) * 4 :]

    @property
    def protocol(self) -> int:
        """The IPv4 header's word for what follows."""
        return self.frame[23]

    @property
    def esp(self) -> tuple[int, int] | None:
        """SPI and sequence number, in UDP or not; None when it is not ESP."""
        data = self.payload
        if self.protocol == socket.IPPROTO_UDP and _NAT_T_PORT in struct.unpack_from("!HH", data):
            data = data[8:]
        elif self.protocol != _IPPROTO_ESP:
            return None
        spi, number = struct.unpack_from("!II", data) if len(data) >= 8 else (0, 0)
        return (spi, number) if spi else None


class Tap:
    """Sees every packet that a host sends; ``packets`` grows with each look."""

    def __init__(self, switch: Namespace) -> None:
        """Begin to listen."""
        self.packets: list[Packet] = []
        with switch.inside():
            everything = socket.htons(_ETH_P_ALL)
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, everything)
        self._socket.settimeout(0)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def look(self) -> list[Packet]:
        """Take what came since, and return all there is."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, about, _, address = self._socket.recvmsg(2048, socket.CMSG_SPACE(16))
                # A bridge is a device too, and named after what it joins.
                if frame[12:14] != b"\x08\x00" or address[0] in (OUT, IN):
                    continue
                seconds, nanoseconds = _TIMESPEC.unpack(about[0][2])
                self.packets.append(Packet(seconds + nanoseconds / 1e9, address[0], frame))
        return self.packets

    def forget(self) -> None:
        """Drop what came so far."""
        self.look()
        self.packets = []


@dataclass(frozen=True)
class Network:
    """The hosts by name, and the switch between them."""

    hosts: dict[str, Namespace]
    switch: Namespace
    tap: Tap

    def plug(self, name: str, *, cable: bool) -> None:
        """Plug both cables of a gateway in, or pull them; no other program takes time for it."""
        with self.switch.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            for device in (OUT, IN):
                port = f"{name}-{device}".encode()
                now = fcntl.ioctl(door, _SIOCGIFFLAGS, _IFREQ.pack(port, 0))
                flags = _IFREQ.unpack(now)[1]
                flags = flags | _IFF_UP if cable else flags & ~_IFF_UP
                fcntl.ioctl(door, _SIOCSIFFLAGS, _IFREQ.pack(port, flags))

    def address(self, name: str) -> str:
        """Return a host's own address: a gateway's is the outer one."""
        return OUTSIDE.get(name) or INSIDE[name]


def shared_macs() -> tuple[tuple[str, str, str], ...]:
    """Return device, shared address and its multicast MAC, for each side of a gateway."""
    sides = ((OUT, VIRTUAL), (IN, VIRTUAL_INSIDE))
    return tuple(
        (device, address, "01:00:" + ipaddress.ip_address(address).packed.hex(":"))
        for device, address in sides
    )


def _connect(name: str, host: Namespace, switch: Namespace) -> None:
    devices = []
    for device, addresses, length in ((OUT, OUTSIDE, 24), (IN, INSIDE, 16)):
        if name in addresses:
            shared = VIRTUAL if device == OUT else VIRTUAL_INSIDE
            devices += [
                f"link add {device} type veth peer name {name}-{device} netns {switch.path}",
                f"addr add {addresses[name]}/{length} dev {device}",
                *([f"addr add {shared}/{length} dev {device}"] if name in GATEWAYS else []),
                f"link set {device} up",
            ]
    ways = {"venus": f"default via {VIRTUAL_INSIDE}"}
    ways |= dict.fromkeys(PEERS, f"10.1.0.0/16 via {VIRTUAL}")
    host.ip(*devices, *([f"route add {ways[name]}"] if name in ways else []))
    if name in GATEWAYS:
        host.sysctl("net/ipv4/ip_forward", 1)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Make the hosts, join them, and listen."""
    with contextlib.ExitStack() as undo:
        switch = undo.enter_context(namespace("switch"))
        hosts = {name: undo.enter_context(namespace(name)) for name in (*GATEWAYS, *PEERS, "venus")}
        switch.ip(*(f"link add {side} type bridge mcast_snooping 0" for side in (OUT, IN)))
        # Its iptables have no say in what a bridge passes on.
        switch.sysctl("net/bridge/bridge-nf-call-iptables", 0)
        for name, host in hosts.items():
            _connect(name, host, switch)
        ports = [(name, OUT) for name in OUTSIDE] + [(name, IN) for name in INSIDE]
        switch.ip(
            *(f"link set {side} up" for side in (OUT, IN)),
            *(f"link set {name}-{side} master {side} up" for name, side in ports),
        )
        tap = Tap(switch)
        undo.callback(tap.close)
        yield Network(hosts, switch, tap)
