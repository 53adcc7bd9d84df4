# SPDX-License-Identifier: GPL-2.0-only
"""E6 as strongSwan uses it: swanctl's set_mark_in and set_mark_out, seen by nftables.

``left`` initiates, ``right`` marks. Two connections: a tunnel over IPv4 and
transport mode over IPv6, each for UDP between the two hosts, so that
neighbour discovery stays outside.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import xfrm_structures as xs
from namespaces import Pair, SetUpError, veth_pair, wait_until
from netfilter import seen, watch
from strongswan import Charon, Configuration, Connection, charons
from xfrm_netlink import XfrmSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT = 4242
PRIOR = 0xAB00
NAMES = {xs.AF_INET: "tunnel", xs.AF_INET6: "transport"}
FAMILIES = pytest.mark.parametrize("family", NAMES, ids=["ipv4-tunnel", "ipv6-transport"])


def configuration(pair: Pair, *, marks: bool) -> Configuration:
    """Return the left side's connections, or the right side's with its marks."""
    connections = []
    for family, mode in NAMES.items():
        left, right = pair.addresses(family)
        ends = (right, left) if marks else (left, right)
        child = [f"mode = {mode}", "local_ts = dynamic[udp]", "remote_ts = dynamic[udp]"]
        if marks:
            child += ["set_mark_in = 0x10/0xff", "set_mark_out = 0x20/0xff"]
        connections.append(Connection(mode, *ends, {mode: tuple(child)}))
    return Configuration(tuple(connections))


@dataclass(frozen=True)
class Road:
    """Both sides, connected."""

    pair: Pair
    left: Charon
    right: Charon
    left_xfrm: XfrmSocket
    right_xfrm: XfrmSocket

    def carry(self, family: int) -> None:
        """Send a datagram from left to right and its answer back."""
        here, there = self.pair.addresses(family)
        with (
            self.pair.right.socket(family, socket.SOCK_DGRAM) as server,
            self.pair.left.socket(family, socket.SOCK_DGRAM) as client,
        ):
            server.bind((there, PORT))
            client.bind((here, PORT))
            client.sendto(b"marked?", (there, PORT))
            try:
                server.sendto(*server.recvfrom(100))
                client.recv(100)
            except TimeoutError:
                name = NAMES[family]
                raise SetUpError(f"the {name} lost a datagram; {self.right.log_end()}") from None

    def leading_right(self, xfrm: XfrmSocket, family: int) -> list[xs.Sa]:
        """Return the SAs of one side and of a family that lead to the right one."""
        _, there = self.pair.addresses(family)
        return [sa for sa in xfrm.states() if sa.destination == there and not sa.is_larval]


@pytest.fixture(scope="module")
def road() -> Iterator[Road]:
    """Connect the two sides, with a mark of their own on the ESP packets that come in."""
    with contextlib.ExitStack() as undo:
        pair = undo.enter_context(veth_pair())
        left, right = undo.enter_context(
            charons(pair, configuration(pair, marks=False), configuration(pair, marks=True))
        )
        for name in NAMES.values():
            left.initiate(name)
        sockets = []
        for side in (pair.left, pair.right):
            with side.inside():
                sockets.append(undo.enter_context(contextlib.closing(XfrmSocket())))
        yield Road(pair, left, right, *sockets)


def words(marks: tuple[int, ...]) -> str:
    """Return marks as a message shows them."""
    return ", ".join(f"{mark:#x}" for mark in marks) or "nothing"


@pytest.mark.proof(red=r"set_mark_in = 0x10/0xff made the mark 0xab00 into 0xab00$")
@FAMILIES
def test_nftables_sees_set_mark_in(road: Road, family: int) -> None:
    watch(road.pair.right, port=PORT, prior_mark=PRIOR)
    road.carry(family)
    marks = seen(road.pair.right).marks
    assert marks == (0xAB10,), (
        f"set_mark_in = 0x10/0xff made the mark {PRIOR:#x} into {words(marks)}"
    )


@pytest.mark.proof(red=r"set_mark_out = 0x20/0xff let ESP leave with the mark 0x0$")
@FAMILIES
def test_nftables_sees_set_mark_out(road: Road, family: int) -> None:
    watch(road.pair.right, port=PORT)
    road.carry(family)
    marks = seen(road.pair.right).esp_marks
    assert marks == (0x20,), f"set_mark_out = 0x20/0xff let ESP leave with the mark {words(marks)}"


@pytest.mark.proof(red=r"a dump shows charon's inbound SA with the mark None, expected 0x10/0xff$")
@FAMILIES
def test_charon_asked_for_it_in_xfrm(road: Road, family: int) -> None:
    sas = road.leading_right(road.right_xfrm, family)
    assert len(sas) == 1, f"the right side has {len(sas)} inbound SAs, expected 1"
    parts = [sas[0].attribute(name) for name in ("XFRMA_SET_MARK", "XFRMA_SET_MARK_MASK")]
    shown = "/".join(f"{struct.unpack('=I', part)[0]:#x}" for part in parts if part) or None
    assert shown == "0x10/0xff", (
        f"a dump shows charon's inbound SA with the mark {shown}, expected 0x10/0xff"
    )


@pytest.mark.proof(red=r"'ip xfrm state' shows the marks \[\], expected 0x10/0xff and 0x20/0xff$")
def test_iproute2_shows_it(road: Road) -> None:
    lines = road.pair.right.run(["ip", "xfrm", "state"]).splitlines()
    shown = sorted({line.split()[1] for line in lines if line.strip().startswith("output-mark")})
    assert shown == ["0x10/0xff", "0x20/0xff"], (
        f"'ip xfrm state' shows the marks {shown}, expected 0x10/0xff and 0x20/0xff"
    )


@pytest.mark.proof(red=r"after rekeying the mark 0xab00 became 0xab00, expected 0xab10$")
def test_a_rekeyed_child_marks_too(road: Road) -> None:
    def outbound() -> set[int]:
        return {sa.spi for sa in road.leading_right(road.left_xfrm, xs.AF_INET)}

    before = outbound()
    road.right.rekey(NAMES[xs.AF_INET])
    rekeyed = wait_until(lambda: bool(now := outbound()) and now.isdisjoint(before), seconds=15)
    assert rekeyed, f"the old SA is used after 15 s; {road.right.log_end()}"
    watch(road.pair.right, port=PORT, prior_mark=PRIOR)
    road.carry(xs.AF_INET)
    marks = seen(road.pair.right).marks
    assert marks == (0xAB10,), (
        f"after rekeying the mark {PRIOR:#x} became {words(marks)}, expected 0xab10"
    )
