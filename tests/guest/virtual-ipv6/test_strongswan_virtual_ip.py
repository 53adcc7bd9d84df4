# SPDX-License-Identifier: GPL-2.0-only
"""E5 for the address that strongSwan's charon gets from a gateway's pool and installs.

IKE and ESP go over IPv4, and the road warrior has no other global IPv6
address. charon knows nothing of IFA_F_NOSRCSEL: it gives its address a label
(RFC 6724 rule 6) and leaves it preferred. What an updown script or the
administrator adds is the RTM_NEWADDR that replaces the address.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from namespaces import Pair, SetUpError, veth_pair, wait_until
from netfilter import seen, watch
from rtnl_address import (
    FOREVER,
    IFA_F_DEPRECATED,
    IFA_F_NODAD,
    IFA_F_NOSRCSEL,
    Address,
    AddressSocket,
)
from strongswan import Charon, Configuration, Connection, charons
from xfrm_netlink import XfrmSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "road"
VIRTUAL = "fd77::5"
BEHIND_GATEWAY = "fd80::1"
ELSEWHERE = "fd99::1"
PORT = 4242

WARRIOR = Connection(
    NAME, Pair.LEFT4, Pair.RIGHT4, {NAME: ("remote_ts = fd80::/64",)}, ("vips = ::",)
)
GATEWAY = Connection(
    NAME, Pair.RIGHT4, Pair.LEFT4, {NAME: ("local_ts = fd80::/64",)}, ("pools = virtual",)
)
POOL = ("virtual", f"{VIRTUAL}-{VIRTUAL}")


@dataclass(frozen=True)
class Road:
    """The road warrior (``pair.left``) and the gateway (``pair.right``), connected."""

    pair: Pair
    warrior: Charon
    addresses: AddressSocket
    xfrm: XfrmSocket

    def virtual(self) -> Address:
        """Return the virtual address as a dump shows it."""
        found = self.addresses.find(VIRTUAL)
        if found is None:
            raise SetUpError(f"charon installed no {VIRTUAL}; {self.warrior.log_end()}")
        return found

    def flag(self, flags: int) -> None:
        """Replace the virtual address by itself with other flags."""
        self.addresses.replace(replace(self.virtual(), flags=IFA_F_NODAD | flags))

    def link_local(self) -> str:
        """Return the other address there is to choose."""
        return self.addresses.link_local(self.pair.left.index(self.pair.DEVICE))

    def source_to(self, destination: str) -> str:
        """Return the source address connect() takes for a destination."""
        with self.pair.left.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((destination, PORT))
            return str(probe.getsockname()[0]).partition("%")[0]

    def exchange(self, destination: str) -> str:
        """Send a datagram to the gateway's host and one back; return its source."""
        with (
            self.pair.right.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server,
            self.pair.left.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client,
        ):
            server.bind((destination, PORT))
            client.sendto(b"from where?", (destination, PORT))
            try:
                said, source = server.recvfrom(100)
                server.sendto(said, source)
                client.recv(100)
            except TimeoutError:
                end = self.warrior.log_end()
                raise SetUpError(f"a datagram to {destination} got no answer; {end}") from None
        return str(source[0]).partition("%")[0]

    def outbound_spis(self) -> set[int]:
        """Return the SPIs of the SAs that lead to the gateway."""
        return {sa.spi for sa in self.xfrm.states() if sa.destination == Pair.RIGHT4}


@pytest.fixture(scope="module")
def road() -> Iterator[Road]:
    """Let the road warrior connect and get its address."""
    with contextlib.ExitStack() as undo:
        pair = undo.enter_context(veth_pair(left_has_addresses=False))
        pair.left.ip(
            f"addr add {Pair.LEFT4}/24 dev {Pair.DEVICE}",
            f"route add default via {Pair.RIGHT6} dev {Pair.DEVICE} onlink",
        )
        pair.right.ip(
            f"addr add {ELSEWHERE}/128 dev lo",
            f"addr add {BEHIND_GATEWAY}/128 dev lo",
            f"route add fd77::/64 dev {Pair.DEVICE}",
        )
        warrior, _ = undo.enter_context(
            charons(pair, Configuration((WARRIOR,)), Configuration((GATEWAY,), pools=(POOL,)))
        )
        with pair.left.inside():
            addresses = undo.enter_context(contextlib.closing(AddressSocket()))
            xfrm = undo.enter_context(contextlib.closing(XfrmSocket()))
        made = Road(pair, warrior, addresses, xfrm)
        if not wait_until(lambda: bool(made.link_local()), seconds=10):
            raise SetUpError("the veth got no link-local address within 10 s")
        warrior.initiate(NAME)
        yield made


@pytest.mark.control
def test_charon_installs_it_with_a_label_and_preferred(road: Road) -> None:
    road.flag(0)
    found = road.virtual()
    assert found.prefix == 128, f"charon installed {VIRTUAL}/{found.prefix}, expected /128"
    assert not found.flags & IFA_F_DEPRECATED, f"charon's address has the flags {found.flags:#x}"
    assert found.preferred == FOREVER, f"charon's address is preferred for {found.preferred} s"
    labels = road.pair.left.run(["ip", "addrlabel", "list"])
    assert f"prefix {VIRTUAL}/128 label 220" in labels, f"charon set no label: {labels!r}"


@pytest.mark.control
def test_the_label_alone_does_not_keep_it_from_being_picked(road: Road) -> None:
    road.flag(0)
    source = road.source_to(ELSEWHERE)
    assert source == VIRTUAL, f"connect() took {source}: nothing here would be worth excluding"


@pytest.mark.proof(red=r"connect\(\) to fd99::1 took charon's virtual address fd77::5$")
def test_with_the_flag_it_is_not_picked_for_other_destinations(road: Road) -> None:
    road.flag(IFA_F_NOSRCSEL)
    source = road.source_to(ELSEWHERE)
    assert source != VIRTUAL, f"connect() to {ELSEWHERE} took charon's virtual address {source}"
    assert source == road.link_local(), f"connect() to {ELSEWHERE} took {source}"


@pytest.mark.proof(red=r"a datagram for fd99::1 told it charon's virtual address fd77::5$")
def test_with_the_flag_no_stranger_is_told_it(road: Road) -> None:
    road.flag(IFA_F_NOSRCSEL)
    with (
        road.pair.right.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server,
        road.pair.left.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client,
    ):
        server.bind((ELSEWHERE, PORT))
        client.sendto(b"from where?", (ELSEWHERE, PORT))
        source = str(server.recvfrom(100)[1][0]).partition("%")[0]
    assert source != VIRTUAL, (
        f"a datagram for {ELSEWHERE} told it charon's virtual address {source}"
    )
    assert source == road.link_local(), f"a datagram for {ELSEWHERE} came from {source}"


@pytest.mark.control
def test_with_the_flag_the_tunnel_is_used_from_it(road: Road) -> None:
    road.flag(IFA_F_NOSRCSEL)
    watch(road.pair.right, port=PORT)
    source = road.exchange(BEHIND_GATEWAY)
    found = seen(road.pair.right)
    assert source == VIRTUAL, f"a datagram into charon's tunnel came from {source}, not {VIRTUAL}"
    assert (found.outer, found.inner) == (1, 1), (
        f"the gateway saw {found.outer} ESP packets with {found.inner} datagrams, expected 1 and 1"
    )


@pytest.mark.proof(red=r"after rekeying the address has the flags 0x[0-9a-f]+, without the flag$")
def test_rekeying_keeps_the_flag(road: Road) -> None:
    road.flag(IFA_F_NOSRCSEL)
    before = road.outbound_spis()
    road.warrior.rekey(NAME)
    rekeyed = wait_until(
        lambda: bool(now := road.outbound_spis()) and now.isdisjoint(before), seconds=15
    )
    assert rekeyed, f"the old SA is used after 15 s; {road.warrior.log_end()}"
    flags = road.virtual().flags
    assert flags & IFA_F_NOSRCSEL, (
        f"after rekeying the address has the flags {flags:#x}, without the flag"
    )
    source = road.exchange(BEHIND_GATEWAY)
    assert source == VIRTUAL, f"after rekeying a datagram into the tunnel came from {source}"


@pytest.mark.control
def test_charon_takes_the_flagged_address_away(road: Road) -> None:
    road.flag(IFA_F_NOSRCSEL)
    road.warrior.terminate(NAME)
    gone = wait_until(lambda: road.addresses.find(VIRTUAL) is None, seconds=15)
    left = road.xfrm.states()
    road.warrior.initiate(NAME)
    assert gone, f"charon left {VIRTUAL} there for 15 s; {road.warrior.log_end()}"
    assert not left, f"charon left {len(left)} SAs behind"
    flags = road.virtual().flags
    assert not flags & IFA_F_NOSRCSEL, f"the address installed anew has the flags {flags:#x}"
