# SPDX-License-Identifier: GPL-2.0-only
"""E7: what a node does with packets of SAs that are its own, and with another node's.

The peer's source address is of segment 2 of 2, and the SAs under test mostly of
segment 1: what goes by the one cannot pass for going by the other.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

import sealing
import xfrm_attributes as xa
import xfrm_structures as xs
from async_crypto import asynchronous, in_use
from cluster import (
    IPV4,
    PATIENCE,
    PORT,
    Cluster,
    Node,
    Wired,
    encap_socket,
    two_nodes,
)
from cluster_cases import PACKETS, expect_a_delivers_and_b_follows
from namespaces import wait_until
from netfilter import GRO_OPENS_ESP_IN_UDP, datagrams_in_prerouting
from segment_hash import sa_segment, source_segment, spi_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

EVERY = 16
MODES = pytest.mark.parametrize(
    "mode", [xs.MODE_TRANSPORT, xs.MODE_TUNNEL], ids=["transport", "tunnel"]
)
BOTH_WAYS = pytest.mark.parametrize("gro", [False, True], ids=["slow", "gro"])
#: What each proof with one node says where there is no cluster.
DELIVERED = r"the passive node delivered [1-9]\d* of \d+ packets, expected 0 "


@pytest.fixture(scope="module")
def topology() -> Iterator[Cluster]:
    """Two nodes and a peer for the whole file."""
    with two_nodes() as made:
        yield made


@pytest.fixture
def cluster(topology: Cluster) -> Iterator[Cluster]:
    """Give the nodes without rules and SAs."""
    yield topology
    topology.clear()


@pytest.fixture(scope="module")
def wired() -> Iterator[Wired]:
    """Give the nodes on wires of the whole file."""
    with contextlib.closing(Wired()) as nodes:
        yield nodes


@pytest.fixture
def plug(wired: Wired) -> Iterator[Callable[..., Node]]:
    """Give a function that gives a node whose packets go through GRO or not."""
    yield lambda *, gro=False: wired.node(gro=gro)[0]
    wired.clear()


@pytest.fixture
def passive(plug: Callable[..., Node]) -> Node:
    """Give a node that owns segment 2 of 2."""
    node = plug()
    node.rule(2)
    node.take_over(2)
    return node


@dataclass(frozen=True)
class Followed:
    """Where a node that only follows has to be after some packets."""

    top: int
    decrypted: int

    @classmethod
    def through(cls, sequences: Iterable[int], top: int = 0) -> Followed:
        """Work it out by the rule: 16 or more ahead of the window is decrypted."""
        decrypted = 0
        for sequence in sequences:
            if sequence - top >= EVERY:
                top, decrypted = sequence, decrypted + 1
        return cls(top, decrypted)


def follows(node: Node, sa: xs.Sa, sequences: list[int], top: int = 0) -> None:
    """Let packets arrive at a passive node and assert that it only follows them."""
    sealer = node.sealer(sa)
    for sequence in sequences:
        node.link.send(sealer.datagram(sequence, PORT))
    delivered = len(node.delivered())
    assert delivered == 0, (
        f"the passive node delivered {delivered} of {len(sequences)} packets, expected 0"
        f"{node.remark}"
    )
    seen = Followed(node.replay(sa).received, node.dumped(sa).packets)
    expected = Followed.through(sequences, top)
    assert seen == expected, f"the passive node has {seen}, expected {expected}"
    errors = node.errors()
    assert errors == {}, f"following counts as {errors}, expected no error of XFRM"


@pytest.mark.proof(red=r"A delivered 160 and B 160, expected 160 and 0 ")
@MODES
def test_one_node_delivers_and_the_other_follows(cluster: Cluster, mode: int) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    cluster.b.take_over(2)
    sa = cluster.add(cluster.a.inbound(1, 2, mode=mode))
    expect_a_delivers_and_b_follows(cluster, sa, cluster.b.remark)


@pytest.mark.proof(red=r"by segment A delivered \[.*\] and B \[.*\] of 20, expected \[20")
@pytest.mark.parametrize("total", [2, 4, 8])
def test_each_of_several_segments_has_one_node(cluster: Cluster, total: int) -> None:
    cluster.rule(total)
    segments = range(1, total + 1)
    cluster.a.take_over(*segments[::2])
    cluster.b.take_over(*segments[1::2])
    sas = [cluster.add(cluster.a.inbound(segment, total)) for segment in segments]
    counts: list[list[int]] = []
    for sa in sas:
        sealer = cluster.a.sealer(sa)
        cluster.arrive(sealer.datagram(number, PORT) for number in range(1, 21))
        counts.append([])
        for node in cluster.nodes:
            counts[-1].append(len(node.delivered(20 * (len(counts[-1]) == (len(counts) + 1) % 2))))
            node.forget()
    a, b = ([count[which] for count in counts] for which in (0, 1))
    expected = [20 * (segment % 2) for segment in segments]
    assert (a, b) == (expected, [20 - count for count in expected]), (
        f"by segment A delivered {a} and B {b} of 20, expected {expected} and the rest"
        f"{cluster.b.remark}"
    )
    windows = {node.replay(sa).received for node in cluster.nodes for sa in sas}
    assert windows == {16, 20}, f"the windows are at {windows}, expected 20, and 16 where passive"


@pytest.mark.proof(red=r"A delivered 20 and B 20, expected 20 and 0 ")
def test_of_one_segment_one_node_is_active(cluster: Cluster) -> None:
    cluster.rule(1)
    cluster.a.take_over(1)
    sa = cluster.add(cluster.a.inbound(1, 1))
    sealer = cluster.a.sealer(sa)
    cluster.arrive(sealer.datagram(number, PORT) for number in range(1, 21))
    a, b = len(cluster.a.delivered(20)), len(cluster.b.delivered())
    assert (a, b) == (20, 0), f"A delivered {a} and B {b}, expected 20 and 0{cluster.b.remark}"


@pytest.mark.proof(
    red=r"owned by nobody and then by both it was delivered 40 and 40 times, expected 0"
)
def test_of_all_and_of_no_segment(cluster: Cluster) -> None:
    cluster.rule(2)
    sa = cluster.add(cluster.a.inbound(1, 2))
    sealer = cluster.a.sealer(sa)
    delivered = []
    for first in (1, 21):
        cluster.arrive(sealer.datagram(number, PORT) for number in range(first, first + 20))
        wanted = 20 if first > 1 else 0
        delivered.append(sum(len(node.delivered(wanted)) for node in cluster.nodes))
        for node in cluster.nodes:
            node.forget()
            if first == 1:
                node.take_over(1, 2)
    assert delivered == [0, 40], (
        f"owned by nobody and then by both it was delivered {delivered[0]} and {delivered[1]}"
        f" times, expected 0 and 40{cluster.a.remark}"
    )


WITHOUT_THE_16TH = [number for number in range(1, PACKETS + 1) if number != EVERY]
WITHOUT_ANY_16TH = [number for number in range(1, PACKETS + 1) if number % EVERY]


def disordered() -> list[int]:
    """Return 1 to 160, each at most 8 places from where it belongs."""
    generator = random.Random(7)
    return sorted(range(1, PACKETS + 1), key=lambda number: number + generator.uniform(0, 8))


@pytest.mark.proof(red=DELIVERED)
@pytest.mark.parametrize(
    "sequences",
    [
        list(range(1, PACKETS + 1)),
        WITHOUT_THE_16TH,
        WITHOUT_ANY_16TH,
        disordered(),
        [*range(1, 20), *range(1019, 1040), *range(20, 40)],
        [0x7FFFFFF0, 0x7FFFFFF8, 0x80000000, 0x80000008, 0xFFFFFFFF],
    ],
    ids=["in-order", "without-the-16th", "without-any-16th", "disordered", "a-gap", "far-away"],
)
def test_what_is_not_its_own_is_followed(passive: Node, sequences: list[int]) -> None:
    sa = passive.add(passive.inbound(1, 2))
    follows(passive, sa, sequences)


@pytest.mark.proof(red=DELIVERED)
@BOTH_WAYS
@MODES
@pytest.mark.parametrize("kind", ["esp", "esp-in-udp", "ah"])
def test_every_way_in_is_followed(
    plug: Callable[..., Node], kind: str, mode: int, *, gro: bool
) -> None:
    node = plug(gro=gro)
    node.rule(2)
    node.take_over(2)
    encap = (xa.encap(sealing.ENCAP_PORT, sealing.ENCAP_PORT),) if kind == "esp-in-udp" else ()
    sa = node.inbound(1, 2, *encap, mode=mode)
    if kind == "ah":
        sa = sealing.ah_sa(sa.source, sa.destination, sa.spi, mode=mode)
    node.add(sa)
    outer = datagrams_in_prerouting(node.namespace, sealing.ENCAP_PORT)
    with encap_socket(node.namespace, gro=gro):
        follows(node, sa, list(range(1, 65)))
        node.take_over(1)
        sealer = node.sealer(sa)
        for number in range(65, 129):
            node.link.send(sealer.datagram(number, PORT))
        delivered = [int(number) for number in node.delivered(64)]
    assert delivered == list(range(65, 129)), (
        f"taken over, {len(delivered)} of 64 packets were delivered, from {delivered[:1]}"
    )
    if kind == "esp-in-udp":
        expected = 0 if gro and GRO_OPENS_ESP_IN_UDP else 128
        assert outer() == expected, (
            f"prerouting saw {outer()} packets of ESP in UDP, expected {expected} on this way"
        )


@pytest.mark.proof(red=DELIVERED)
def test_asynchronous_crypto_follows(passive: Node) -> None:
    with asynchronous() as driver:
        sa = passive.add(passive.inbound(1, 2))
        used = in_use(driver)
        sealer = passive.sealer(sa)
        for number in range(1, 65):
            passive.link.send(sealer.datagram(number, PORT))
            if number % EVERY == 0:
                # Else the next ones are far enough ahead as well.
                wait_until(lambda: passive.replay(sa).received == number, seconds=PATIENCE)  # noqa: B023
        delivered = len(passive.delivered())
        seen = Followed(passive.replay(sa).received, passive.dumped(sa).packets)
        passive.xfrm.flush()
    assert used, f"{driver} has no user, expected the SA"
    assert delivered == 0, (
        f"the passive node delivered {delivered} of 64 packets, expected 0{passive.remark}"
    )
    assert seen == Followed(64, 4), f"by cryptd the passive node has {seen}, expected (64, 4)"


@pytest.mark.proof(red=DELIVERED)
def test_what_is_forged_does_not_move_the_window(passive: Node) -> None:
    sa = passive.add(passive.inbound(1, 2))
    follows(passive, sa, list(range(1, 33)))
    sealer = passive.sealer(sa)
    passive.link.send(sealer.datagram(1032, PORT, forged=True))
    passive.settle()
    top, forged = passive.replay(sa).received, passive.dumped(sa).forged
    assert (top, forged) == (32, 1), (
        f"after a forged packet 1000 ahead the window is at {top} and {forged} were refused,"
        " expected 32 and 1"
    )
    passive.link.send(sealer.datagram(40, PORT, forged=True))
    passive.link.send(sealer.datagram(20, PORT, forged=True))
    passive.settle()
    top, forged = passive.replay(sa).received, passive.dumped(sa).forged
    assert (top, forged) == (32, 1), (
        f"forged packets less than 16 ahead cost crypto: {forged} refused, window at {top}"
    )
    passive.link.send(sealer.datagram(1032, PORT))
    passive.settle()
    top = passive.replay(sa).received
    assert top == 1032, f"the genuine packet 1000 ahead left the window at {top}, expected 1032"


@pytest.mark.proof(red=DELIVERED)
@pytest.mark.parametrize("kind", ["esp", "ah"])
def test_64_bits_are_followed_over_their_lower_half(passive: Node, kind: str) -> None:
    edge = 1 << 32
    sa = passive.inbound(1, 2)
    if kind == "ah":
        sa = sealing.ah_sa(sa.source, sa.destination, sa.spi)
    sa = passive.add(sealing.with_esn(sa, sequence=edge - 40))
    follows(passive, sa, list(range(edge - 39, edge + 60)), top=edge - 40)
    passive.take_over(1)
    passive.link.send(passive.sealer(sa).datagram(edge + 60, PORT))
    delivered = passive.delivered(1)
    assert delivered == [str(edge + 60)], f"taken over, {delivered} came, expected [{edge + 60}]"


@pytest.mark.proof(red=DELIVERED)
@pytest.mark.parametrize(("window", "esn"), [(32, True), (1024, False)], ids=["esn", "large"])
def test_none_of_the_last_numbers_comes_again_after_a_takeover(
    passive: Node, window: int, *, esn: bool
) -> None:
    made = passive.inbound(1, 2, window=0)
    if esn:
        made = sealing.with_esn(made, window=window)
    else:
        made = replace(made, attributes=(*made.attributes, xa.esn(window=window)))
    sa = passive.add(made)
    last = window + EVERY
    follows(passive, sa, list(range(1, last + 1)))
    passive.take_over(1)
    sealer = passive.sealer(sa)
    for number in range(EVERY + 1, last + 1):
        passive.link.send(sealer.datagram(number, PORT))
    came = passive.delivered()
    assert came == [], (
        f"of the {window} numbers in the window {len(came)} were delivered after the takeover,"
        f" {came[:5]}, expected none"
    )
    passive.link.send(sealer.datagram(last + 1, PORT))
    came = passive.delivered(1)
    assert came == [str(last + 1)], f"of a new packet came {came}, expected it"


@pytest.mark.proof(red=DELIVERED)
def test_a_large_window_is_followed(passive: Node) -> None:
    made = passive.inbound(1, 2, window=0)
    replay = xa.esn(window=1024)
    sa = passive.add(xs.Sa(made.source, made.destination, made.spi, replay_window=0,
                           attributes=(*made.attributes, replay)))  # fmt: skip
    follows(passive, sa, list(range(1, 100)))


@pytest.mark.proof(red=DELIVERED)
def test_without_a_window_nothing_is_decrypted(passive: Node) -> None:
    sa = passive.add(passive.inbound(1, 2, window=0))
    sealer = passive.sealer(sa)
    for number in range(1, 65):
        passive.link.send(sealer.datagram(number, PORT))
    delivered = len(passive.delivered())
    assert delivered == 0, (
        f"the passive node delivered {delivered} of 64 packets, expected 0{passive.remark}"
    )
    decrypted = passive.dumped(sa).packets
    assert decrypted == 0, f"an SA without a window decrypted {decrypted} packets, expected 0"


@pytest.mark.proof(
    red=r"packets without an SA: [1-9] delivered by who is not responsible, expected 0 "
)
def test_packets_without_an_sa_go_by_their_source(plug: Callable[..., Node]) -> None:
    node = plug()
    node.rule(2)
    own = source_segment(IPV4.peer, 2)
    node.take_over(3 - own)
    packet = sealing.udp_packet(IPV4.peer, IPV4.cluster, PORT, b"plain")
    node.link.send(packet)
    delivered = len(node.delivered())
    assert delivered == 0, (
        f"packets without an SA: {delivered} delivered by who is not responsible, expected 0"
        f"{node.remark}"
    )
    node.take_over(own)
    # Conntrack has forgotten the packet that was dropped before it was confirmed.
    node.link.send(packet)
    delivered = len(node.delivered(1))
    assert delivered == 1, f"packets without an SA: {delivered} delivered by who is, expected 1"


@pytest.mark.proof(
    red=r"IKE over port 4500: [1-9] delivered by who is not responsible, expected 0 "
)
def test_ike_over_port_4500_goes_by_its_source(passive: Node) -> None:
    passive.give_up(2)
    passive.take_over(1)
    marker = bytes(4)
    with encap_socket(passive.namespace) as daemon:
        daemon.settimeout(0)
        packet = sealing.udp_packet(IPV4.peer, IPV4.cluster, sealing.ENCAP_PORT, marker + b"IKE")
        passive.link.send(packet)
        passive.settle()
        got = received(daemon)
        assert len(got) == 0, (
            f"IKE over port 4500: {len(got)} delivered by who is not responsible, expected 0"
            f"{passive.remark}"
        )
        passive.take_over(2)
        passive.link.send(packet)
        passive.settle()
        got = received(daemon)
    assert got == [marker + b"IKE"], f"IKE over port 4500: {got} delivered by who is responsible"


def received(daemon: object) -> list[bytes]:
    """Return what is in a socket that does not wait."""
    import socket

    assert isinstance(daemon, socket.socket), "expected a socket"
    got = []
    with contextlib.suppress(BlockingIOError):
        while True:
            got.append(daemon.recv(100))
    return got


@pytest.mark.control
def test_other_addresses_are_nobodys_but_their_own(passive: Node) -> None:
    sa = sealing.sa(IPV4.peer, passive.own, spi_in(passive.own, 1, 2))
    passive.xfrm.add(sa)
    for number in range(1, 21):
        passive.link.send(sealing.Sealer(sa).datagram(number, PORT))
    delivered = len(passive.delivered(20))
    assert delivered == 20, f"of an SA to another address {delivered} of 20 were delivered"


@pytest.mark.proof(red=DELIVERED)
def test_without_the_rule_it_is_a_host_again(passive: Node) -> None:
    sa = passive.add(passive.inbound(1, 2))
    follows(passive, sa, list(range(1, 33)))
    passive.without_rules()
    sealer = passive.sealer(sa)
    for number in range(33, 65):
        passive.link.send(sealer.datagram(number, PORT))
    delivered = len(passive.delivered(32))
    assert delivered == 32, f"without the rule {delivered} of 32 packets were delivered"


@pytest.mark.proof(red=r"the kernel let in \d+ of 192 random SAs that are another node's")
def test_the_hook_decides_by_the_hash(plug: Callable[..., Node]) -> None:
    node = plug()
    total, owned = 8, (1, 4, 6)
    node.rule(total)
    node.take_over(*owned)
    generator = random.Random(8)
    spis = [generator.randrange(0x100, 1 << 32) for _ in range(192)]
    for spi in spis:
        sa = sealing.sa(IPV4.peer, IPV4.cluster, spi)
        node.xfrm.add(sa)
        # Less than 16 ahead: only who is responsible finds out that it is forged.
        node.link.send(sealing.Sealer(sa).datagram(1, PORT, forged=True))
    node.settle()
    tried = {sa.spi for sa in node.xfrm.states() if sa.forged}
    own = {spi for spi in spis if sa_segment(IPV4.cluster, spi, total) in owned}
    assert tried <= own, (
        f"the kernel let in {len(tried - own)} of 192 random SAs that are another node's"
        f"{node.remark}"
    )
    assert tried == own, f"the kernel dropped {len(own - tried)} of 192 random SAs that are its own"
