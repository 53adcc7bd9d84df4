# SPDX-License-Identifier: GPL-2.0-only
"""ESP in UDP over IPv6: datagrams byte by byte, and a gateway that sends and takes them.

Nothing here asks the kernel for a checksum: scapy works them out.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import xfrm_attributes as xa
import xfrm_structures as xs
from esp_oracle import EspOracle
from wire import Wire, wire
from xfrm_netlink import XfrmSocket

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from namespaces import Namespace

#: XFRM_SA_XFLAG_UDP_ZERO_CSUM6_TX.
ZERO_CHECKSUM = 0x02000000

ENCAP_PORT = 4500
INNER_PORT = 4242
SPI = 0x1234
KEY = bytes(range(20))
#: What a tunnel of the gateway's carries: its own inner address, and the far one.
INNER = ("fd77::1", "fd77::2")

_UDP_ENCAP = 100
_UDP_NO_CHECK6_RX = 102
_UDP_GRO = 104

_HEADER = 40
_UDP = struct.Struct("!4H")
_FRAGMENT = struct.Struct("!BxHI")
_NEXT_HEADER = 6
_FRAGMENT_BYTES = 1200


@dataclass(frozen=True)
class Datagram:
    """A UDP datagram right after the fixed header of its IPv6 packet."""

    packet: bytes

    @property
    def ports(self) -> tuple[int, int]:
        """Source and destination."""
        source, destination, _, _ = _UDP.unpack_from(self.packet, _HEADER)
        return source, destination

    @property
    def checksum(self) -> int:
        """What its header says."""
        return int(_UDP.unpack_from(self.packet, _HEADER)[3])

    @property
    def sum(self) -> int:
        """What scapy works out for it, where RFC 8200 has not yet turned 0 into ffff."""
        from scapy.layers.inet6 import IPv6, in6_chksum

        udp = bytearray(self.packet[_HEADER:])
        udp[6:8] = b"\0\0"
        return int(in6_chksum(socket.IPPROTO_UDP, IPv6(self.packet[:_HEADER]), bytes(udp)))

    @property
    def right_checksum(self) -> int:
        """What its header has to say unless it says nothing."""
        return self.sum or 0xFFFF

    def esp(self) -> bytes:
        """Return the packet as if its ESP were not in UDP."""
        return _packet(self.packet, socket.IPPROTO_ESP, self.packet[_HEADER + _UDP.size :])


def in_udp(
    packet: bytes, *, checksum: int | None = 0, source_port: int = ENCAP_PORT, data: bytes = b""
) -> bytes:
    """Return an IPv6 packet with its payload, or ``data``, put in UDP to port 4500.

    With ``checksum`` None it gets the right one.
    """
    data = data or packet[_HEADER:]
    head = (source_port, ENCAP_PORT, _UDP.size + len(data))
    bare = _packet(packet, socket.IPPROTO_UDP, _UDP.pack(*head, 0) + data)
    if checksum is None:
        checksum = Datagram(bare).right_checksum
    return _packet(packet, socket.IPPROTO_UDP, _UDP.pack(*head, checksum) + data)


def _packet(like: bytes, next_header: int, payload: bytes) -> bytes:
    """Return an IPv6 packet between the addresses of another one."""
    head = bytearray(like[:_HEADER])
    struct.pack_into("!HB", head, 4, len(payload), next_header)
    return bytes(head) + payload


def fragments(packet: bytes) -> list[bytes]:
    """Return an IPv6 packet in fragments."""
    payload = packet[_HEADER:]
    parts = []
    for offset in range(0, len(payload), _FRAGMENT_BYTES):
        part = payload[offset : offset + _FRAGMENT_BYTES]
        more = offset + len(part) < len(payload)
        head = _FRAGMENT.pack(packet[_NEXT_HEADER], offset | more, 0x0EC4)
        parts.append(_packet(packet, socket.IPPROTO_FRAGMENT, head + part))
    return parts


def reassembled(parts: Iterable[bytes]) -> bytes:
    """Return the IPv6 packet that fragments, in any order, are of."""
    payload = bytearray()
    for part in sorted(parts, key=_offset):
        if _offset(part) != len(payload):
            raise ValueError(f"a fragment at {_offset(part)}, {len(payload)} bytes were there")
        payload += part[_HEADER + _FRAGMENT.size :]
    return _packet(part, part[_HEADER], bytes(payload))


def _offset(part: bytes) -> int:
    return int(_FRAGMENT.unpack_from(part, _HEADER)[1]) & ~7


def more_fragments(part: bytes) -> bool:
    """Tell whether a fragment says that it is not the last."""
    return bool(_FRAGMENT.unpack_from(part, _HEADER)[1] & 1)


def is_udp(packet: bytes) -> bool:
    """Tell whether a packet is UDP, of either family, right after its fixed header."""
    return (packet[_NEXT_HEADER] if packet[0] >> 4 == 6 else packet[9]) == socket.IPPROTO_UDP


def is_fragment(packet: bytes) -> bool:
    """Tell whether a packet is a fragment of IPv6."""
    return packet[0] >> 4 == 6 and packet[_NEXT_HEADER] == socket.IPPROTO_FRAGMENT


def encap_socket(namespace: Namespace, *, zero_checksums: bool, gro: bool = False) -> socket.socket:
    """Open the socket through which ESP in UDP arrives."""
    opened = namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    opened.setsockopt(socket.IPPROTO_UDP, _UDP_ENCAP, xa.ENCAP_UDP)
    opened.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, gro)
    accept_zero_checksums(opened, wanted=zero_checksums)
    opened.bind(("::", ENCAP_PORT))
    return opened


def accept_zero_checksums(opened: socket.socket, *, wanted: bool) -> None:
    """Let a UDP socket take datagrams over IPv6 without checksum, or not."""
    opened.setsockopt(socket.IPPROTO_UDP, _UDP_NO_CHECK6_RX, wanted)


def checksum_errors(namespace: Namespace) -> int:
    """Return how many datagrams over IPv6 were dropped for their checksum."""
    with namespace.inside():
        counters = Path("/proc/thread-self/net/snmp6").read_text(encoding="ascii")
    return int(dict(line.split() for line in counters.splitlines())["Udp6InCsumErrors"])


def sa(source: str, destination: str, mode: int, *attributes: tuple[str, bytes]) -> xs.Sa:
    """Return an SA for ESP in UDP, with further attributes."""
    own = (xa.aead(KEY), xa.encap(ENCAP_PORT, ENCAP_PORT))
    # An output SA that names its direction has to have no replay window.
    return xs.Sa(
        source, destination, spi=SPI, mode=mode, replay_window=0, attributes=(*own, *attributes)
    )


def policy(made: xs.Sa, direction: int) -> xs.Policy:
    """Return the policy that asks for an SA, for what its gateway carries in it."""
    ends = (made.source, made.destination)
    carried = ends
    if made.mode == xs.MODE_TUNNEL:
        carried = INNER if direction == xs.DIR_OUT else INNER[::-1]
    selector = xs.Selector(f"{carried[0]}/128", f"{carried[1]}/128")
    return xs.Policy(selector, direction, xs.Template(*ends, mode=made.mode))


@dataclass(frozen=True)
class Gateway:
    """A namespace whose ESP goes over a wire to the test."""

    namespace: Namespace
    xfrm: XfrmSocket
    wire: Wire

    def output(self, *attributes: tuple[str, bytes], mode: int = xs.MODE_TRANSPORT) -> xs.Sa:
        """Install an output SA and its policy."""
        made = sa(Wire.NEAR6, Wire.FAR6, mode, *attributes)
        self.xfrm.add(made)
        self.xfrm.add_policy(policy(made, xs.DIR_OUT))
        return made

    def input(self, *attributes: tuple[str, bytes], mode: int = xs.MODE_TRANSPORT) -> xs.Sa:
        """Install an input SA, and the policy without which a tunnel's packets are dropped."""
        made = sa(Wire.FAR6, Wire.NEAR6, mode, *attributes)
        self.xfrm.add(made)
        if mode == xs.MODE_TUNNEL:
            self.xfrm.add_policy(policy(made, xs.DIR_IN))
        return made

    def say(self, data: bytes, mode: int = xs.MODE_TRANSPORT) -> None:
        """Send a datagram that a policy of this mode catches."""
        near, far = INNER if mode == xs.MODE_TUNNEL else (Wire.NEAR6, Wire.FAR6)
        with self.namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
            sender.bind((near, INNER_PORT))
            sender.sendto(data, (far, INNER_PORT))

    def sent(self, made: xs.Sa, data: bytes = b"to be sealed") -> Datagram:
        """Send a datagram through an SA and return what left; scapy must find it inside."""
        self.say(data, made.mode)
        packet = self.wire.receive(is_udp)
        assert packet is not None, "no UDP datagram left within 5 s"
        left = Datagram(packet)
        opens(made, left, data)
        return left


def opens(made: xs.Sa, left: Datagram, data: bytes) -> None:
    """Assert that scapy opens ESP in UDP as an SA's, with a datagram inside."""
    wanted = (ENCAP_PORT, ENCAP_PORT)
    assert left.ports == wanted, f"ESP left between the ports {left.ports}, expected {wanted}"
    inside = EspOracle(made, KEY).open(left.esp())
    assert inside.endswith(data), f"scapy decrypted {inside[:99]!r}, expected {data[:99]!r}"


@contextlib.contextmanager
def gateway(
    namespace: Namespace, *, gro: bool = False, groups: tuple[int, ...] = ()
) -> Iterator[Gateway]:
    """Plug a gateway into a namespace, with its tunnel's inner address and route."""
    with contextlib.ExitStack() as undo:
        plugged = undo.enter_context(wire(namespace, gro=gro))
        namespace.ip(
            f"addr add {INNER[0]}/128 dev lo nodad",
            f"route add {INNER[1]}/128 dev {Wire.DEVICE}",
        )
        with namespace.inside():
            xfrm = undo.enter_context(contextlib.closing(XfrmSocket(groups=groups)))
        yield Gateway(namespace, xfrm, plugged)
        xfrm.flush()
        left = len(xfrm.states())
        assert left == 0, f"{left} SAs outlived FLUSHSA"
