# SPDX-License-Identifier: GPL-2.0-only
"""E8: what a node by xt_cluster does with packets of its own SAs, and with another node's.

The same over IPv4 and IPv6, whether segments are said by rules, by a set of
nf_tables or by the file. The peer's source address is of segment 2 of 2, the
SAs under test are of segment 1: what goes by the one cannot pass for the other.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import esp_in_udp as eu
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
    Cluster,
    Ends,
    Node,
    encap_socket,
    lone_node,
    two_nodes,
)
from cluster_cases import PACKETS, expect_a_delivers_and_b_follows
from namespaces import Namespace, wait_until
from netfilter import GRO_OPENS_ESP_IN_UDP, datagrams_in_prerouting
from segment_hash import sa_segment, source_segment, spi_in
from under_traffic import TWO_CPUS, Stream
from xt_cluster_node import Member, Members
from xt_cluster_rules import FILE, INVERT, RULE, SET, SPI, Match, mask_of, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENDS = pytest.mark.parametrize("ends", [IPV4, IPV6], ids=["ipv4", "ipv6"])
#: The set is hashed by nf_tables itself, by other expressions for each family.
WAYS_AND_ENDS = pytest.mark.parametrize(
    ("by", "ends"),
    [(RULE, IPV4), (SET, IPV4), (SET, IPV6), (FILE, IPV6)],
    ids=["rule-ipv4", "set-ipv4", "set-ipv6", "file-ipv6"],
)
BOTH_WAYS = pytest.mark.parametrize("gro", [False, True], ids=["slow", "gro"])
MODES = pytest.mark.parametrize(
    "mode", [xs.MODE_TRANSPORT, xs.MODE_TUNNEL], ids=["transport", "tunnel"]
)
#: What each proof with one node says where there is no cluster.
DELIVERED = r"the passive node delivered [1-9]\d* of \d+ packets, expected 0 "


@pytest.fixture
def plug(netns: Namespace) -> Iterator[Callable[..., Member]]:
    """Give a function that makes a node on a TUN device, through GRO or not."""
    with contextlib.ExitStack() as undo:

        def make(ends: Ends = IPV4, *, gro: bool = False) -> Member:
            return Member(undo.enter_context(lone_node(netns, gro=gro, ends=ends))[0])

        yield make


@pytest.fixture(scope="module", params=[IPV4, IPV6], ids=["ipv4", "ipv6"])
def topology(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two nodes and a peer, of one family, for the whole file."""
    with two_nodes(request.param) as made:
        yield made


@pytest.fixture
def members(topology: Cluster) -> Iterator[Members]:
    """Give both nodes without rules and SAs."""
    made = Members(topology)
    yield made
    made.leave()
    topology.clear()


def follows(member: Member, sa: xs.Sa, numbers: range, *, top: int, decrypted: int) -> None:
    """Let packets arrive at a passive node and assert that it only follows them."""
    delivered = member.takes(sa, numbers)
    assert delivered == 0, (
        f"the passive node delivered {delivered} of {len(numbers)} packets, expected 0"
        f" {member.remark}"
    )
    node = member.node
    seen = (node.replay(sa).received, node.dumped(sa).packets)
    assert seen == (top, decrypted), (
        f"its window is at {seen[0]} after {seen[1]} decrypted, expected {top} after {decrypted}"
    )
    errors = node.errors()
    assert errors == {}, f"following counts as {errors}, expected no error of XFRM"


@pytest.mark.proof(red=r"A delivered 160 and B 160, expected 160 and 0 ")
@pytest.mark.parametrize(
    ("by", "mode"),
    [(RULE, xs.MODE_TRANSPORT), (SET, xs.MODE_TUNNEL), (FILE, xs.MODE_TUNNEL)],
    ids=["rule-transport", "set-tunnel", "file-tunnel"],
)
def test_one_node_delivers_and_the_other_follows(members: Members, by: str, mode: int) -> None:
    members.join(2, ((1,), (2,)), by)
    cluster = members.cluster
    sa = cluster.add(cluster.a.inbound(1, 2, mode=mode))
    expect_a_delivers_and_b_follows(cluster, sa, f" {members.remark}")


@pytest.mark.proof(red=r"of segment 3 of 4 A delivered 20 and B 20, expected 20 and 0 ")
def test_each_of_several_segments_has_one_node(members: Members) -> None:
    members.join(4, ((1, 3), (2, 4)), RULE)
    cluster = members.cluster
    for segment, expected in ((3, (20, 0)), (4, (0, 20)), (1, (20, 0)), (2, (0, 20))):
        sa = cluster.add(cluster.a.inbound(segment, 4))
        sealer = cluster.a.sealer(sa)
        cluster.arrive(sealer.datagram(number, PORT) for number in range(1, 21))
        seen = tuple(
            len(node.delivered(wanted))
            for node, wanted in zip(cluster.nodes, expected, strict=True)
        )
        assert seen == expected, (
            f"of segment {segment} of 4 A delivered {seen[0]} and B {seen[1]},"
            f" expected {expected[0]} and {expected[1]} {members.remark}"
        )
        for node in cluster.nodes:
            node.forget()


@pytest.mark.proof(red=DELIVERED)
@ENDS
@BOTH_WAYS
@MODES
def test_esp_is_followed(plug: Callable[..., Member], ends: Ends, mode: int, *, gro: bool) -> None:
    member = plug(ends, gro=gro).join(2, 2)
    sa = member.node.add(member.node.inbound(1, 2, mode=mode))
    follows(member, sa, range(1, 65), top=64, decrypted=4)
    member.own(1, 2)
    delivered = member.takes(sa, range(65, 129), expected=64)
    assert delivered == 64, f"taken over, {delivered} of 64 packets were delivered"


@pytest.mark.proof(red=DELIVERED)
@ENDS
@BOTH_WAYS
def test_esp_in_udp_is_followed(plug: Callable[..., Member], ends: Ends, *, gro: bool) -> None:
    member = plug(ends, gro=gro).join(2, 2)
    node = member.node
    plain = node.inbound(1, 2)
    encap = xa.encap(sealing.ENCAP_PORT, sealing.ENCAP_PORT)
    sa = node.add(replace(plain, attributes=(*plain.attributes, encap)))
    sealer = sealing.Sealer(plain)
    outer = datagrams_in_prerouting(node.namespace, sealing.ENCAP_PORT)
    with udp_encap(node, gro=gro):
        for number in range(1, 65):
            node.link.send(in_udp(sealer.datagram(number, PORT)))
        delivered = len(node.delivered())
        assert delivered == 0, (
            f"the passive node delivered {delivered} of 64 packets, expected 0 {member.remark}"
        )
        seen = (node.replay(sa).received, node.dumped(sa).packets)
        assert seen == (64, 4), f"its window and its count are {seen}, expected (64, 4)"
        member.own(1, 2)
        for number in range(65, 129):
            node.link.send(in_udp(sealer.datagram(number, PORT)))
        delivered = len(node.delivered(64))
    assert delivered == 64, f"taken over, {delivered} of 64 packets were delivered"
    expected = 0 if gro and GRO_OPENS_ESP_IN_UDP else 128
    assert outer() == expected, (
        f"prerouting saw {outer()} packets of ESP in UDP, expected {expected} on this way"
    )


def udp_encap(node: Node, *, gro: bool) -> socket.socket:
    """Open the socket through which ESP in UDP arrives."""
    if node.ends is IPV4:
        return encap_socket(node.namespace, gro=gro)
    return eu.encap_socket(node.namespace, zero_checksums=True, gro=gro)


def in_udp(packet: bytes) -> bytes:
    """Return a packet with its ESP in UDP."""
    return eu.in_udp(packet) if packet[0] >> 4 == 6 else sealing.in_udp(packet)


@pytest.mark.proof(red=DELIVERED)
@WAYS_AND_ENDS
def test_ah_is_followed(plug: Callable[..., Member], by: str, ends: Ends) -> None:
    member = plug(ends).join(2, 2, by=by)
    made = member.node.inbound(1, 2)
    sa = member.node.add(sealing.ah_sa(made.source, made.destination, made.spi))
    follows(member, sa, range(1, 65), top=64, decrypted=4)


@pytest.mark.proof(red=DELIVERED)
@ENDS
def test_asynchronous_crypto_follows(plug: Callable[..., Member], ends: Ends) -> None:
    member = plug(ends).join(2, 2)
    node = member.node
    with asynchronous() as driver:
        sa = node.add(node.inbound(1, 2))
        used = in_use(driver)
        sealer = node.sealer(sa)
        tops = []
        for number in range(1, 65):
            node.link.send(sealer.datagram(number, PORT))
            if number % 16 == 0:
                # Else the next ones are far enough ahead as well.
                reached = (number,)
                wait_until(lambda: (node.replay(sa).received,) == reached, seconds=PATIENCE)  # noqa: B023
                tops.append(node.replay(sa).received)
        delivered = len(node.delivered())
        decrypted = node.dumped(sa).packets
        node.xfrm.flush()
    assert used, f"{driver} has no user, expected the SA"
    assert delivered == 0, (
        f"the passive node delivered {delivered} of 64 packets, expected 0 {member.remark}"
    )
    assert (tops, decrypted) == ([16, 32, 48, 64], 4), (
        f"by cryptd its window went {tops}, {decrypted} decrypted; expected every 16th"
    )


@pytest.mark.proof(red=DELIVERED)
@ENDS
def test_what_is_forged_does_not_move_the_window(plug: Callable[..., Member], ends: Ends) -> None:
    member = plug(ends).join(2, 2)
    node = member.node
    sa = node.add(node.inbound(1, 2))
    follows(member, sa, range(1, 33), top=32, decrypted=2)
    sealer = node.sealer(sa)
    for number in (1032, 40, 20):
        node.link.send(sealer.datagram(number, PORT, forged=True))
    node.settle()
    seen = (node.replay(sa).received, node.dumped(sa).forged)
    assert seen == (32, 1), (
        f"after forged packets the window is at {seen[0]} and {seen[1]} cost crypto,"
        " expected 32 and 1"
    )
    node.link.send(sealer.datagram(1032, PORT))
    node.settle()
    top = node.replay(sa).received
    assert top == 1032, f"the genuine packet 1000 ahead left the window at {top}, expected 1032"


@pytest.mark.proof(red=DELIVERED)
@ENDS
@pytest.mark.parametrize("kind", ["esp", "ah"])
def test_64_bits_are_followed_over_their_lower_half(
    plug: Callable[..., Member], ends: Ends, kind: str
) -> None:
    edge = 1 << 32
    member = plug(ends).join(2, 2)
    made = member.node.inbound(1, 2)
    if kind == "ah":
        made = sealing.ah_sa(made.source, made.destination, made.spi)
    sa = member.node.add(sealing.with_esn(made, sequence=edge - 40))
    follows(member, sa, range(edge - 39, edge + 60), top=edge + 56, decrypted=6)


@pytest.mark.proof(red=DELIVERED)
@ENDS
@pytest.mark.parametrize(
    ("window", "top", "decrypted"), [(0, 0, 0), (1024, 64, 4)], ids=["none", "large"]
)
def test_any_window_is_followed(
    plug: Callable[..., Member], ends: Ends, window: int, top: int, decrypted: int
) -> None:
    member = plug(ends).join(2, 2)
    made = member.node.inbound(1, 2, window=0)
    if window:
        made = replace(made, attributes=(*made.attributes, xa.esn(window=window)))
    follows(member, member.node.add(made), range(1, 65), top=top, decrypted=decrypted)


@pytest.mark.proof(red=DELIVERED)
@ENDS
def test_order_and_loss_do_not_matter(plug: Callable[..., Member], ends: Ends) -> None:
    member = plug(ends).join(2, 2)
    node = member.node
    sa = node.add(node.inbound(1, 2))
    sealer = node.sealer(sa)
    # The 16th is lost; pairs come the wrong way round.
    numbers = [number for number in range(1, PACKETS + 1) if number != 16]
    numbers[0::2], numbers[1::2] = [*numbers[1::2], numbers[-1]], numbers[0:-1:2]
    top = decrypted = 0
    for number in numbers:
        node.link.send(sealer.datagram(number, PORT))
        if number - top >= 16:
            top, decrypted = number, decrypted + 1
    delivered = len(node.delivered())
    assert delivered == 0, (
        f"the passive node delivered {delivered} of 159 packets, expected 0 {member.remark}"
    )
    seen = (node.replay(sa).received, node.dumped(sa).packets)
    assert seen == (top, decrypted), f"window and count are {seen}, expected {(top, decrypted)}"


@pytest.mark.proof(red=DELIVERED)
@WAYS_AND_ENDS
def test_what_was_received_is_refused_after_a_failover(
    plug: Callable[..., Member], ends: Ends, by: str
) -> None:
    member = plug(ends).join(2, 2, by=by)
    sa = member.node.add(member.node.inbound(1, 2))
    follows(member, sa, range(1, PACKETS + 1), top=PACKETS, decrypted=10)
    member.own(1, 2)
    delivered = member.takes(sa, range(1, PACKETS + 1))
    assert delivered == 0, f"{delivered} of {PACKETS} old packets were delivered, expected 0"
    delivered = member.takes(sa, [PACKETS + 1], expected=1)
    assert delivered == 1, f"a new packet was delivered {delivered} times, expected once"


@pytest.mark.proof(red=DELIVERED)
@ENDS
def test_the_last_of_32_segments(plug: Callable[..., Member], ends: Ends) -> None:
    member = plug(ends).join(32, 32)
    other = member.node.add(member.node.inbound(31, 32))
    follows(member, other, range(1, 33), top=32, decrypted=2)
    own = member.node.add(member.node.inbound(32, 32))
    delivered = member.takes(own, range(1, 33), expected=32)
    assert delivered == 32, f"of segment 32, its own, {delivered} of 32 packets were delivered"


@pytest.mark.proof(red=DELIVERED)
@WAYS_AND_ENDS
def test_the_seed_is_heeded(plug: Callable[..., Member], ends: Ends, by: str) -> None:
    seed = 0xC0FFEE
    member = plug(ends)
    node = member.node
    made = node.inbound(1, 2)
    there = sa_segment(made.destination, made.spi, 2, seed)
    member.join(2, 3 - there, by=by, seed=seed)
    follows(member, node.add(made), range(1, 33), top=32, decrypted=2)
    member.own(there)
    delivered = member.takes(made, range(33, 65), expected=32)
    assert delivered == 32, f"of its own segment {delivered} of 32 packets were delivered"


@pytest.mark.proof(red=DELIVERED)
@WAYS_AND_ENDS
def test_other_addresses_are_left_to_every_node(
    plug: Callable[..., Member], ends: Ends, by: str
) -> None:
    member = plug(ends).join(2, by=by)
    node = member.node
    sa = node.add(node.inbound(1, 2))
    follows(member, sa, range(1, 33), top=32, decrypted=2)
    elsewhere = sealing.sa(ends.peer, node.own, spi_in(node.own, 1, 2))
    node.xfrm.add(elsewhere)
    for number in range(1, 33):
        node.link.send(sealing.Sealer(elsewhere).datagram(number, PORT))
    delivered = len(node.delivered(32))
    assert delivered == 32, f"of an SA to another address {delivered} of 32 were delivered"


@pytest.mark.proof(red=r"without an SA it delivered \[b'plain'\], expected \[\] ")
@WAYS_AND_ENDS
def test_packets_without_an_sa_go_by_their_source(
    plug: Callable[..., Member], ends: Ends, by: str
) -> None:
    own = source_segment(ends.peer, 2)
    member = plug(ends).join(2, 3 - own, by=by)
    node = member.node
    packet = sealing.udp_packet(ends.peer, ends.cluster, PORT, b"plain")
    node.link.send(packet)
    got = [text.encode() for text in node.delivered()]
    assert got == [], f"without an SA it delivered {got}, expected [] {member.remark}"
    member.own(own)
    node.link.send(packet)
    got = [text.encode() for text in node.delivered(1)]
    assert got == [b"plain"], f"of its own segment it delivered {got}, expected it"


@pytest.mark.proof(red=DELIVERED)
@ENDS
def test_fragments_of_esp_are_one_packet(plug: Callable[..., Member], ends: Ends) -> None:
    member = plug(ends).join(2, 2)
    node = member.node
    sa = node.add(node.inbound(1, 2))
    sealer = node.sealer(sa)

    def arrive(number: int) -> None:
        whole = sealer.datagram(number, PORT, b"f" * 1800)
        parts = eu.fragments(whole) if ends is IPV6 else fragments4(whole)
        for part in parts:
            node.link.send(part)

    for number in range(1, 33):
        arrive(number)
    delivered = len(node.delivered())
    assert delivered == 0, (
        f"the passive node delivered {delivered} of 32 packets, expected 0 {member.remark}"
    )
    top = node.replay(sa).received
    assert top == 32, f"after 32 packets in fragments its window is at {top}, expected 32"
    member.own(1)
    arrive(33)
    delivered = len(node.delivered(1))
    assert delivered == 1, f"taken over, a packet in fragments was delivered {delivered} times"


def fragments4(whole: bytes) -> list[bytes]:
    """Return an IPv4 packet in two parts, with the checksums of their own."""
    payload, cut = whole[20:], 1200
    made = []
    for offset, part in ((0, payload[:cut]), (cut, payload[cut:])):
        source, to = (socket.inet_ntoa(whole[at : at + 4]) for at in (12, 16))
        head = bytearray(sealing.ip_packet(source, to, whole[9], part)[:20])
        head[4:6] = b"\x0e\x08"
        field = offset // 8 | (0x2000 if offset == 0 else 0)
        head[6:8] = field.to_bytes(2, "big")
        head[10:12] = bytes(2)
        total: int = sum(int.from_bytes(head[at : at + 2], "big") for at in range(0, 20, 2))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        head[10:12] = (~total & 0xFFFF).to_bytes(2, "big")
        made.append(bytes(head) + part)
    return made


@TWO_CPUS
@pytest.mark.proof(red=DELIVERED)
@ENDS
def test_rule_replacements_lose_nothing(plug: Callable[..., Member], ends: Ends) -> None:
    member = plug(ends).join(2, 2, by=FILE)
    node = member.node
    other, own = (node.add(node.inbound(segment, 2)) for segment in (1, 2))
    others, owns = node.sealer(other), node.sealer(own)

    def send(number: int) -> None:
        node.link.send(others.datagram(number, PORT, b"other"))
        node.link.send(owns.datagram(number, PORT))

    with Stream(send) as stream:
        stream.more(20)
        for _ in range(50 if not member.refused else 0):
            member.rules.switch((), ())
        stream.more(20)
    came = node.delivered(stream.sent)
    strays = came.count("other")
    assert strays == 0, (
        f"the passive node delivered {strays} of {stream.sent} packets, expected 0 {member.remark}"
    )
    assert len(came) == stream.sent, f"of {stream.sent} of its own {len(came)} were delivered"
    behind = stream.sent - node.replay(other).received
    assert 0 <= behind < 16, f"the other's window is {behind} behind, expected less than 16"
    owned = member.rules.owned()
    assert owned == (2,), f"the file has {owned} after 50 replacements, expected (2,)"
    member.rules.leave()
    gone = wait_until(lambda: not exists(member), seconds=PATIENCE)
    assert gone, f"{member.rules.file} is still there without a rule, expected it gone"


def exists(member: Member) -> bool:
    """Tell whether the file is there."""
    with member.node.namespace.inside():
        return member.rules.file.exists()


@pytest.mark.proof(red=DELIVERED)
@WAYS_AND_ENDS
def test_without_rules_it_is_a_host_again(plug: Callable[..., Member], ends: Ends, by: str) -> None:
    member = plug(ends).join(2, 2, by=by)
    sa = member.node.add(member.node.inbound(1, 2))
    follows(member, sa, range(1, 33), top=32, decrypted=2)
    member.rules.leave()
    delivered = member.takes(sa, range(33, 65), expected=32)
    assert delivered == 32, f"without rules {delivered} of 32 packets were delivered"


@pytest.mark.proof(red=r"a filter chain at hook 8 refused: Operation not supported")
@ENDS
def test_the_hooks_decide_by_the_hash(plug: Callable[..., Member], ends: Ends) -> None:
    node = plug(ends).node
    total, segments = 8, (1, 4, 6)
    table = nf.Table(node.namespace, nf.IP if ends is IPV4 else nf.IP6)
    others = Match(total, mask_of(segments), 7, SPI | INVERT).expression()
    chain = table.chain("verify", nf.XFRM_IN)
    table.apply(chain, table.rule("verify", others, nf.counter(), verify()))
    sas = [sealing.sa(ends.peer, ends.cluster, 0x5000 + 77 * number) for number in range(100)]
    expected = []
    for sa in sas:
        node.xfrm.add(sa)
        if sa_segment(sa.destination, sa.spi, total, 7) in segments:
            expected.append(str(sa.spi))
        node.link.send(sealing.Sealer(sa).datagram(1, PORT, str(sa.spi).encode()))
    got = node.delivered(len(expected))
    assert got == expected, f"of 100 SAs it delivered {got}, expected {expected}"
    counted = table.packets("verify")
    assert counted == (100 - len(expected),), f"{counted} were for others, expected the rest"


@pytest.mark.control
@ENDS
@BOTH_WAYS
def test_who_is_responsible_delivers_all(
    plug: Callable[..., Member], ends: Ends, *, gro: bool
) -> None:
    member = plug(ends, gro=gro).join(2, 1)
    sa = member.node.add(member.node.inbound(1, 2))
    delivered = member.takes(sa, range(1, PACKETS + 1), expected=PACKETS)
    seen = (delivered, member.node.replay(sa).received)
    assert seen == (PACKETS, PACKETS), f"delivered and window are {seen}, expected 160 and 160"
