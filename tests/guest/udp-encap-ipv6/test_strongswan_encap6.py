# SPDX-License-Identifier: GPL-2.0-only
"""E4 for strongSwan: IPv6 with "encap = yes", as if there were a NAT between the two.

charon enables UDP decapsulation on its IPv6 socket and nothing else: a zero
checksum is let in only when somebody sets UDP_NO_CHECK6_RX on that socket, and
left out only when somebody gives the flag to its SA. The tests do both.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import xfrm_structures as xs
from esp_oracle import EspOracle
from namespaces import Namespace, Pair, SetUpError, veth_pair, wait_until
from strongswan import (
    NAT_T_PORT,
    Charon,
    Configuration,
    Connection,
    charons,
    put_in_place,
    with_extra_flags,
)
from xfrm_netlink import XfrmSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

#: E4: no checksum in the UDP header around ESP over IPv6.
ZERO_CHECKSUM = 0x02000000

UDP_ENCAP = 100
UDP_ENCAP_ESPINUDP = 2
UDP_NO_CHECK6_RX = 102
# Of any one protocol the kernel shows only what comes in.
ETH_P_ALL = 3
IPPROTO_UDP = 17
PORT = 4242
TUNNEL = ("fd81::1", "fd80::1")
TRANSPORT = (Pair.LEFT6, Pair.RIGHT6)
WAYS = pytest.mark.parametrize("ends", [TUNNEL, TRANSPORT], ids=["tunnel", "transport"])


def configuration(*, left: bool) -> Configuration:
    """Return a side's connection: an address behind it by tunnel, itself in transport mode."""
    ends = TRANSPORT if left else TRANSPORT[::-1]
    here, there = (f"{end}/128" for end in (TUNNEL if left else TUNNEL[::-1]))
    nets = (f"local_ts = {here}", f"remote_ts = {there}")
    hosts = ("mode = transport", "local_ts = dynamic[udp]", "remote_ts = dynamic[udp]")
    children = {"tunnel": nets, "transport": hosts}
    return Configuration((Connection("forced", *ends, children, ("encap = yes",)),))


@dataclass(frozen=True)
class Side:
    """One end, its XFRM, and the NAT-T socket of its charon.

    ``took_zero`` is what charon made of UDP_NO_CHECK6_RX on that socket.
    """

    namespace: Namespace
    address: str
    charon: Charon
    xfrm: XfrmSocket
    nat_t: socket.socket
    took_zero: int

    def sas(self) -> list[xs.Sa]:
        """Return its SAs."""
        return self.xfrm.states()

    def flag(self, flags: int) -> None:
        """Give all its outbound SAs their flags."""
        for sa in self.sas():
            if sa.source == self.address:
                put_in_place(self.xfrm, with_extra_flags(sa, flags))

    def accept_zero(self, *, zero: bool) -> None:
        """Let charon's socket take datagrams without a checksum, or not."""
        self.nat_t.setsockopt(IPPROTO_UDP, UDP_NO_CHECK6_RX, int(zero))

    def checksum_errors(self) -> int:
        """Return how many datagrams it dropped for their checksum."""
        with self.namespace.inside():
            lines = Path("/proc/thread-self/net/snmp6").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Udp6InCsumErrors"))


@dataclass(frozen=True)
class Road:
    """Both sides, connected, and a tap on the left one's end of the wire."""

    left: Side
    right: Side
    tap: socket.socket

    def set(self, *, flags: int, accept_zero: bool) -> None:
        """Set both sides alike, and forget what was on the wire."""
        for side in (self.left, self.right):
            side.flag(flags)
            side.accept_zero(zero=accept_zero)
        self.tap.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.tap.recv(2048)
        self.tap.settimeout(5)

    def echo(self, ends: tuple[str, str], *, seconds: float = 5) -> bool:
        """Send a datagram and have it sent back; tell whether it came."""
        here, there = ends
        with (
            self.right.namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server,
            self.left.namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client,
        ):
            server.settimeout(seconds)
            client.settimeout(seconds)
            server.bind((there, PORT))
            client.bind((here, 0))
            client.sendto(b"sealed", (there, PORT))
            with contextlib.suppress(TimeoutError):
                server.sendto(*server.recvfrom(100))
                return client.recv(100) == b"sealed"
        return False

    def on_the_wire(self, source: str) -> bytes:
        """Return the next packet with ESP in UDP from an end, IPv6 header and all."""
        with contextlib.suppress(TimeoutError):
            while True:
                packet = self.tap.recv(2048)
                if is_esp_in_udp(packet) and packet[8:24] == ipaddress.ip_address(source).packed:
                    return packet
        raise SetUpError(f"no ESP in UDP came from {source} within 5 s")


def is_esp_in_udp(packet: bytes) -> bool:
    """Tell whether a packet is IPv6 with ESP in UDP: with a non-ESP marker it is IKE."""
    if len(packet) <= 52 or packet[0] >> 4 != 6 or packet[6] != IPPROTO_UDP:
        return False
    return NAT_T_PORT in struct.unpack_from("!HH", packet, 40) and packet[48:52] != bytes(4)


def checksum(packet: bytes) -> int:
    """Return the checksum of the UDP header that follows the IPv6 header."""
    return int(struct.unpack_from("!H", packet, 46)[0])


def right_checksum(packet: bytes) -> int:
    """Return the checksum scapy would put there."""
    from scapy.layers.inet import UDP
    from scapy.layers.inet6 import IPv6

    again = IPv6(packet)
    del again[UDP].chksum
    return checksum(bytes(again))


def opened(packet: bytes, sas: list[xs.Sa]) -> bytes:
    """Return what is inside, decrypted by scapy with the key charon gave the SA."""
    spi = int.from_bytes(packet[48:52], "big")
    sa = next(sa for sa in sas if sa.spi == spi)
    key = (sa.attribute("XFRMA_ALG_AEAD") or b"")[72:]
    esp = packet[48:]
    plain = packet[:4] + struct.pack("!HB", len(esp), xs.PROTO_ESP) + packet[7:40] + esp
    return EspOracle(sa, key).open(plain)


def side(charon: Charon, address: str, undo: contextlib.ExitStack) -> Side:
    """Return one side of the road."""
    with charon.namespace.inside():
        xfrm = undo.enter_context(contextlib.closing(XfrmSocket()))
    nat_t = undo.enter_context(charon.udp_socket(socket.AF_INET6, NAT_T_PORT))
    took_zero = nat_t.getsockopt(IPPROTO_UDP, UDP_NO_CHECK6_RX)
    return Side(charon.namespace, address, charon, xfrm, nat_t, took_zero)


@pytest.fixture(scope="module")
def road() -> Iterator[Road]:
    """Connect the two sides over IPv6 by tunnel and in transport mode, UDP forced."""
    with contextlib.ExitStack() as undo:
        pair = undo.enter_context(veth_pair())
        for end, here, there in ((pair.left, *TUNNEL), (pair.right, *TUNNEL[::-1])):
            end.ip(
                f"addr add {here}/128 dev lo nodad",
                f"route add {there}/128 dev {Pair.DEVICE} src {here}",
            )
        both = undo.enter_context(
            charons(pair, configuration(left=True), configuration(left=False))
        )
        for name in ("tunnel", "transport"):
            both[0].initiate(name)
        left, right = (side(*each, undo) for each in zip(both, TRANSPORT, strict=True))
        tap = undo.enter_context(
            pair.left.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        )
        tap.bind((Pair.DEVICE, ETH_P_ALL))
        yield Road(left, right, tap)


@pytest.mark.control
@WAYS
def test_charons_ipv6_sas_are_in_udp_and_carry(road: Road, ends: tuple[str, str]) -> None:
    road.set(flags=0, accept_zero=False)
    carried = road.echo(ends)
    modes = {sa.mode for sa in road.left.sas()}
    assert carried, f"a datagram and its echo did not come through; {road.right.charon.log_end()}"
    assert modes == {xs.MODE_TUNNEL, xs.MODE_TRANSPORT}, f"charon made SAs of the modes {modes}"


@pytest.mark.control
def test_ping_works_through_charons_tunnel(road: Road) -> None:
    road.set(flags=0, accept_zero=False)
    ping = ["ping", "-6", "-n", "-c", "1", "-W", "5", "-I", *TUNNEL]
    said = road.left.namespace.run(ping)
    assert " 1 received" in said, f"ping said {said!r}"


@pytest.mark.control
@WAYS
def test_the_checksum_on_the_wire_is_the_right_one(road: Road, ends: tuple[str, str]) -> None:
    road.set(flags=0, accept_zero=False)
    road.echo(ends)
    packet = road.on_the_wire(TRANSPORT[0])
    found, right = checksum(packet), right_checksum(packet)
    assert found == right, f"ESP in UDP has the checksum {found:#06x}, scapy says {right:#06x}"
    inside = opened(packet, road.left.sas())
    assert inside.endswith(b"sealed"), f"scapy decrypted {inside!r}, expected what was sent"


@pytest.mark.control
def test_charon_enables_decapsulation_and_leaves_zero_checksums_out(road: Road) -> None:
    encap = road.right.nat_t.getsockopt(IPPROTO_UDP, UDP_ENCAP)
    assert encap == UDP_ENCAP_ESPINUDP, (
        f"UDP_ENCAP of charon's IPv6 socket is {encap}, expected {UDP_ENCAP_ESPINUDP}"
    )
    took = road.right.took_zero
    assert took == 0, f"charon's IPv6 socket has UDP_NO_CHECK6_RX = {took}, it was never known to"


@pytest.mark.proof(
    red=r"with the flag ESP in UDP left with the checksum 0x[0-9a-f]{4}, expected 0$"
)
@WAYS
def test_with_the_flag_the_checksum_is_zero(road: Road, ends: tuple[str, str]) -> None:
    road.set(flags=ZERO_CHECKSUM, accept_zero=True)
    carried = road.echo(ends)
    packet = road.on_the_wire(TRANSPORT[0])
    found = checksum(packet)
    assert found == 0, f"with the flag ESP in UDP left with the checksum {found:#06x}, expected 0"
    assert carried, "without a checksum nothing came through, though charon's sockets accept it"
    answer = checksum(road.on_the_wire(TRANSPORT[1]))
    assert answer == 0, f"the answer came with the checksum {answer:#06x}, expected 0"
    inside = opened(packet, road.left.sas())
    assert inside.endswith(b"sealed"), f"scapy decrypted {inside!r}, expected what was sent"


@pytest.mark.proof(red=r"a datagram came through a socket that takes no zero checksum$")
def test_charons_socket_drops_it_until_told(road: Road) -> None:
    road.set(flags=ZERO_CHECKSUM, accept_zero=False)
    before = road.right.checksum_errors()
    carried = road.echo(TUNNEL, seconds=0.5)
    assert not carried, "a datagram came through a socket that takes no zero checksum"
    counted = wait_until(lambda: road.right.checksum_errors() > before, seconds=5)
    assert counted, "Udp6InCsumErrors does not count the datagram that was dropped"
