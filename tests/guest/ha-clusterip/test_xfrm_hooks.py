# SPDX-License-Identifier: GPL-2.0-only
"""E7: netfilter's hooks XFRM_IN (8) and XFRM_OUT (9), seen by chains of nf_tables.

nft has no word for them, so the chains are written over netlink. Everything
goes through a TUN device: packets in are sealed here, packets out are opened.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

import nf_tables_raw as nf
import sealing
import xfrm_attributes as xa
import xfrm_structures as xs
from async_crypto import asynchronous, in_use
from cluster import (
    IPV4,
    IPV6,
    PATIENCE,
    PORT,
    Ends,
    Node,
    Wired,
    encap_socket,
    esp_on,
    lone_node,
)
from namespaces import Namespace, SetUpError, goes_away, wait_until
from netfilter import GRO_OPENS_ESP_IN_UDP, datagrams_in_prerouting
from netlink_frames import NetlinkRefusedError
from nf_queue import Queue
from segment_hash import sa_segment
from under_traffic import TWO_CPUS, Stream
from wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What a kernel without the hooks says to a chain there.
NO_HOOK = r"a filter chain at hook [89] refused: Operation not supported \(errno 95\)$"
MODES = pytest.mark.parametrize(
    "mode", [xs.MODE_TRANSPORT, xs.MODE_TUNNEL], ids=["transport", "tunnel"]
)
BOTH_WAYS = pytest.mark.parametrize("gro", [False, True], ids=["slow", "gro"])
FAMILIES = pytest.mark.parametrize("ends", [IPV4, IPV6], ids=["ipv4", "ipv6"])
IPT_SO_GET_INFO = 64
#: struct ipt_getinfo and ip6t_getinfo: two arrays of five hooks.
GETINFO_BYTES = 84


@dataclass(frozen=True)
class Host:
    """A node without a rule, and the wire of all it receives and sends."""

    node: Node
    wire: Wire
    tables: list[nf.Table] = field(default_factory=list)

    @property
    def namespace(self) -> Namespace:
        """Where it is."""
        return self.node.namespace

    def table(self, family: int = nf.INET, name: str = "raw") -> nf.Table:
        """Make a table of nf_tables."""
        self.tables.append(nf.Table(self.namespace, family, name))
        return self.tables[-1]

    def counting(self, family: int = nf.INET, *, policy: int = nf.ACCEPT) -> nf.Table:
        """Make a table whose chains "in" and "out" count at the two hooks."""
        table = self.table(family)
        table.apply(
            table.chain("in", nf.XFRM_IN, policy=policy),
            table.chain("out", nf.XFRM_OUT, policy=policy),
            table.rule("in", nf.counter()),
            table.rule("out", nf.counter()),
        )
        return table

    def sas(self, *attributes: tuple[str, bytes], mode: int = xs.MODE_TRANSPORT) -> list[xs.Sa]:
        """Install an SA in and one out."""
        made = (
            self.node.inbound(1, 2, *attributes, mode=mode),
            self.node.outbound(1, 2, *attributes, mode=mode),
        )
        return [self.node.add(sa) for sa in made]

    def take(self, sa: xs.Sa, *sequences: int, forged: bool = False) -> None:
        """Let packets of an SA arrive."""
        sealer = self.node.sealer(sa)
        for sequence in sequences:
            self.wire.send(sealer.datagram(sequence, PORT, forged=forged))
        self.node.settle()

    def sent(self, sa: xs.Sa, numbers: int) -> list[int]:
        """Send datagrams through an SA; return the sequence numbers that left, all opened."""
        self.node.emit(sa, range(numbers))
        left = esp_on(self.wire)
        for packet in left:
            self.node.sealer(sa).open(packet)
        return [sealing.sequence_of(packet) for packet in left]


@pytest.fixture(scope="module")
def wired() -> Iterator[Wired]:
    """Give the nodes of the whole file."""
    with contextlib.closing(Wired()) as nodes:
        yield nodes


@pytest.fixture
def plug(wired: Wired) -> Iterator[Callable[..., Host]]:
    """Give a function that gives a host of one family, its packets through GRO or not."""
    hosts: list[Host] = []

    def make(ends: Ends = IPV4, *, gro: bool = False) -> Host:
        hosts.append(Host(*wired.node(ends, gro=gro)))
        return hosts[-1]

    yield make
    for table in (table for host in hosts for table in host.tables):
        with contextlib.suppress(NetlinkRefusedError):
            table.delete()
    wired.clear()


@pytest.fixture
def host(plug: Callable[..., Host]) -> Host:
    """Give a host over IPv4, without GRO."""
    return plug()


def both(table: nf.Table) -> tuple[int, ...]:
    """Return what the chains "in" and "out" have counted."""
    return table.packets("in") + table.packets("out")


@pytest.mark.proof(red=NO_HOOK)
@pytest.mark.parametrize(
    ("family", "ends"),
    [(nf.IP, IPV4), (nf.INET, IPV4), (nf.IP6, IPV6), (nf.INET, IPV6)],
    ids=["ip", "inet-ipv4", "ip6", "inet-ipv6"],
)
@MODES
def test_chains_see_each_packet_once(
    plug: Callable[..., Host], family: int, ends: Ends, mode: int
) -> None:
    host = plug(ends)
    table = host.counting(family)
    inbound, outbound = host.sas(mode=mode)
    host.take(inbound, 1, 2, 3)
    left = host.sent(outbound, 2)
    delivered = host.node.delivered(3)
    assert delivered == ["1", "2", "3"], f"{delivered} was delivered, expected 1, 2, 3"
    assert left == [1, 2], f"ESP with the numbers {left} left, expected 1, 2"
    assert both(table) == (3, 2), f"XFRM_IN and XFRM_OUT counted {both(table)}, expected (3, 2)"


@pytest.mark.proof(red=NO_HOOK)
@FAMILIES
def test_chains_of_the_other_family_see_nothing(plug: Callable[..., Host], ends: Ends) -> None:
    host = plug(ends)
    table = host.counting(nf.IP6 if ends is IPV4 else nf.IP)
    inbound, outbound = host.sas()
    host.take(inbound, 1)
    left = host.sent(outbound, 1)
    assert (host.node.delivered(1), left) == (["1"], [1]), "a packet did not come through"
    assert both(table) == (0, 0), f"the other family's chains counted {both(table)}"


@pytest.mark.proof(red=NO_HOOK)
def test_the_family_is_that_of_the_outer_addresses(host: Host) -> None:
    ipv4, ipv6 = host.counting(nf.IP), host.counting(nf.IP6)
    host.namespace.ip(f"addr add {IPV6.behind_cluster}/128 dev lo nodad")
    made = replace(
        host.node.inbound(1, 2, mode=xs.MODE_TUNNEL), selector=xs.Selector(*IPV6.nets[::-1])
    )
    host.node.xfrm.add(made)
    template = xs.Template(made.source, made.destination, mode=xs.MODE_TUNNEL)
    host.node.xfrm.add_policy(xs.Policy(xs.Selector(*IPV6.nets[::-1]), xs.DIR_IN, template))
    inside = (IPV6.behind_peer, IPV6.behind_cluster)
    with host.namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver:
        receiver.bind((IPV6.behind_cluster, PORT))
        host.wire.send(sealing.Sealer(made, inside).datagram(1, PORT))
        got = receiver.recv(100)
    assert got == b"1", f"IPv6 in ESP over IPv4 delivered {got!r}, expected b'1'"
    seen = ipv4.packets("in") + ipv6.packets("in")
    assert seen == (1, 0), f"for IPv6 in ESP over IPv4 ip and ip6 counted {seen}, expected (1, 0)"


@pytest.mark.proof(red=NO_HOOK)
@FAMILIES
@MODES
def test_a_drop_at_xfrm_in_comes_before_crypto(
    plug: Callable[..., Host], ends: Ends, mode: int
) -> None:
    host = plug(ends)
    inbound, _ = host.sas(mode=mode)
    table = host.table()
    drop = table.rule("in", nf.counter(), nf.verdict(nf.DROP))
    table.apply(table.chain("in", nf.XFRM_IN), drop)
    host.take(inbound, 1, 2, 3)
    host.take(inbound, 1000, forged=True)
    found, delivered = host.node.dumped(inbound), host.node.delivered()
    assert table.packets("in") == (4,), f"the hook saw {table.packets('in')} packets, expected 4"
    assert delivered == [], f"{delivered} was delivered past a drop at XFRM_IN"
    done = (found.packets, found.forged, host.node.replay(inbound).received)
    assert done == (0, 0, 0), (
        f"after a drop at XFRM_IN the SA decrypted, refused, counted up to {done}, expected 0, 0, 0"
    )
    errors = host.node.errors()
    assert errors == {}, f"a drop at XFRM_IN counts as {errors}, expected no error of XFRM"
    table.delete()
    host.take(inbound, 1, 2, 3)
    delivered = host.node.delivered(3)
    assert delivered == ["1", "2", "3"], f"without the chain came {delivered}, expected 1, 2, 3"


@pytest.mark.proof(red=NO_HOOK)
@FAMILIES
@MODES
def test_a_drop_at_xfrm_out_takes_the_number(
    plug: Callable[..., Host], ends: Ends, mode: int
) -> None:
    host = plug(ends)
    _, outbound = host.sas(mode=mode)
    table = host.table()
    drop = table.rule("out", nf.counter(), nf.verdict(nf.DROP))
    table.apply(table.chain("out", nf.XFRM_OUT), drop)
    dropped = host.sent(outbound, 3)
    counted = host.node.replay(outbound).sent
    errors = host.node.errors()
    table.delete()
    left = host.sent(outbound, 2)
    assert dropped == [], f"{dropped} left past a drop at XFRM_OUT"
    assert counted == 3, f"after three drops at XFRM_OUT the last number is {counted}, expected 3"
    assert left == [4, 5], f"the numbers after three drops are {left}, expected 4, 5"
    assert errors == {}, f"a drop at XFRM_OUT counts as {errors}, expected no error of XFRM"


@pytest.mark.proof(red=NO_HOOK)
def test_a_sender_is_not_told_of_a_drop(host: Host) -> None:
    _, outbound = host.sas()
    host.counting(policy=nf.DROP)
    refused = host.node.emit(outbound, range(3))
    assert refused == 0, f"{refused} of 3 sendto() failed where XFRM_OUT drops, expected none"


@pytest.mark.proof(red=NO_HOOK)
def test_a_policy_drops_what_no_rule_decides(host: Host) -> None:
    inbound, outbound = host.sas()
    table = host.counting(policy=nf.DROP)
    host.take(inbound, 1, 2)
    left = host.sent(outbound, 2)
    seen = (host.node.delivered(), left)
    assert both(table) == (2, 2), f"the rules counted {both(table)}, expected (2, 2)"
    assert seen == ([], []), f"past the policy drop came and left {seen}, expected nothing"


@pytest.mark.proof(red=NO_HOOK)
@FAMILIES
def test_ipsec_expressions_read_the_sa(plug: Callable[..., Host], ends: Ends) -> None:
    host = plug(ends)
    inbound, outbound = host.sas()
    table = host.table()
    chains = (("in", nf.XFRM_IN, inbound), ("out", nf.XFRM_OUT, outbound))
    for name, hook, sa in chains:
        out = name == "out"
        wanted, other = (spi.to_bytes(4, "big") for spi in (sa.spi, sa.spi ^ 1))
        table.apply(
            table.chain(name, hook),
            table.rule(name, nf.sa_spi(out=out), nf.is_equal(wanted), nf.counter()),
            table.rule(name, nf.sa_spi(out=out), nf.is_equal(other), nf.counter()),
        )
    host.take(inbound, 1)
    host.sent(outbound, 1)
    seen = table.packets("in"), table.packets("out")
    assert seen == ((1, 0), (1, 0)), (
        f"rules for the SA's SPI and for another counted {seen}, expected (1, 0) at both hooks"
    )


@pytest.mark.proof(red=NO_HOOK)
@pytest.mark.parametrize(("hook", "out"), [(nf.XFRM_IN, True), (nf.XFRM_OUT, False)])
def test_the_wrong_direction_is_refused(host: Host, hook: int, *, out: bool) -> None:
    table = host.table()
    table.apply(table.chain("chain", hook))
    refused = refusal(table, table.rule("chain", nf.sa_spi(out=out), nf.counter()))
    assert refused == errno.EOPNOTSUPP, (
        f"'ipsec {'out' if out else 'in'}' at hook {hook} gave errno {refused}, expected EOPNOTSUPP"
    )


@pytest.mark.proof(red=NO_HOOK)
@pytest.mark.parametrize("hook", [nf.XFRM_IN, nf.XFRM_OUT])
def test_what_answers_a_packet_is_refused_there(host: Host, hook: int) -> None:
    table = host.table(nf.IP)
    table.apply(table.chain("chain", hook))
    refused = refusal(table, table.rule("chain", nf.reject()))
    assert refused == errno.EOPNOTSUPP, f"reject gave errno {refused}, expected EOPNOTSUPP"


@pytest.mark.proof(red=NO_HOOK)
@pytest.mark.parametrize("hook", [nf.XFRM_IN, nf.XFRM_OUT], ids=["in", "out"])
def test_what_a_queue_gives_back_goes_nowhere(host: Host, hook: int) -> None:
    table = host.table(nf.IP)
    table.apply(table.chain("chain", hook))
    refused = refusal(table, table.rule("chain", nf.queue(7)))
    if refused:
        # Since 6.1 the statement looks at where it is.
        assert refused == errno.EOPNOTSUPP, f"queue gave errno {refused}, expected EOPNOTSUPP"
        return
    inbound, outbound = host.sas()
    with contextlib.closing(Queue(host.namespace, 7)) as queue:
        host.take(inbound, 1, 2, 3)
        host.node.emit(outbound, range(3))
        given = queue.accept(3, seconds=PATIENCE)
    came, left = len(host.node.delivered()), len(esp_on(host.wire))
    went_on, aside = (came, left) if hook == nf.XFRM_IN else (left, came)
    assert given == 3, f"the queue at hook {hook} had {given} packets, expected 3"
    assert went_on == 0, f"{went_on} packets that a queue gave back went on, expected none"
    assert aside == 3, f"where there is no queue {aside} packets went on, expected 3"
    table.delete()
    host.take(inbound, 4)
    sent = host.sent(outbound, 1)
    seen_after = (host.node.delivered(1)[-1:], sent)
    assert seen_after == (["4"], [4]), f"without the queue came and left {seen_after}"


def refusal(table: nf.Table, *requests: nf.Request) -> int:
    """Return the errno of what is asked for, 0 when it was granted."""
    try:
        table.apply(*requests)
    except NetlinkRefusedError as refused:
        return refused.errno
    return 0


@pytest.mark.control
def test_no_other_number_and_no_other_family_has_such_a_hook(netns: Namespace) -> None:
    wanted = [
        *(
            (family, hook, "filter")
            for family in (nf.IP, nf.IP6, nf.INET)
            for hook in (6, 7, 10, 31)
        ),
        *((family, hook, "filter") for family in (nf.ARP, nf.BRIDGE, nf.NETDEV) for hook in (8, 9)),
        *((nf.IP, hook, kind) for hook in (8, 9) for kind in ("nat", "route")),
    ]
    granted = []
    for family, hook, kind in wanted:
        try:
            table = nf.Table(netns, family)
        except NetlinkRefusedError:
            continue
        if refusal(table, table.chain("chain", hook, kind=kind)) == 0:
            granted.append((family, hook, kind))
    assert granted == [], f"chains were granted for (family, hook, type) {granted}, expected none"


@pytest.mark.proof(red=NO_HOOK)
@FAMILIES
def test_device_and_headers_are_those_of_the_packet(plug: Callable[..., Host], ends: Ends) -> None:
    host = plug(ends)
    inbound, outbound = host.sas(mode=xs.MODE_TUNNEL)
    table = host.table(nf.IP if ends is IPV4 else nf.IP6)
    where, length = (12, 4) if ends is IPV4 else (8, 16)
    peer, cluster = (ipaddress.ip_address(end).packed for end in (ends.peer, ends.cluster))
    spi = inbound.spi.to_bytes(4, "big")
    table.apply(
        table.chain("in", nf.XFRM_IN),
        table.chain("out", nf.XFRM_OUT),
        table.rule("in", nf.in_device(Wire.DEVICE), nf.counter()),
        table.rule("in", nf.network_bytes(where, length), nf.is_equal(peer), nf.counter()),
        table.rule("in", nf.transport_bytes(0, 4), nf.is_equal(spi), nf.counter()),
        table.rule("out", nf.out_device(Wire.DEVICE), nf.counter()),
        table.rule("out", nf.network_bytes(where, length), nf.is_equal(cluster), nf.counter()),
    )
    host.take(inbound, 1)
    host.sent(outbound, 1)
    found = table.packets("in")
    assert found == (1, 1, 1), (
        f"at XFRM_IN rules for the device, the source and the SPI counted {found}, expected 1 each"
    )
    found = table.packets("out")
    assert found == (1, 1), (
        f"at XFRM_OUT rules for the device and the source counted {found}, expected 1 each"
    )


@pytest.mark.proof(red=NO_HOOK)
@BOTH_WAYS
@FAMILIES
def test_each_way_in_passes_it_once(plug: Callable[..., Host], ends: Ends, *, gro: bool) -> None:
    host = plug(ends, gro=gro)
    table = host.counting()
    table.apply(table.chain("before", nf.PRE_ROUTING), table.rule("before", *esp_only(ends)))
    inbound, _ = host.sas()
    host.take(inbound, *range(1, 6))
    delivered = host.node.delivered(5)
    assert len(delivered) == 5, f"{len(delivered)} of 5 were delivered"
    assert table.packets("in") == (5,), f"XFRM_IN counted {table.packets('in')}, expected 5"
    outer, expected = table.packets("before"), (0 if gro else 5,)
    assert outer == expected, f"prerouting saw {outer} ESP packets, expected {expected} on this way"


def esp_only(ends: Ends) -> tuple[bytes, ...]:
    """Return what counts ESP."""
    return nf.network_bytes(9 if ends is IPV4 else 6, 1), nf.is_equal(b"\x32"), nf.counter()


@pytest.mark.proof(red=NO_HOOK)
@BOTH_WAYS
def test_esp_in_udp_passes_it_once(plug: Callable[..., Host], *, gro: bool) -> None:
    host = plug(gro=gro)
    table = host.counting()
    outer = datagrams_in_prerouting(host.namespace, sealing.ENCAP_PORT)
    with encap_socket(host.namespace, gro=gro):
        inbound, outbound = host.sas(xa.encap(sealing.ENCAP_PORT, sealing.ENCAP_PORT))
        host.take(inbound, 1, 2)
        left = host.sent(outbound, 2)
        delivered = host.node.delivered(2)
    assert (delivered, left) == (["1", "2"], [1, 2]), f"came {delivered} and left {left}"
    assert both(table) == (2, 2), f"ESP in UDP was counted {both(table)} times, expected (2, 2)"
    expected = 0 if gro and GRO_OPENS_ESP_IN_UDP else 2
    assert outer() == expected, f"prerouting saw {outer()} packets of it, expected {expected}"


@pytest.mark.proof(red=NO_HOOK)
@FAMILIES
def test_asynchronous_crypto_passes_it_once(plug: Callable[..., Host], ends: Ends) -> None:
    host = plug(ends)
    with asynchronous() as driver:
        table = host.counting()
        inbound, outbound = host.sas()
        used = in_use(driver)
        host.take(inbound, 1, 2)
        host.node.emit(outbound, range(2))
        left: list[bytes] = []

        def both_left() -> bool:
            left.extend(esp_on(host.wire))
            return len(left) >= 2

        wait_until(both_left, seconds=PATIENCE)
        delivered = host.node.delivered(2)
        host.node.xfrm.flush()
    assert used, f"{driver} has no user, expected the SAs"
    assert (delivered, len(left)) == (["1", "2"], 2), f"came {delivered}, {len(left)} left"
    assert both(table) == (2, 2), f"it was counted {both(table)} times, expected (2, 2)"


@pytest.mark.proof(red=NO_HOOK)
def test_ah_passes_it(host: Host) -> None:
    table = host.counting()
    inbound = host.node.add(sealing.ah_sa(IPV4.peer, IPV4.cluster, 0x5151))
    host.take(inbound, 1, 2, 3)
    delivered = host.node.delivered(3)
    assert len(delivered) == 3, f"{len(delivered)} of 3 packets in AH were delivered"
    assert table.packets("in") == (3,), f"XFRM_IN counted {table.packets('in')} of 3 with AH"


@pytest.mark.proof(red=NO_HOOK)
def test_two_sas_on_a_packet_pass_it_twice(host: Host) -> None:
    table = host.counting()
    inner = host.node.outbound(1, 2)
    outer = sealing.ah_sa(IPV4.cluster, IPV4.peer, 0x5151)
    host.node.xfrm.add(inner)
    host.node.xfrm.add(replace(outer, replay_window=0))
    templates = [xs.Template(sa.source, sa.destination, sa.proto) for sa in (inner, outer)]
    selector = xs.Selector(f"{IPV4.cluster}/32", f"{IPV4.peer}/32")
    host.node.xfrm.add_policy(
        xs.Policy(selector, xs.DIR_OUT, templates[0], further=(templates[1],))
    )
    host.node.emit(inner, range(1))
    packet = host.wire.receive(lambda packet: packet[9] == socket.IPPROTO_AH)
    assert packet is not None, "no ESP in AH left within 5 s"
    assert table.packets("out") == (2,), (
        f"ESP in AH was counted {table.packets('out')} times at XFRM_OUT, expected 2"
    )


@pytest.mark.proof(red=NO_HOOK)
def test_nft_works_out_the_segment_of_an_sa(host: Host) -> None:
    total = 4
    table = host.table(nf.IP)
    spis = [number * 0x01234567 & 0xFFFFFFFF for number in range(1, 25)]
    expected = Counter(sa_segment(IPV4.cluster, spi, total) for spi in spis)
    hashed = (
        nf.network_bytes(16, 4, nf.WORD3),
        nf.sa_spi(out=False, register=nf.WORD3 + 1),
        nf.host_order(nf.WORD3, nf.WORD1, 8),
        nf.jenkins(nf.WORD1, nf.WORD3, length=8, total=total),
    )
    table.apply(table.chain("in", nf.XFRM_IN))
    for segment in range(total):
        wanted = nf.is_equal(struct.pack("=I", segment), nf.WORD3)
        table.apply(table.rule("in", *hashed, wanted, nf.counter()))
    table.apply(table.set_of_words("segments"), table.elements("segments", 0, 2))
    table.apply(table.rule("in", *hashed, nf.is_in("segments", nf.WORD3), nf.counter()))
    for spi in spis:
        sa = sealing.sa(IPV4.peer, IPV4.cluster, spi)
        host.node.xfrm.add(sa)
        host.wire.send(sealing.Sealer(sa).datagram(1, PORT))
    host.node.settle()
    found = table.packets("in")
    wanted_counts = (
        *(expected[segment] for segment in range(1, total + 1)),
        expected[1] + expected[3],
    )
    assert found == wanted_counts, (
        f"by nft's hash segments 1 to 4, and 1 and 3 as a set, have {found} SAs, expected"
        f" {wanted_counts}"
    )


@TWO_CPUS
@pytest.mark.proof(red=NO_HOOK)
def test_chains_come_and_go_under_traffic(host: Host) -> None:
    inbound, outbound = host.sas()
    sealer = host.node.sealer(inbound)
    left: list[bytes] = []
    with host.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((IPV4.cluster, 0))

        def send(number: int) -> None:
            host.wire.send(sealer.datagram(number, PORT))
            sender.sendto(b"out", (IPV4.peer, PORT))
            left.extend(esp_on(host.wire))

        with Stream(send) as stream:
            for _ in range(25):
                host.counting().delete()
    left += esp_on(host.wire)
    delivered = len(host.node.delivered(stream.sent))
    assert delivered == stream.sent, (
        f"while chains came and went {delivered} of {stream.sent} packets were delivered"
    )
    assert len(left) == stream.sent == host.node.replay(outbound).sent, (
        f"while chains came and went {len(left)} of {stream.sent} packets left"
    )


@pytest.mark.proof(red=NO_HOOK)
def test_another_namespace_has_its_own_chains(host: Host, other_netns: Namespace) -> None:
    table = host.counting(policy=nf.DROP)
    with lone_node(other_netns) as plugged:
        other = Host(*plugged)
        inbound, outbound = other.sas()
        other.take(inbound, 1)
        left = other.sent(outbound, 1)
        delivered = other.node.delivered(1)
    assert (delivered, left) == (["1"], [1]), f"elsewhere came {delivered} and left {left}"
    assert both(table) == (0, 0), f"the chains counted {both(table)} of another namespace's packets"


@pytest.mark.proof(red=NO_HOOK)
def test_a_namespace_goes_away_with_its_chains(other_netns: Namespace) -> None:
    with lone_node(other_netns) as plugged:
        host = Host(*plugged)
        host.counting()
        inbound, outbound = host.sas()
        host.take(inbound, 1, 2)
        host.sent(outbound, 2)
    assert goes_away(other_netns), "a namespace with chains at both hooks was there 20 s later"


@pytest.mark.control
@pytest.mark.parametrize("program", ["iptables-legacy", "ip6tables-legacy"])
def test_the_legacy_tools_work_as_ever(netns: Namespace, program: str) -> None:
    family = "ip6" if program.startswith("ip6") else "ip"
    address = "2001:db8::1" if family == "ip6" else "192.0.2.1"
    rule = ["INPUT", "-s", address, "-j", "DROP"]
    netns.run([program, "-A", *rule])
    added = netns.run([program, "-S", "INPUT"])
    netns.run([program, "-D", *rule])
    left = netns.run([program, "-S", "INPUT"])
    assert f"-s {address}" in added, f"{program} lists {added!r} after adding a rule"
    assert left.splitlines() == ["-P INPUT ACCEPT"], f"{program} lists {left!r} after deleting it"
    for table in ("mangle", "raw", "nat"):
        chains = netns.run([program, "-t", table, "-S"])
        assert "-P PREROUTING ACCEPT" in chains, f"{program} -t {table} lists {chains!r}"


@pytest.mark.control
@pytest.mark.parametrize(
    ("family", "level"),
    [(socket.AF_INET, socket.IPPROTO_IP), (socket.AF_INET6, socket.IPPROTO_IPV6)],
    ids=["ipv4", "ipv6"],
)
def test_what_a_stock_binary_asks_has_the_same_size(
    netns: Namespace, family: int, level: int
) -> None:
    wanted = b"filter".ljust(GETINFO_BYTES, b"\0")
    with netns.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as asking:
        info = get_info(asking, level, wanted)
    hooks = struct.unpack_from("=I", info, 32)[0]
    assert hooks == 0b01110, f"the filter table says it is at the hooks {hooks:#b}, expected 0b1110"


def get_info(asking: socket.socket, level: int, wanted: bytes) -> bytes:
    """IPT_SO_GET_INFO, which reads the name of the table out of the buffer it fills."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(wanted, len(wanted))
    length = ctypes.c_uint(len(wanted))
    if libc.getsockopt(asking.fileno(), level, IPT_SO_GET_INFO, buffer, ctypes.byref(length)) != 0:
        raise SetUpError(f"IPT_SO_GET_INFO: {errno.errorcode[ctypes.get_errno()]}")
    return buffer.raw
