# SPDX-License-Identifier: GPL-2.0-only
"""E4: what is forwarded as one large packet leaves as segments, each without UDP checksum.

A gateway itself makes no large packets for an SA in software. What it forwards
may be large: here as a virtual machine hands it over, through a TUN device that
says how to take it apart. XFRM does that, and seals every segment.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import struct
from typing import TYPE_CHECKING

import pytest

import esp_in_udp as eu
import xfrm_attributes as xa
import xfrm_structures as xs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from namespaces import Namespace

HOST, FAR = "fd70::2", eu.INNER[1]
SEGMENTS, SIZE = 10, 1000
PARTS = [bytes([number]) * SIZE for number in range(SEGMENTS)]

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_TCP = 6
# struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
_VIRTIO = struct.Struct("=BBHHHH")
_NEEDS_CSUM, _GSO_TCPV6 = 1, 4


def large_packet() -> bytes:
    """Return TCP from the host over IPv6, ten segments in one, as virtio has it."""
    data = b"".join(PARTS)
    ends = ipaddress.ip_address(HOST).packed + ipaddress.ip_address(FAR).packed
    length = 20 + len(data)
    # Of the checksum only what the pseudo header adds is there: the rest is left to the taker.
    pseudo = ends + struct.pack("!II", length, _TCP)
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    partial = (total & 0xFFFF) + (total >> 16)
    tcp = struct.pack("!HHIIBBHHH", 4242, 4242, 1, 1, 5 << 4, 0x10, 1000, partial, 0)
    header = struct.pack("!IHBB", 6 << 28, length, _TCP, 64) + ends
    how = _VIRTIO.pack(_NEEDS_CSUM, _GSO_TCPV6, len(header) + len(tcp), SIZE, len(header), 16)
    return how + header + tcp + data


@pytest.fixture
def gateway(netns: Namespace) -> Iterator[eu.Gateway]:
    """Give a gateway that forwards."""
    with eu.gateway(netns) as plugged:
        netns.sysctl("net/ipv6/conf/all/forwarding", 1)
        yield plugged


def forwarded(gateway: eu.Gateway, *attributes: tuple[str, bytes]) -> list[eu.Datagram]:
    """Forward a large packet through an SA with some attributes; return what left."""
    made = gateway.output(*attributes, mode=xs.MODE_TUNNEL)
    selector = xs.Selector(f"{HOST}/128", f"{FAR}/128")
    template = xs.Template(made.source, made.destination, mode=xs.MODE_TUNNEL)
    gateway.xfrm.add_policy(xs.Policy(selector, xs.DIR_OUT, template))
    with gateway.namespace.inside():
        inside = os.open("/dev/net/tun", os.O_RDWR)
    try:
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(inside, _TUNSETIFF, struct.pack("=16sH14x", b"inside", flags))
        gateway.namespace.ip("link set inside up", f"route add {HOST} dev inside")
        os.write(inside, large_packet())
        left: list[eu.Datagram] = []
        for part in PARTS:
            packet = gateway.wire.receive(eu.is_udp)
            assert packet is not None, f"{len(left)} of {SEGMENTS} segments left within 5 s"
            left.append(eu.Datagram(packet))
            eu.opens(made, left[-1], part)
    finally:
        os.close(inside)
    return left


@pytest.mark.proof(red=r"of 10 segments 10 have a UDP checksum, expected 0$")
def test_with_the_flag_no_segment_has_a_checksum(gateway: eu.Gateway) -> None:
    left = forwarded(gateway, xa.extra_flags(eu.ZERO_CHECKSUM))
    summed = sum(datagram.checksum != 0 for datagram in left)
    assert summed == 0, f"of {SEGMENTS} segments {summed} have a UDP checksum, expected 0"


@pytest.mark.control
def test_without_the_flag_the_checksum_of_each_segment_is_right(gateway: eu.Gateway) -> None:
    wrong = [
        f"{datagram.checksum:#06x} instead of {datagram.right_checksum:#06x}"
        for datagram in forwarded(gateway)
        if datagram.checksum != datagram.right_checksum
    ]
    assert not wrong, f"UDP checksums of segments are {', '.join(wrong)}"
