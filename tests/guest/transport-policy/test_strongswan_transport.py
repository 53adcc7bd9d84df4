# SPDX-License-Identifier: GPL-2.0-only
"""E1 for a transport-mode connection of strongSwan: its SA carries what it was negotiated for.

``right`` serves TCP on port 80 and asks for IPsec there; ``left`` is a peer
that, once it has the SA, sends something else through it. charon installs the
SA with the hosts as its selector and without the ports, and has no word for
the flag: it is given to the SA afterwards.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import xfrm_sa_flags
import xfrm_structures as xs
from namespaces import Namespace, Pair, SetUpError, veth_pair, wait_until
from netfilter import seen, watch
from strongswan import (
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

#: XFRM_SA_XFLAG_ENFORCE_POLICY.
ENFORCE_POLICY = 0x01000000

SERVED = 80
UNWANTED = 81
PLAIN = 82
IPPROTO_TCP = 6
IPPROTO_UDP = 17
NAMES = {xs.AF_INET: "ipv4", xs.AF_INET6: "ipv6"}
FAMILIES = pytest.mark.parametrize("family", NAMES, ids=NAMES.values())


def configuration(pair: Pair, *, serves: bool) -> Configuration:
    """Return the connections of the right side, which serves, or of the left one."""
    mode = "mode = transport"
    connections = []
    for family, name in NAMES.items():
        left, right = pair.addresses(family)
        if serves:
            child = (mode, f"local_ts = dynamic[tcp/{SERVED}]", "remote_ts = dynamic[tcp]")
            connections.append(Connection(name, right, left, {name: child}))
        else:
            child = (mode, "local_ts = dynamic[tcp]", f"remote_ts = dynamic[tcp/{SERVED}]")
            connections.append(Connection(name, left, right, {name: child}))
    return Configuration(tuple(connections))


@dataclass(frozen=True)
class Road:
    """Both sides, connected; the left one sends through the SA whatever is for port 81."""

    pair: Pair
    client: Charon
    server: Charon
    xfrm: XfrmSocket

    def inbound(self, family: int) -> xs.Sa:
        """Return the one SA of a family that leads to the server."""
        there = self.pair.addresses(family)[1]
        found = [sa for sa in self.xfrm.states() if sa.destination == there]
        if len(found) != 1:
            raise SetUpError(f"{len(found)} SAs lead to {there}; {self.server.log_end()}")
        return found[0]

    def flag(self, family: int, flags: int) -> None:
        """Give the server's inbound SA, which had none, its flags by UPDSA."""
        put_in_place(self.xfrm, with_extra_flags(self.inbound(family), 0))
        if flags:
            self.xfrm.update(with_extra_flags(self.inbound(family), flags))

    def no_policies(self) -> int:
        """Return how often the server found no policy for what IPsec brought."""
        with self.pair.right.inside():
            lines = Path("/proc/thread-self/net/xfrm_stat").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("XfrmInNoPols"))

    def delivers_datagram(self, family: int, port: int) -> bool:
        """Send a datagram to the server; tell whether it came, or else was refused."""
        here, there = self.pair.addresses(family)
        with (
            self.pair.right.socket(family, socket.SOCK_DGRAM) as server,
            self.pair.left.socket(family, socket.SOCK_DGRAM) as client,
        ):
            server.bind((there, port))
            client.bind((here, 0))
            before = self.no_policies()
            client.sendto(b"wanted?", (there, port))
            return self.has_something(server, before)

    def connects(self, family: int, port: int) -> bool:
        """Connect to the server; tell whether that came about, or else was refused."""
        here, there = self.pair.addresses(family)
        with (
            self.pair.right.socket(family, socket.SOCK_STREAM) as server,
            self.pair.left.socket(family, socket.SOCK_STREAM) as client,
        ):
            server.bind((there, port))
            server.listen()
            client.bind((here, 0))
            client.settimeout(0)
            before = self.no_policies()
            client.connect_ex((there, port))
            return self.has_something(server, before)

    def has_something(self, server: socket.socket, before: int) -> bool:
        """Wait until a socket can be read or accepted from, or the server's policies refused."""

        def readable() -> bool:
            return bool(select.select([server], [], [], 0)[0])

        wait_until(lambda: readable() or self.no_policies() > before, seconds=5)
        return readable()


def misuse(namespace: Namespace, ends: tuple[str, str], reqid: int) -> None:
    """Lead what is for the unwanted port into the SA that charon made for the served one."""
    here, there = (f"{end}/{128 if ':' in end else 32}" for end in ends)
    with namespace.inside(), contextlib.closing(XfrmSocket()) as xfrm:
        for proto in (IPPROTO_TCP, IPPROTO_UDP):
            selector = xs.Selector(here, there, proto=proto, destination_port=UNWANTED)
            template = xs.Template(*ends, reqid=reqid)
            xfrm.add_policy(xs.Policy(selector, xs.DIR_OUT, template))


def reqid_to(namespace: Namespace, destination: str) -> int:
    """Return the reqid charon gave its SA to a destination."""
    with namespace.inside(), contextlib.closing(XfrmSocket()) as xfrm:
        return next(sa.reqid for sa in xfrm.states() if sa.destination == destination)


@pytest.fixture(scope="module")
def road() -> Iterator[Road]:
    """Connect the two sides, and let the left one misuse what it got."""
    with contextlib.ExitStack() as undo:
        pair = undo.enter_context(veth_pair())
        left, right = undo.enter_context(
            charons(pair, configuration(pair, serves=False), configuration(pair, serves=True))
        )
        for family, name in NAMES.items():
            left.initiate(name)
            ends = pair.addresses(family)
            misuse(pair.left, ends, reqid_to(pair.left, ends[1]))
        with pair.right.inside():
            xfrm = undo.enter_context(contextlib.closing(XfrmSocket()))
        yield Road(pair, left, right, xfrm)


@pytest.mark.control
@FAMILIES
def test_without_the_flag_the_sa_carries_what_nobody_agreed_to(road: Road, family: int) -> None:
    road.flag(family, 0)
    delivered = road.delivers_datagram(family, UNWANTED)
    assert delivered, f"UDP to port {UNWANTED} did not come through an SA without the flag"


@pytest.mark.proof(red=r"UDP to port 81 came through charon's SA for TCP port 80$")
@FAMILIES
def test_with_the_flag_an_unwanted_datagram_is_refused(road: Road, family: int) -> None:
    road.flag(family, ENFORCE_POLICY)
    before = road.no_policies()
    delivered = road.delivers_datagram(family, UNWANTED)
    refused = road.no_policies() - before
    assert not delivered, f"UDP to port {UNWANTED} came through charon's SA for TCP port {SERVED}"
    assert refused == 1, f"XfrmInNoPols counted {refused} for one refused datagram"


@pytest.mark.proof(red=r"TCP to port 81 connected through charon's SA for TCP port 80$")
@FAMILIES
def test_with_the_flag_an_unwanted_connection_is_refused(road: Road, family: int) -> None:
    road.flag(family, ENFORCE_POLICY)
    before = road.no_policies()
    connected = road.connects(family, UNWANTED)
    refused = road.no_policies() - before
    assert not connected, f"TCP to port {UNWANTED} connected through charon's SA for TCP port 80"
    assert refused >= 1, f"XfrmInNoPols counted {refused} for a refused connection"


@pytest.mark.control
@FAMILIES
def test_with_the_flag_the_served_port_is_reached_through_ipsec(road: Road, family: int) -> None:
    road.flag(family, ENFORCE_POLICY)
    watch(road.pair.right, port=SERVED)
    connected = road.connects(family, SERVED)
    outer = seen(road.pair.right).outer
    assert connected, f"no TCP connection to port {SERVED}, for which the SA was made"
    assert outer >= 2, f"a TCP connection was made with {outer} ESP packets to the server"


@pytest.mark.control
@FAMILIES
def test_with_the_flag_plaintext_is_accepted_where_it_was(road: Road, family: int) -> None:
    road.flag(family, ENFORCE_POLICY)
    delivered = road.delivers_datagram(family, PLAIN)
    assert delivered, f"a datagram to port {PLAIN}, for which nobody wants IPsec, did not come"


@pytest.mark.proof(red=r"UDP to port 81 came through a rekeyed SA that xfrm_sa_flags followed$")
@FAMILIES
def test_xfrm_sa_flags_follows_charons_rekeying(road: Road, family: int, tmp_path: Path) -> None:
    there = road.pair.addresses(family)[1]
    road.flag(family, 0)
    old = road.inbound(family).spi
    words = ["--destination", there, "--follow", f"{ENFORCE_POLICY:#x}"]
    said = tmp_path / "said"
    with road.pair.right.daemon(
        [sys.executable, xfrm_sa_flags.__file__, *words], output=said, environment={}
    ) as running:

        def treated(spi: int) -> bool:
            # Without the extension it ends as soon as it has found that out.
            return f"{spi:#010x}" in said.read_text("ascii") or running.poll() is not None

        def old_one_is_gone() -> bool:
            return old not in {sa.spi for sa in road.xfrm.states() if sa.destination == there}

        before = wait_until(lambda: treated(old), seconds=20)
        road.client.rekey(NAMES[family])
        rekeyed = wait_until(old_one_is_gone, seconds=15)
        assert rekeyed, f"the old SA is there after 15 s; {road.server.log_end()}"
        new = road.inbound(family).spi
        after = wait_until(lambda: treated(new), seconds=15)
        delivered = road.delivers_datagram(family, UNWANTED)
    assert not delivered, (
        f"UDP to port {UNWANTED} came through a rekeyed SA that xfrm_sa_flags followed"
    )
    assert (before, after) == (True, True), f"xfrm_sa_flags said {said.read_text('ascii')!r}"
