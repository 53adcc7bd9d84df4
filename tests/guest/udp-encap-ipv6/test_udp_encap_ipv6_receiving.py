# SPDX-License-Identifier: GPL-2.0-only
"""E4, the other end: what takes ESP in UDP over IPv6 without checksum, on every kernel.

The packets are scapy's, put in UDP here, and come from a TUN device: with NAPI
through GRO, without it on the slow path.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import pytest

import esp_in_udp as eu
import xfrm_attributes as xa
import xfrm_messages as xm
import xfrm_structures as xs
from callers import receive_as_32_bits
from encap_receiver import Sealer, receiver
from wire import Wire
from xfrm_netlink import Mapping, XfrmSocket, mappings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from namespaces import Namespace

BOTH_WAYS = pytest.mark.parametrize("way", ["slow", "gro"])
MODES = pytest.mark.parametrize(
    "mode", [xs.MODE_TRANSPORT, xs.MODE_TUNNEL], ids=["transport", "tunnel"]
)
KEEPALIVE = b"\xff"
IKE = bytes(4) + b"behind the non-ESP marker"

_TABLE = f"""
table ip6 outer {{
  chain before {{
    type filter hook prerouting priority -300
    udp dport {eu.ENCAP_PORT} counter
  }}
}}
"""


@pytest.fixture
def plug(netns: Namespace) -> Iterator[Callable[[str], eu.Gateway]]:
    """Give a function that makes the gateway, its packets to come by the "gro" or "slow" way."""
    with contextlib.ExitStack() as undo:
        yield lambda way: undo.enter_context(
            eu.gateway(netns, gro=way == "gro", groups=(xm.GROUP_MAPPING,))
        )


def datagrams_in_prerouting(namespace: Namespace) -> Callable[[], int]:
    """Begin to count the UDP packets to port 4500 that netfilter sees; return the counter."""
    namespace.run(["nft", "-f", "-"], text=_TABLE)

    def count() -> int:
        listed = namespace.run(["nft", "list", "table", "ip6", "outer"])
        found = re.search(r"counter packets (\d+)", listed)
        return int(found[1]) if found else -1

    return count


@pytest.mark.control
@BOTH_WAYS
@MODES
def test_who_opted_in_takes_packets_without_checksum(
    plug: Callable[[str], eu.Gateway], way: str, mode: int
) -> None:
    gateway = plug(way)
    count = datagrams_in_prerouting(gateway.namespace)
    sealer = Sealer(gateway.input(mode=mode))
    with receiver(gateway, zero_checksums=True, gro=way == "gro") as opened:
        # Not every kernel's GRO opens ESP in UDP: those with a checksum show whether it does.
        opened.takes(*(eu.in_udp(sealer.seal(data), checksum=None) for data in (b"a", b"b")))
        summed = count()
        taken = opened.takes(*(eu.in_udp(sealer.seal(data)) for data in (b"one", b"two")))
    assert taken == [b"one", b"two"], f"of two packets without checksum came {taken}"
    outer, expected = count() - summed, summed if way == "gro" else 2
    assert outer == expected, (
        f"prerouting saw {outer} packets of ESP in UDP, expected {expected} on this way"
    )


@pytest.mark.control
def test_who_did_not_opt_in_drops_packets_without_checksum(
    plug: Callable[[str], eu.Gateway],
) -> None:
    gateway = plug("slow")
    sealer = Sealer(gateway.input())
    with receiver(gateway, zero_checksums=False) as opened:
        without = eu.in_udp(sealer.seal(b"without"))
        taken = opened.takes(without, eu.in_udp(sealer.seal(b"right"), checksum=None))
    assert taken == [b"right"], f"came {taken}, expected only the packet with a checksum"
    errors = eu.checksum_errors(gateway.namespace)
    assert errors == 1, f"Udp6InCsumErrors is {errors}, expected 1"


@pytest.mark.control
@BOTH_WAYS
def test_who_opted_in_still_drops_wrong_checksums(
    plug: Callable[[str], eu.Gateway], way: str
) -> None:
    gateway = plug(way)
    sealer = Sealer(gateway.input())
    with receiver(gateway, zero_checksums=True, gro=way == "gro") as opened:
        right = eu.in_udp(sealer.seal(b"right"), checksum=None)
        sealed = sealer.seal(b"wrong")
        wrong = eu.Datagram(eu.in_udp(sealed)).right_checksum ^ 0x0101
        taken = opened.takes(right, eu.in_udp(sealed, checksum=wrong))
    assert taken == [b"right"], f"came {taken}, expected only the packet whose checksum is right"


@pytest.mark.control
@BOTH_WAYS
def test_keepalives_end_and_ike_goes_on_to_the_daemon(
    plug: Callable[[str], eu.Gateway], way: str
) -> None:
    gateway = plug(way)
    sealed = Sealer(gateway.input()).seal(b"for its addresses")
    with receiver(gateway, zero_checksums=True, gro=way == "gro") as opened:
        opened.takes(eu.in_udp(sealed, data=KEEPALIVE), eu.in_udp(sealed, data=IKE))
        first = opened.daemon.recv(1000)
    assert first == IKE, f"the daemon got {first!r}, expected {IKE!r} and no keepalive"


@pytest.mark.proof(red=r"the sender's UDP checksum is 0x[0-9a-f]{4}, expected 0x0000$")
@BOTH_WAYS
def test_a_new_port_is_reported_for_packets_without_checksum(
    plug: Callable[[str], eu.Gateway], way: str
) -> None:
    gateway = plug(way)
    with gateway.namespace.inside():
        older = XfrmSocket(groups=(xm.GROUP_MAPPING,))
    with contextlib.closing(older):
        left = gateway.sent(gateway.output(xa.extra_flags(eu.ZERO_CHECKSUM)))
        assert left.checksum == 0, (
            f"the sender's UDP checksum is {left.checksum:#06x}, expected 0x0000"
        )
        sealer = Sealer(gateway.input())
        with receiver(gateway, zero_checksums=True, gro=way == "gro") as opened:
            taken = opened.takes(eu.in_udp(sealer.seal(b"moved"), source_port=4711))
        assert taken == [b"moved"], f"came {taken}, expected the packet from the new port"
        heard = gateway.xfrm.next_mapping(5)
        expected = Mapping(eu.SPI, (Wire.FAR6, eu.ENCAP_PORT), (Wire.FAR6, 4711))
        assert heard == expected, f"heard {heard}, expected {expected}"
        # It is there by now: what both hear is sent at once.
        translated = mappings_of(receive_as_32_bits(older.fileno()))
    assert translated == [expected], f"a 32-bit listener heard {translated}, expected {expected}"


@pytest.mark.control
@BOTH_WAYS
def test_fragments_without_checksum_are_taken(plug: Callable[[str], eu.Gateway], way: str) -> None:
    gateway = plug(way)
    big = bytes(range(256)) * 12
    sealer = Sealer(gateway.input())
    with receiver(gateway, zero_checksums=True, gro=way == "gro") as opened:
        taken = opened.takes(*eu.fragments(eu.in_udp(sealer.seal(big))))
    assert taken == [big], f"came {[len(data) for data in taken]} bytes, expected [{len(big)}]"
