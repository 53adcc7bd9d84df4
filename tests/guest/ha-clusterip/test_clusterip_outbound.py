# SPDX-License-Identifier: GPL-2.0-only
"""E7: each number of an SA leaves the cluster once, now and after segments changed hands.

Both nodes are given all there is to send, as on a network that floods it, and
the peer's end of the bridge reads what left. Every change of a segment, taken
over or given up, moves the numbers of its SAs on by 1/16 of what 32 bits hold.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

import sealing
import xfrm_attributes as xa
import xfrm_messages as xm
import xfrm_structures as xs
from async_crypto import asynchronous, in_use
from cluster import IPV4, JUMP, MAC, PATIENCE, PEER_MAC, PORT, Cluster, Node, two_nodes
from cluster_cases import (
    PACKETS,
    expect_b_sends_far_ahead,
    go_on_until_they_leave,
    slow_to_leave,
)
from namespaces import wait_until
from tunnel_device import VTI, XFRM, behind_devices
from under_traffic import TWO_CPUS, Stream
from xfrm_netlink import XfrmSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

MODES = pytest.mark.parametrize(
    "mode", [xs.MODE_TRANSPORT, xs.MODE_TUNNEL], ids=["transport", "tunnel"]
)
OSEQ_MAY_WRAP = 2


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


@pytest.mark.proof(red=r"320 ESP packets left for 160 numbers, expected 160 ")
@MODES
def test_every_number_leaves_once(cluster: Cluster, mode: int) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    cluster.b.take_over(2)
    sa = cluster.add(cluster.a.outbound(1, 2, mode=mode))
    left = cluster.emitted(sa, PACKETS)
    assert len(left) == PACKETS, (
        f"{len(left)} ESP packets left for {PACKETS} numbers, expected {PACKETS}{cluster.b.remark}"
    )
    assert left == list(range(1, PACKETS + 1)), f"the numbers {left} left, expected 1 to {PACKETS}"
    assert cluster.sent(sa) == [PACKETS] * 2, (
        f"the nodes' numbers are at {cluster.sent(sa)}, expected {PACKETS} on both"
    )


@pytest.mark.proof(red=r"by segment A sent \[.*\] and B \[.*\] of 10, expected \[10")
@pytest.mark.parametrize("total", [1, 2, 4, 8])
def test_each_segment_leaves_by_its_node(cluster: Cluster, total: int) -> None:
    cluster.rule(total)
    segments = range(1, total + 1)
    cluster.a.take_over(*segments[::2])
    cluster.b.take_over(*segments[1::2])
    by_node: tuple[list[int], list[int]] = ([], [])
    for segment in segments:
        sa = cluster.add(cluster.a.outbound(segment, total))
        for node, counts in zip(cluster.nodes, by_node, strict=True):
            node.emit(sa, range(10))
            counts.append(len(cluster.segment.esp()))
        for node in cluster.nodes:
            node.xfrm.delete(sa)
            node.xfrm.flush_policies()
    expected = [10 * (segment % 2) for segment in segments]
    assert by_node == (expected, [10 - count for count in expected]), (
        f"by segment A sent {by_node[0]} and B {by_node[1]} of 10, expected {expected} and the rest"
        f"{cluster.b.remark}"
    )


@pytest.mark.proof(red=r"owned by nobody 40 of 20 packets left, expected 0")
def test_nobody_sends_what_nobody_owns(cluster: Cluster) -> None:
    cluster.rule(2)
    sa = cluster.add(cluster.a.outbound(1, 2))
    left = cluster.emitted(sa, 20)
    assert left == [], (
        f"owned by nobody {len(left)} of 20 packets left, expected 0{cluster.a.remark}"
    )
    assert cluster.sent(sa) == [20, 20], f"the numbers are at {cluster.sent(sa)}, expected 20, 20"


@pytest.mark.proof(red=r"in UDP 40 packets left for 20 numbers, expected 20")
def test_esp_in_udp_leaves_once(cluster: Cluster) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    encap = xa.encap(sealing.ENCAP_PORT, sealing.ENCAP_PORT)
    left = cluster.emitted(cluster.add(cluster.a.outbound(1, 2, encap)), 20)
    assert left == list(range(1, 21)), (
        f"in UDP {len(left)} packets left for 20 numbers, expected 20{cluster.b.remark}"
    )


@pytest.mark.proof(red=r"40 packets with AH left for 20 numbers, expected 20")
def test_ah_leaves_once(cluster: Cluster) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    like = cluster.a.outbound(1, 2)
    sa = cluster.add(sealing.ah_sa(like.source, like.destination, like.spi))
    for node in cluster.nodes:
        node.emit(sa, range(20))
    packets = [frame[14:] for frame in cluster.segment.frames()]
    left = [
        struct.unpack_from("!I", packet, 28)[0]
        for packet in packets
        if packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_AH
    ]
    assert left == list(range(1, 21)), (
        f"{len(left)} packets with AH left for 20 numbers, expected 20{cluster.b.remark}"
    )


@pytest.mark.proof(red=r"by cryptd 40 packets left for 20 numbers, expected 20")
def test_asynchronous_crypto_leaves_once(cluster: Cluster) -> None:
    with asynchronous() as driver:
        cluster.rule(2)
        cluster.a.take_over(1)
        sa = cluster.add(cluster.a.outbound(1, 2))
        used = in_use(driver)
        # B, which is to send nothing, has time as long as A needs.
        for node in reversed(cluster.nodes):
            node.emit(sa, range(20))
        left: list[bytes] = []

        def all_left() -> bool:
            came = cluster.segment.esp()
            left.extend(came)
            return len(left) >= 20 and not came

        wait_until(all_left, seconds=PATIENCE)
        for node in cluster.nodes:
            node.xfrm.flush()
    assert used, f"{driver} has no user, expected the SAs"
    assert len(left) == 20, (
        f"by cryptd {len(left)} packets left for 20 numbers, expected 20{cluster.b.remark}"
    )


@pytest.mark.proof(red=r"of one large packet 20 segments left for 10 numbers, expected 10")
@pytest.mark.parametrize("encap", [False, True], ids=["esp", "esp-in-udp"])
def test_each_segment_of_a_large_packet_leaves_once(cluster: Cluster, *, encap: bool) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    ports = (xa.encap(sealing.ENCAP_PORT, sealing.ENCAP_PORT),) if encap else ()
    sa = cluster.add(cluster.a.outbound(1, 2, *ports, mode=xs.MODE_TUNNEL))
    packet = sealing.large_tcp_packet("10.80.0.9", IPV4.behind_peer, bytes(1000))
    for node in cluster.nodes:
        node.namespace.sysctl("net/ipv4/ip_forward", 1)
        cluster.segment.send_large(packet, node, 100)
        node.settle()
        node.namespace.sysctl("net/ipv4/ip_forward", 0)
    left = [sealing.sequence_of(packet) for packet in cluster.segment.esp()]
    assert sorted(left) == list(range(1, 11)), (
        f"of one large packet {len(left)} segments left for 10 numbers, expected 10"
        f"{cluster.b.remark}"
    )
    assert cluster.sent(sa) == [10, 10], f"the numbers are at {cluster.sent(sa)}, expected 10, 10"


@pytest.mark.proof(red=r"after the failover A sent 20 and B 20, expected 0 and 20")
@MODES
def test_after_a_failover_the_numbers_go_on_far_ahead(cluster: Cluster, mode: int) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    sa = cluster.add(cluster.a.outbound(1, 2, mode=mode))
    before = cluster.emitted(sa, 20)
    cluster.fail_over(1)
    expect_b_sends_far_ahead(cluster, sa, before, cluster.b.remark)


@pytest.mark.proof(red=r"of \d+ packets there and back \d+ had a number used before, expected 0")
def test_there_and_back_no_number_is_used_twice(cluster: Cluster) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    sa = cluster.add(cluster.a.outbound(1, 2))
    numbers = cluster.emitted(sa, 20)
    for leaving, taking in ((cluster.a, cluster.b), (cluster.b, cluster.a)) * 2:
        leaving.give_up(1)
        taking.take_over(1)
        # Who is passive misses some of what there is to send.
        leaving.emit(sa, range(15))
        taking.emit(sa, range(20))
        numbers += [sealing.sequence_of(packet) for packet in cluster.segment.esp()]
    again = len(numbers) - len(set(numbers))
    assert again == 0, (
        f"of {len(numbers)} packets there and back {again} had a number used before, expected 0"
        f"{cluster.b.remark}"
    )
    assert len(numbers) == 100, f"there and back {len(numbers)} packets left, expected 100"


@pytest.mark.proof(red=r"with 64 bits the numbers after the failover are \[\], expected")
def test_64_bits_carry(cluster: Cluster) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    edge = 1 << 32
    sa = cluster.add(sealing.with_esn(cluster.a.outbound(1, 2), out_sequence=edge - 100))
    cluster.emitted(sa, 5)
    cluster.fail_over(1)
    after = edge - 95 + JUMP
    left = cluster.emitted(sa, 5, high=1) if not cluster.b.refused else []
    assert left == list(range(after + 1, after + 6)), (
        f"with 64 bits the numbers after the failover are {left}, expected {after + 1} and so on"
        f"{cluster.b.remark}"
    )
    assert cluster.sent(sa) == [after + 5] * 2, (
        f"the nodes' numbers are at {cluster.sent(sa)}, expected {after + 5} on both"
    )


@pytest.mark.proof(red=r"with all numbers used up 6 packets left, expected 0")
def test_where_numbers_are_used_up_none_is_used_again(cluster: Cluster) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    late = xa.replay(out_sequence=0xFFFFFF00)
    sa = cluster.add(cluster.a.outbound(1, 2, late))
    cluster.fail_over(1)
    left = cluster.emitted(sa, 3)
    assert left == [], (
        f"with all numbers used up {len(left)} packets left, expected 0{cluster.b.remark}"
    )
    assert cluster.sent(sa) == [0xFFFFFFFF] * 2, (
        f"the nodes' numbers are at {cluster.sent(sa)}, expected 0xffffffff on both"
    )


@pytest.mark.proof(red=r"of the last two numbers 4 packets left, expected 1")
def test_the_last_number_is_not_used(cluster: Cluster) -> None:
    """A jump ends there, so it may be a number that another node has used."""
    cluster.rule(2)
    cluster.a.take_over(1)
    late = xa.replay(out_sequence=0xFFFFFFFD)
    left = cluster.emitted(cluster.add(cluster.a.outbound(1, 2, late)), 3)
    assert left == [0xFFFFFFFE], (
        f"of the last two numbers {len(left)} packets left, expected 1{cluster.b.remark}"
    )


@pytest.mark.proof(red=r"allowed to wrap the numbers are at \[4294967040, 4294967040\], expected")
def test_numbers_that_may_wrap_do(cluster: Cluster) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    late = (xa.replay(out_sequence=0xFFFFFF00), xa.extra_flags(OSEQ_MAY_WRAP))
    sa = cluster.add(cluster.a.outbound(1, 2, *late))
    cluster.fail_over(1)
    expected = 0xFFFFFF00 + JUMP & 0xFFFFFFFF
    assert cluster.sent(sa) == [expected] * 2, (
        f"allowed to wrap the numbers are at {cluster.sent(sa)}, expected {expected} on both"
        f"{cluster.b.remark}"
    )


@pytest.mark.proof(red=r"of 16 changes the key manager is told after \[\], expected \[8, 9, ")
def test_the_key_manager_is_told_before_the_numbers_are_used_up(cluster: Cluster) -> None:
    node = cluster.a
    node.rule(1)
    plain = node.outbound(1, 1, xa.replay(out_sequence=20))
    spis = (plain.spi + n for n in range(1, 4))
    ends = (plain.source, plain.destination)
    others = (
        sealing.with_esn(sealing.sa(*ends, next(spis), window=0), out_sequence=20),
        sealing.sa(*ends, next(spis), xa.extra_flags(OSEQ_MAY_WRAP), window=0),
        sealing.sa(*ends[::-1], next(spis)),
    )
    for sa in (plain, *others):
        node.xfrm.add(sa)
    told: list[int] = []
    with node.namespace.inside():
        xfrm = XfrmSocket(groups=(xm.GROUP_EXPIRE,))
    with contextlib.closing(xfrm):
        for change in range(1, 17):
            (node.take_over if change % 2 else node.give_up)(1)
            # The kernel tells it before the write to the file returns.
            for expiry in xfrm.expiries(0):
                assert not expiry.hard, f"after {change} changes a hard EXPIRE of {expiry.sa.spi}"
                assert expiry.sa.spi == plain.spi, f"an EXPIRE of {expiry.sa.spi - plain.spi:+}"
                told.append(change)
    expected = list(range(8, 17))
    assert told == expected, (
        f"of 16 changes the key manager is told after {told}, expected {expected}{node.remark}"
    )
    assert node.replay(plain).sent == 0xFFFFFFFF, "16 changes did not use up the numbers"


@pytest.mark.proof(red=r"taking segment 1 over moved on \{\}, expected \{")
def test_only_the_segments_sas_of_the_address_move_on(cluster: Cluster) -> None:
    node = cluster.a
    node.rule(2)
    first, second = node.outbound(1, 2), node.outbound(2, 2)
    inbound = node.inbound(1, 2)
    elsewhere = sealing.sa(node.own, first.destination, first.spi + (1 << 16), window=0)
    ah = sealing.ah_sa(first.source, first.destination, first.spi)
    names = {"first": first, "second": second, "inbound": inbound, "elsewhere": elsewhere, "ah": ah}
    for sa in names.values():
        node.xfrm.add(sa)

    def moved() -> dict[str, int]:
        counts = {name: node.replay(sa).sent // JUMP for name, sa in names.items()}
        return {name: count for name, count in counts.items() if count}

    node.take_over(1)
    found = moved()
    expected = {"first": 1, "ah": 1}
    assert found == expected, f"taking segment 1 over moved on {found}, expected {expected}"
    for text in ("+1", "-2", "+3", "1"):
        with contextlib.suppress(OSError):
            node.write(text)
    assert moved() == expected, f"what was refused moved on {moved()}, expected {expected}"
    node.give_up(1)
    expected = {"first": 2, "ah": 2}
    assert moved() == expected, f"giving segment 1 up moved on {moved()}, expected {expected}"


@TWO_CPUS
@pytest.mark.proof(red=r"under traffic \d+ of \d+ numbers left more than once, expected 0")
def test_under_traffic_no_number_leaves_twice(cluster: Cluster) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    cluster.add(cluster.a.outbound(1, 2))
    left: list[bytes] = []
    with contextlib.ExitStack() as undo:
        undo.enter_context(slow_to_leave(cluster))
        senders = [
            undo.enter_context(node.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for node in cluster.nodes
        ]
        for opened in senders:
            opened.bind((IPV4.cluster, 0))

        def send(_number: int) -> None:
            for opened in senders:
                opened.sendto(b"on and on", (IPV4.peer, PORT))
            left.extend(cluster.segment.esp())

        stream = undo.enter_context(Stream(send))
        ways = ((cluster.a, cluster.b), (cluster.b, cluster.a)) * 4
        for changes, (leaving, taking) in enumerate(ways, 1):
            leaving.give_up(1)
            taking.take_over(1)
            go_on_until_they_leave(stream, left, changes, refused=bool(cluster.b.refused))
    left.extend(cluster.segment.esp())
    counts = Counter(sealing.sequence_of(packet) for packet in left)
    twice = [number for number, count in counts.items() if count > 1]
    assert twice == [], (
        f"under traffic {len(twice)} of {len(counts)} numbers left more than once, expected 0"
        f"{cluster.b.remark}"
    )
    assert max(counts) > 8 * JUMP, f"after 8 failovers the highest number is {max(counts)}"
    assert len(counts) > 160, f"{len(counts)} packets left during 8 failovers, expected more"


@pytest.mark.proof(red=r"before the failover A delivered 165 and B 165, expected 165 and 0")
@MODES
def test_after_a_failover_what_is_old_is_refused(cluster: Cluster, mode: int) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    sa = cluster.add(cluster.a.inbound(1, 2, mode=mode))
    sealer = cluster.a.sealer(sa)
    captured = [sealer.datagram(number, PORT) for number in range(1, 166)]
    cluster.arrive(captured)
    a, b = len(cluster.a.delivered(165)), len(cluster.b.delivered())
    assert (a, b) == (165, 0), (
        f"before the failover A delivered {a} and B {b}, expected 165 and 0{cluster.b.remark}"
    )
    cluster.fail_over(1)
    for node in cluster.nodes:
        node.forget()
    cluster.arrive(captured[:PACKETS])
    old = [len(node.delivered()) for node in cluster.nodes]
    assert old == [0, 0], f"of 160 old packets A and B delivered {old} after the failover"
    cluster.arrive(sealer.datagram(number, PORT) for number in range(166, 186))
    new = [len(cluster.b.delivered(20)), len(cluster.a.delivered())]
    assert new == [20, 0], f"of 20 new packets B and A delivered {new}, expected [20, 0]"


@TWO_CPUS
@pytest.mark.proof(red=r"during failovers \d+ of \d+ packets were delivered twice, expected 0")
def test_under_traffic_nothing_is_delivered_twice(cluster: Cluster) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    sealer = cluster.a.sealer(cluster.add(cluster.a.inbound(1, 2)))
    kept: list[bytes] = []

    def send(number: int) -> None:
        kept.append(sealer.datagram(number, PORT))
        cluster.segment.send(kept[-1])
        # And once more one from long ago, which either node may have delivered.
        if number > 64:
            cluster.segment.send(kept[number * 7 % (number - 64)])

    lost: list[int] = []
    with Stream(send) as stream:
        for leaving, taking in ((cluster.a, cluster.b), (cluster.b, cluster.a)) * 3:
            leaving.give_up(1)
            stream.more(5)
            taking.take_over(1)
            due = set(stream.more(20))
            came = partial(_numbers_delivered, taking)
            wait_until(lambda: due <= came(), seconds=PATIENCE)  # noqa: B023
            lost += due - came()
    counts = Counter((*cluster.a.delivered(), *cluster.b.delivered()))
    twice = [number for number, count in counts.items() if count > 1]
    assert twice == [], (
        f"during failovers {len(twice)} of {len(counts)} packets were delivered twice, expected 0"
        f"{cluster.b.remark}"
    )
    assert lost == [], f"of what came when a node had taken over {lost[:5]} were not delivered"


def _numbers_delivered(node: Node) -> set[int]:
    return {int(number) for number in node.delivered()}


@pytest.mark.proof(red=r"of 20 packets to be forwarded 0 left as ESP, expected 20")
def test_what_came_for_the_virtual_gateway_is_forwarded(cluster: Cluster) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    sa = cluster.add(cluster.a.outbound(1, 2, mode=xs.MODE_TUNNEL))
    for node in cluster.nodes:
        node.namespace.sysctl("net/ipv4/ip_forward", 1)
    behind = "10.80.0.9"
    for number in range(20):
        # segment.send() addresses the frame to the cluster's MAC, as a host behind it would.
        packet = sealing.udp_packet(behind, IPV4.behind_peer, PORT, str(number).encode())
        cluster.segment.send(packet)
    for node in cluster.nodes:
        node.settle()
    left = cluster.segment.esp()
    for node in cluster.nodes:
        node.namespace.sysctl("net/ipv4/ip_forward", 0)
    assert len(left) == 20, (
        f"of 20 packets to be forwarded {len(left)} left as ESP, expected 20{cluster.a.remark}"
    )
    inside = cluster.a.sealer(sa).open(left[0])
    assert socket.inet_ntoa(inside[12:16]) == behind, f"inside ESP is {inside!r}, from another"
    assert cluster.sent(sa) == [20, 20], f"the numbers are at {cluster.sent(sa)}, expected 20, 20"


@pytest.mark.proof(red=r"of 20 packets to be forwarded to a device 0 left as ESP, expected 20")
@pytest.mark.parametrize("kind", [XFRM, VTI])
def test_what_is_routed_to_a_tunnels_device_is_forwarded(cluster: Cluster, kind: str) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    with behind_devices(cluster, kind) as sa:
        for node in cluster.nodes:
            node.namespace.sysctl("net/ipv4/ip_forward", 1)
        for number in range(20):
            data = str(number).encode()
            cluster.segment.send(sealing.udp_packet("10.80.0.9", IPV4.behind_peer, PORT, data))
        for node in cluster.nodes:
            node.settle()
            node.namespace.sysctl("net/ipv4/ip_forward", 0)
        left = cluster.segment.esp()
        sent = cluster.sent(sa)
    assert len(left) == 20, (
        f"of 20 packets to be forwarded to a device {len(left)} left as ESP, expected 20"
        f"{cluster.a.remark}"
    )
    assert sent == [20, 20], f"the numbers are at {sent}, expected 20, 20"


@pytest.mark.proof(red=r"of 20 packets out of a tunnel 0 were forwarded, expected 20")
def test_what_came_out_of_a_tunnel_is_forwarded_once(cluster: Cluster) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    sa = cluster.add(cluster.a.inbound(1, 2, mode=xs.MODE_TUNNEL))
    behind = "10.80.0.9"
    for node in cluster.nodes:
        node.namespace.ip(f"route add {behind}/32 via {IPV4.peer} dev {node.device}")
        node.namespace.sysctl("net/ipv4/ip_forward", 1)
    sealer = sealing.Sealer(sa, (IPV4.behind_peer, behind))
    cluster.arrive(sealer.datagram(number, PORT) for number in range(1, 21))
    for node in cluster.nodes:
        node.settle()
        node.namespace.sysctl("net/ipv4/ip_forward", 0)
        node.namespace.ip(f"route del {behind}/32")
    packets = [frame[14:] for frame in cluster.segment.frames() if frame[12:14] == b"\x08\x00"]
    forwarded = [packet[28:] for packet in packets if packet[16:20] == socket.inet_aton(behind)]
    expected = [str(number).encode() for number in range(1, 21)]
    assert forwarded == expected, (
        f"of 20 packets out of a tunnel {len(forwarded)} were forwarded, expected 20"
        f"{cluster.a.remark}"
    )


@pytest.mark.control
def test_what_no_sa_is_for_is_not_forwarded_by_both(cluster: Cluster) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    stranger = "10.77.1.9"
    for node in cluster.nodes:
        node.namespace.ip(f"route add {stranger}/32 via {IPV4.peer} dev {node.device}")
        node.namespace.sysctl("net/ipv4/ip_forward", 1)
        cluster.segment.send(sealing.udp_packet("10.80.0.9", stranger, PORT, b"plain"))
    for node in cluster.nodes:
        node.settle()
        node.namespace.sysctl("net/ipv4/ip_forward", 0)
        node.namespace.ip(f"route del {stranger}/32")
    packets = [frame[14:] for frame in cluster.segment.frames() if frame[12:14] == b"\x08\x00"]
    forwarded = [packet for packet in packets if packet[16:20] == socket.inet_aton(stranger)]
    assert forwarded == [], f"{len(forwarded)} packets were forwarded in the clear, expected none"


@pytest.mark.proof(red=r"TCP through the cluster was answered by 0 SYN.ACK, expected 1")
def test_tcp_is_answered(cluster: Cluster) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    inbound, outbound = cluster.a.inbound(1, 2), cluster.a.outbound(1, 2)
    for sa in (inbound, outbound):
        cluster.add(sa)
    syn = sealing.tcp_syn(IPV4.peer, IPV4.cluster, (40000, PORT))
    with contextlib.ExitStack() as undo:
        for node in cluster.nodes:
            listening = undo.enter_context(
                node.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
            )
            listening.bind((IPV4.cluster, PORT))
            listening.listen()
        cluster.segment.send(cluster.a.sealer(inbound).seal(1, socket.IPPROTO_TCP, syn))
        for node in cluster.nodes:
            node.settle()
        left = cluster.segment.esp()
    flags = [cluster.a.sealer(outbound).open(packet)[13] for packet in left]
    assert flags == [0x12], (
        f"TCP through the cluster was answered by {flags.count(0x12)} SYN|ACK, expected 1"
        f"{cluster.a.remark}"
    )


@pytest.mark.proof(red=r"the cluster's address is at \[.*\], expected \['01:00:5e:00:09:01'\]")
def test_arp_is_answered_with_the_clusters_mac(cluster: Cluster) -> None:
    cluster.rule(2)
    cluster.a.take_over(1)
    asker = bytes.fromhex(PEER_MAC.replace(":", ""))
    question = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    ends = (asker, socket.inet_aton(IPV4.peer), bytes(6), socket.inet_aton(IPV4.cluster))
    cluster.segment.send_frame(b"\xff" * 6 + asker + b"\x08\x06" + question + b"".join(ends))
    answers: list[bytes] = []

    def both_answered() -> bool:
        frames = cluster.segment.frames()
        answers.extend(frame for frame in frames if frame[12:14] == b"\x08\x06" and frame[21] == 2)
        return len(answers) >= 2

    wait_until(both_answered, seconds=PATIENCE)
    macs = sorted({answer[22:28].hex(":") for answer in answers})
    assert macs == [MAC], f"the cluster's address is at {macs}, expected {[MAC]}"
    assert len(answers) == 2, f"{len(answers)} nodes answered, expected 2"
