# SPDX-License-Identifier: GPL-2.0-only
"""The network of strongSwan's HA cases in one guest, and a tap on every cable of it.

Outside are the road warriors carol and dave, inside is venus; their IPv4
addresses are those of strongSwan's own suite. The gateways alice and moon are on
both and share an address on either. Each side is a bridge that floods what goes
to a multicast MAC, and both bridges are in one namespace, so that one packet
socket sees what enters at which port: each packet once, with the host that sent it.
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
    from collections.abc import Iterator, Mapping

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
_ETHERTYPES = (b"\x08\x00", b"\x86\xdd")


@dataclass(frozen=True)
class Addresses:
    """Who has which address: ``virtual`` is what the gateways share outside, and inside.

    ``lengths`` are the bits of the prefixes outside and inside, ``protected`` is
    the inside's prefix, ``host`` the bits of one address.
    """

    virtual: str
    virtual_inside: str
    outside: Mapping[str, str]
    inside: Mapping[str, str]
    lengths: tuple[int, int]
    protected: str
    host: int

    @property
    def is_ipv6(self) -> bool:
        """Whether these are IPv6 addresses."""
        return self.host > 32

    def of(self, name: str) -> str:
        """Return a host's own address: a gateway's is the outer one."""
        return self.outside.get(name) or self.inside[name]

    def shared_macs(self) -> tuple[tuple[str, str, str], ...]:
        """Return device, shared address and its multicast MAC, for each side of a gateway."""
        sides = ((OUT, self.virtual), (IN, self.virtual_inside))
        return tuple(
            (device, address, "01:00:" + ipaddress.ip_address(address).packed[-4:].hex(":"))
            for device, address in sides
        )


IPV4 = Addresses(
    virtual="192.168.0.5",
    virtual_inside="10.1.0.5",
    outside={
        "alice": "192.168.0.50",
        "moon": "192.168.0.1",
        "carol": "192.168.0.100",
        "dave": "192.168.0.200",
    },
    inside={"alice": "10.1.0.10", "moon": "10.1.0.1", "venus": "10.1.0.20"},
    lengths=(24, 16),
    protected="10.1.0.0/16",
    host=32,
)
IPV6 = Addresses(
    virtual="fd00::5",
    virtual_inside="fd01::5",
    outside={"alice": "fd00::50", "moon": "fd00::1", "carol": "fd00::100", "dave": "fd00::200"},
    inside={"alice": "fd01::10", "moon": "fd01::1", "venus": "fd01::20"},
    lengths=(64, 64),
    protected="fd01::/64",
    host=128,
)


@dataclass(frozen=True)
class Packet:
    """An IP packet as it left a host; ``at`` is the guest's clock, in seconds.

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
        """The source address."""
        return self._address(26 if self._is_ipv4 else 22)

    @property
    def destination(self) -> str:
        """The destination address."""
        return self._address(30 if self._is_ipv4 else 38)

    @property
    def payload(self) -> bytes:
        """What follows the IP header."""
        return self.frame[14 + ((self.frame[14] & 15) * 4 if self._is_ipv4 else 40) :]

    @property
    def protocol(self) -> int:
        """The IP header's word for what follows."""
        return self.frame[23 if self._is_ipv4 else 20]

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

    @property
    def _is_ipv4(self) -> bool:
        return self.frame[14] >> 4 == 4

    def _address(self, at: int) -> str:
        return str(ipaddress.ip_address(self.frame[at : at + (4 if self._is_ipv4 else 16)]))


class Tap:
    """Sees every packet that a host sends; ``everything`` grows with each look."""

    def __init__(self, switch: Namespace) -> None:
        """Begin to listen."""
        self.everything: list[Packet] = []
        self._since = 0
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
        """Take what came since, and return all that is not forgotten."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, about, _, address = self._socket.recvmsg(2048, socket.CMSG_SPACE(16))
                # A bridge is a device too, and named after what it joins.
                if frame[12:14] not in _ETHERTYPES or address[0] in (OUT, IN):
                    continue
                seconds, nanoseconds = _TIMESPEC.unpack(about[0][2])
                self.everything.append(Packet(seconds + nanoseconds / 1e9, address[0], frame))
        return self.everything[self._since :]

    def forget(self) -> None:
        """Look at what comes from now on only."""
        self.look()
        self._since = len(self.everything)


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


def _connect(name: str, host: Namespace, switch: Namespace, at: Addresses) -> None:
    devices = []
    for (device, shared, mac), addresses, length in zip(
        at.shared_macs(), (at.outside, at.inside), at.lengths, strict=True
    ):
        if name in addresses:
            own = (addresses[name], *([shared] if name in GATEWAYS else []))
            nodad = "nodad" if at.is_ipv6 else ""
            devices += [
                f"link add {device} type veth peer name {name}-{device} netns {switch.path}",
                *(f"addr add {each}/{length} dev {device} {nodad}" for each in own),
                f"link set {device} up",
            ]
            # In ARP the gateways' rules say the multicast MAC; nothing says it in neighbour
            # advertisements, so whoever is not a gateway has a permanent entry.
            if at.is_ipv6 and name not in GATEWAYS:
                devices.append(f"neigh add {shared} lladdr {mac} dev {device} nud permanent")
    ways = {"venus": f"default via {at.virtual_inside}"}
    ways |= dict.fromkeys(PEERS, f"{at.protected} via {at.virtual}")
    host.ip(*devices, *([f"route add {ways[name]}"] if name in ways else []))
    if name in GATEWAYS:
        host.sysctl("net/ipv6/conf/all/forwarding" if at.is_ipv6 else "net/ipv4/ip_forward", 1)


@contextlib.contextmanager
def network(at: Addresses) -> Iterator[Network]:
    """Make the hosts, join them, and listen."""
    with contextlib.ExitStack() as undo:
        switch = undo.enter_context(namespace("switch"))
        hosts = {name: undo.enter_context(namespace(name)) for name in (*GATEWAYS, *PEERS, "venus")}
        switch.ip(*(f"link add {side} type bridge mcast_snooping 0" for side in (OUT, IN)))
        # Its iptables have no say in what a bridge passes on.
        for tables in ("iptables", "ip6tables"):
            switch.sysctl(f"net/bridge/bridge-nf-call-{tables}", 0)
        for name, host in hosts.items():
            _connect(name, host, switch, at)
        ports = [(name, OUT) for name in at.outside] + [(name, IN) for name in at.inside]
        switch.ip(
            *(f"link set {side} up" for side in (OUT, IN)),
            *(f"link set {name}-{side} master {side} up" for name, side in ports),
        )
        tap = Tap(switch)
        undo.callback(tap.close)
        yield Network(hosts, switch, tap)
