# SPDX-License-Identifier: GPL-2.0-only
"""E4: what is forwarded as one large packet leaves as segments, each without UDP checksum.

TCP of a gateway itself does not make large packets for an SA in software, and
UDP refuses to. What it forwards for a host behind it may be large: the veth
between the two hands over what TCP made, and XFRM takes it apart.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import esp_in_udp as eu
import xfrm_attributes as xa
import xfrm_structures as xs
from xfrm_netlink import XfrmSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from namespaces import Namespace, Pair

HOST, GATEWAY = "fd70::2", "fd70::1"
INSIDE = "inside"
MTU = 1300
ETH_P_IPV6 = 0x86DD
DATA = bytes(range(250)) * 160
PORT = 4242


@dataclass(frozen=True)
class Road:
    """A host behind the left gateway of a pair, whose TCP goes through an SA to the right."""

    host: Namespace
    pair: Pair
    entering: socket.socket
    wire: socket.socket

    def lay(self, *attributes: tuple[str, bytes]) -> None:
        """Install the SA on both sides; the left one's has further attributes."""
        ends = (self.pair.LEFT6, self.pair.RIGHT6)
        made = eu.sa(*ends, xs.MODE_TUNNEL)
        selector = xs.Selector(f"{HOST}/128", f"{ends[1]}/128")
        template = xs.Template(*ends, mode=xs.MODE_TUNNEL)
        for side, direction, further in (
            (self.pair.left, xs.DIR_OUT, attributes),
            (self.pair.right, xs.DIR_IN, ()),
        ):
            with side.inside(), contextlib.closing(XfrmSocket()) as xfrm:
                xfrm.add(eu.sa(*ends, made.mode, *further))
                xfrm.add_policy(xs.Policy(selector, direction, template))

    def transfer(self) -> list[eu.Datagram]:
        """Send data from the host to the right over TCP; return the ESP in UDP it came in."""
        with (
            self.pair.right.socket(socket.AF_INET6, socket.SOCK_STREAM) as listener,
            self.host.socket(socket.AF_INET6, socket.SOCK_STREAM) as client,
        ):
            listener.bind((self.pair.RIGHT6, PORT))
            listener.listen()
            client.connect((self.pair.RIGHT6, PORT))
            server, _ = listener.accept()
            with server, server.makefile("rb") as stream:
                server.settimeout(10)
                client.sendall(DATA)
                came = stream.read(len(DATA))
        assert came == DATA, f"of {len(DATA)} bytes came {len(came)}, or others"
        largest = max(len(packet) for packet in taken(self.entering))
        assert largest > MTU, f"the gateway got no packet larger than {largest} bytes to take apart"
        return [eu.Datagram(packet) for packet in taken(self.wire) if eu.is_udp(packet)]


def taken(tap: socket.socket) -> list[bytes]:
    """Return what has come to a packet socket."""
    tap.settimeout(0)
    packets = []
    with contextlib.suppress(BlockingIOError):
        while True:
            packets.append(tap.recv(65535))
    return packets


def tapped(namespace: Namespace, device: str) -> socket.socket:
    """Open a packet socket for the IPv6 that comes in on a device."""
    tap = namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
    tap.bind((device, ETH_P_IPV6))
    return tap


@pytest.fixture
def road(pair: Pair, netns: Namespace) -> Iterator[Road]:
    """Put a host behind the left side, and let the right one take zero checksums."""
    with contextlib.ExitStack() as undo:
        netns.ip(
            f"link add veth mtu {MTU} type veth peer name {INSIDE} mtu {MTU}"
            f" netns {pair.left.path}",
            f"addr add {HOST}/64 dev veth nodad",
            "link set veth up",
            f"route add default via {GATEWAY}",
        )
        pair.left.ip(f"addr add {GATEWAY}/64 dev {INSIDE} nodad", f"link set {INSIDE} up")
        pair.left.sysctl("net/ipv6/conf/all/forwarding", 1)
        pair.right.ip(f"route add {HOST} via {pair.LEFT6} dev {pair.DEVICE}")
        undo.enter_context(eu.encap_socket(pair.right, zero_checksums=True))
        taps = [
            undo.enter_context(tapped(*place))
            for place in ((pair.left, INSIDE), (pair.right, pair.DEVICE))
        ]
        yield Road(netns, pair, *taps)


@pytest.mark.proof(red=r"of \d+ datagrams of a large TCP transfer \d+ have a checksum, expected 0$")
def test_with_the_flag_no_segment_has_a_checksum(road: Road) -> None:
    road.lay(xa.extra_flags(eu.ZERO_CHECKSUM))
    datagrams = road.transfer()
    assert datagrams, "the transfer did not go through the SA"
    summed = sum(datagram.checksum != 0 for datagram in datagrams)
    assert summed == 0, (
        f"of {len(datagrams)} datagrams of a large TCP transfer {summed} have a checksum,"
        " expected 0"
    )


@pytest.mark.control
def test_without_the_flag_the_checksum_of_each_segment_is_right(road: Road) -> None:
    road.lay()
    datagrams = road.transfer()
    assert datagrams, "the transfer did not go through the SA"
    wrong = sum(datagram.checksum != datagram.right_checksum for datagram in datagrams)
    assert wrong == 0, f"of {len(datagrams)} datagrams {wrong} have a wrong checksum"
