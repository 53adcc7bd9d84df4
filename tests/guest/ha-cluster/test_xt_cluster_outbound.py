# SPDX-License-Identifier: GPL-2.0-only
"""E8: each number of an SA leaves the cluster once, in whatever way segments change hands.

Both nodes are given all there is to send, and the peer's end of the bridge
reads what left. By the file the kernel moves the numbers on, by rules and by a
set xt_cluster_rules.py does; both move them alike.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import socket
from collections import Counter
from typing import TYPE_CHECKING

import pytest

import nf_tables_raw as nf
import sealing
import xfrm_attributes as xa
import xfrm_structures as xs
import xt_cluster_rules
from async_crypto import asynchronous, in_use
from cluster import IPV4, IPV6, PATIENCE, PORT, Cluster, Ends, Node, esp_on, lone_node, two_nodes
from cluster_cases import (
    PACKETS,
    expect_b_sends_far_ahead,
    go_on_until_they_leave,
    slow_to_leave,
)
from namespaces import Namespace, goes_away, wait_until
from segment_hash import sa_segment, spi_in
from tunnel_device import VTI, VTI6, XFRM, behind_devices
from under_traffic import TWO_CPUS, Stream
from xt_cluster_node import Member, Members
from xt_cluster_rules import FILE, INVERT, JUMP, RULE, SET, SPI, Match, mask_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wire import Wire

ENDS = pytest.mark.parametrize("ends", [IPV4, IPV6], ids=["ipv4", "ipv6"])
WAYS = pytest.mark.parametrize("by", [RULE, SET, FILE])
#: Numbers are moved on by the tool, or by the kernel.
MOVERS = pytest.mark.parametrize("by", [RULE, FILE])
OSEQ_MAY_WRAP = 2


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


@pytest.fixture
def plug(netns: Namespace) -> Iterator[Callable[[Ends], tuple[Member, Wire]]]:
    """Give a function that makes a node on a TUN device."""
    with contextlib.ExitStack() as undo:

        def make(ends: Ends) -> tuple[Member, Wire]:
            node, plugged = undo.enter_context(lone_node(netns, ends=ends))
            return Member(node), plugged

        yield make


@pytest.mark.proof(red=r"320 ESP packets left for 160 numbers, expected 160 ")
@pytest.mark.parametrize(
    ("by", "mode"),
    [(RULE, xs.MODE_TUNNEL), (SET, xs.MODE_TRANSPORT), (FILE, xs.MODE_TUNNEL)],
    ids=["rule-tunnel", "set-transport", "file-tunnel"],
)
def test_every_number_leaves_once(members: Members, by: str, mode: int) -> None:
    members.join(2, ((1,), (2,)), by)
    sa = members.cluster.add(members.cluster.a.outbound(1, 2, mode=mode))
    left = members.cluster.emitted(sa, PACKETS)
    assert len(left) == PACKETS, (
        f"{len(left)} ESP packets left for {PACKETS} numbers, expected {PACKETS} {members.remark}"
    )
    assert left == list(range(1, PACKETS + 1)), f"the numbers {left} left, expected 1 to {PACKETS}"
    taken = members.cluster.sent(sa)
    assert taken == [PACKETS] * 2, f"the nodes' numbers are at {taken}, expected 160 on both"


@pytest.mark.proof(red=r"in UDP 40 packets left for 20 numbers, expected 20 ")
def test_esp_in_udp_leaves_once(members: Members) -> None:
    members.join(2, ((1,), (2,)), RULE)
    cluster = members.cluster
    encap = xa.encap(sealing.ENCAP_PORT, sealing.ENCAP_PORT)
    left = cluster.emitted(cluster.add(cluster.a.outbound(1, 2, encap)), 20)
    assert left == list(range(1, 21)), (
        f"in UDP {len(left)} packets left for 20 numbers, expected 20 {members.remark}"
    )


@pytest.mark.proof(red=r"40 packets with AH left for 20 numbers, expected 20 ")
def test_ah_leaves_once(members: Members) -> None:
    members.join(2, ((1,), (2,)), RULE)
    cluster = members.cluster
    like = cluster.a.outbound(1, 2)
    sa = cluster.add(sealing.ah_sa(like.source, like.destination, like.spi))
    for node in cluster.nodes:
        node.emit(sa, range(20))
    left = ah_numbers(cluster.segment.frames())
    assert left == list(range(1, 21)), (
        f"{len(left)} packets with AH left for 20 numbers, expected 20 {members.remark}"
    )


def ah_numbers(frames: list[bytes]) -> list[int]:
    """Return the sequence numbers of the frames with AH."""
    found = []
    for packet in (frame[14:] for frame in frames):
        head, proto = (40, packet[6]) if packet[0] >> 4 == 6 else (20, packet[9])
        if proto == socket.IPPROTO_AH:
            found.append(int.from_bytes(packet[head + 8 : head + 12], "big"))
    return found


@pytest.mark.proof(red=r"by cryptd 40 packets left for 20 numbers, expected 20 ")
def test_asynchronous_crypto_leaves_once(members: Members) -> None:
    cluster = members.cluster
    with asynchronous() as driver:
        members.join(2, ((1,), (2,)), RULE)
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
        f"by cryptd {len(left)} packets left for 20 numbers, expected 20 {members.remark}"
    )


@pytest.mark.proof(red=r"of one large packet 20 segments left for 10 numbers, expected 10 ")
def test_each_segment_of_a_large_packet_leaves_once(members: Members) -> None:
    members.join(2, ((1,), (2,)), RULE)
    cluster, ends = members.cluster, members.cluster.a.ends
    sa = cluster.add(cluster.a.outbound(1, 2, mode=xs.MODE_TUNNEL))
    packet = sealing.large_tcp_packet(behind(ends), ends.behind_peer, bytes(1000))
    with forwarding(cluster):
        for node in cluster.nodes:
            cluster.segment.send_large(packet, node, 100)
            node.settle()
    left = [sealing.sequence_of(packet) for packet in cluster.segment.esp()]
    assert sorted(left) == list(range(1, 11)), (
        f"of one large packet {len(left)} segments left for 10 numbers, expected 10"
        f" {members.remark}"
    )
    assert cluster.sent(sa) == [10, 10], f"the numbers are at {cluster.sent(sa)}, expected 10, 10"


@pytest.mark.proof(red=r"after the failover A sent 20 and B 20, expected 0 and 20 ")
@WAYS
def test_after_a_failover_the_numbers_go_on_far_ahead(members: Members, by: str) -> None:
    members.join(2, ((1,), (2,)), by)
    cluster = members.cluster
    sa = cluster.add(cluster.a.outbound(1, 2))
    other = cluster.a.outbound(2, 2)
    other = sealing.ah_sa(other.source, other.destination, other.spi)
    for node in cluster.nodes:
        # The policy there is wants ESP.
        node.xfrm.add(other)
    before = members.cluster.emitted(sa, 20)
    members.fail_over(1)
    expect_b_sends_far_ahead(cluster, sa, before, f" {members.remark}")
    taken = members.cluster.sent(other)
    assert max(taken) < JUMP, f"those of the other segment are at {taken}, expected them left alone"


@pytest.mark.proof(red=r"of \d+ packets there and back \d+ had a number used before, expected 0 ")
@WAYS
def test_there_and_back_no_number_is_used_twice(members: Members, by: str) -> None:
    members.join(2, ((1,), ()), by)
    cluster = members.cluster
    sa = cluster.add(cluster.a.outbound(1, 2))
    numbers = members.cluster.emitted(sa, 20)
    for leaving, taking in ((members.a, members.b), (members.b, members.a)) * 2:
        leaving.own()
        taking.own(1)
        # Who is passive misses some of what there is to send.
        leaving.node.emit(sa, range(15))
        taking.node.emit(sa, range(20))
        numbers += [sealing.sequence_of(packet) for packet in cluster.segment.esp()]
    again = len(numbers) - len(set(numbers))
    assert again == 0, (
        f"of {len(numbers)} packets there and back {again} had a number used before, expected 0"
        f" {members.remark}"
    )
    assert len(numbers) == 100, f"there and back {len(numbers)} packets left, expected 100"


@pytest.mark.proof(red=r"with 64 bits the numbers after the failover are \[\], expected")
@MOVERS
def test_64_bits_carry(members: Members, by: str) -> None:
    members.join(2, ((1,), ()), by)
    cluster = members.cluster
    edge = 1 << 32
    sa = cluster.add(sealing.with_esn(cluster.a.outbound(1, 2), out_sequence=edge - 100))
    members.cluster.emitted(sa, 5)
    members.fail_over(1)
    after = edge - 95 + JUMP
    left = members.cluster.emitted(sa, 5, high=1) if not members.remark else []
    assert left == list(range(after + 1, after + 6)), (
        f"with 64 bits the numbers after the failover are {left}, expected {after + 1} and so on"
        f" {members.remark}"
    )
    taken = members.cluster.sent(sa)
    assert taken == [after + 5] * 2, f"the numbers are at {taken}, expected {after + 5} on both"


@pytest.mark.proof(red=r"with all numbers used up 6 packets left, expected 0 ")
@MOVERS
def test_where_numbers_are_used_up_none_is_used_again(members: Members, by: str) -> None:
    members.join(2, ((1,), ()), by)
    late = xa.replay(out_sequence=0xFFFFFF00)
    sa = members.cluster.add(members.cluster.a.outbound(1, 2, late))
    members.fail_over(1)
    left = members.cluster.emitted(sa, 3)
    assert left == [], (
        f"with all numbers used up {len(left)} packets left, expected 0 {members.remark}"
    )
    taken = members.cluster.sent(sa)
    assert taken == [0xFFFFFFFF] * 2, f"the numbers are at {taken}, expected 0xffffffff on both"


@pytest.mark.proof(red=r"of the last two numbers 4 packets left, expected 1 ")
@WAYS
def test_the_last_number_is_not_used(members: Members, by: str) -> None:
    """A jump ends there, so it may be a number that another node has used."""
    members.join(2, ((1,), ()), by)
    late = xa.replay(out_sequence=0xFFFFFFFD)
    cluster = members.cluster
    left = cluster.emitted(cluster.add(cluster.a.outbound(1, 2, late)), 3)
    assert left == [0xFFFFFFFE], (
        f"of the last two numbers {len(left)} packets left, expected 1 {members.remark}"
    )


@pytest.mark.proof(red=r"allowed to wrap the numbers are at \[4294967040, 4294967040\], expected")
@MOVERS
def test_numbers_that_may_wrap_do(members: Members, by: str) -> None:
    members.join(2, ((1,), ()), by)
    late = (xa.replay(out_sequence=0xFFFFFF00), xa.extra_flags(OSEQ_MAY_WRAP))
    sa = members.cluster.add(members.cluster.a.outbound(1, 2, *late))
    members.fail_over(1)
    taken = members.cluster.sent(sa)
    expected = 0xFFFFFF00 + JUMP & 0xFFFFFFFF
    assert taken == [expected] * 2, (
        f"allowed to wrap the numbers are at {taken}, expected {expected} on both {members.remark}"
    )


@TWO_CPUS
@pytest.mark.proof(red=r"under traffic \d+ of \d+ numbers left more than once, expected 0 ")
@WAYS
def test_under_traffic_no_number_leaves_twice(members: Members, by: str) -> None:
    members.join(2, ((1,), ()), by)
    cluster = members.cluster
    cluster.add(cluster.a.outbound(1, 2))
    left: list[bytes] = []
    with contextlib.ExitStack() as undo:
        undo.enter_context(slow_to_leave(cluster))
        senders = [undo.enter_context(sender(node)) for node in cluster.nodes]

        def send(_number: int) -> None:
            for opened in senders:
                opened.sendto(b"on and on", (cluster.a.ends.peer, PORT))
            left.extend(cluster.segment.esp())

        stream = undo.enter_context(Stream(send))
        stream.until(lambda: len(left) > 20)
        ways = ((members.a, members.b), (members.b, members.a)) * 3
        for changes, (leaving, taking) in enumerate(ways, 1):
            leaving.own()
            taking.own(1)
            go_on_until_they_leave(stream, left, changes, refused=bool(members.remark))
    left += cluster.segment.esp()
    counted = Counter(sealing.sequence_of(packet) for packet in left)
    again = sum(number > 1 for number in counted.values())
    assert again == 0, (
        f"under traffic {again} of {len(counted)} numbers left more than once, expected 0"
        f" {members.remark}"
    )
    blocks = {number // JUMP for number in counted}
    assert len(blocks) == 7, f"numbers left from {len(blocks)} ranges, expected 7 of 6 failovers"


def sender(node: Node) -> socket.socket:
    """Open a socket that sends from the cluster's address."""
    opened = node.namespace.socket(xs.family_of(node.ends.cluster), socket.SOCK_DGRAM)
    opened.bind((node.ends.cluster, 0))
    return opened


@pytest.mark.proof(red=r"taking segment 1 over moved on \[\], expected \['ah', 'first'\] ")
@ENDS
@MOVERS
def test_only_the_segments_sas_of_the_address_move_on(
    plug: Callable[[Ends], tuple[Member, Wire]], ends: Ends, by: str
) -> None:
    member, _ = plug(ends)
    node = member.join(2, by=by).node
    first = node.outbound(1, 2)
    sas = {
        "first": first,
        "second": node.outbound(2, 2),
        "inbound": node.inbound(1, 2),
        "elsewhere": sealing.sa(node.own, first.destination, first.spi + (1 << 16), window=0),
        "ah": sealing.ah_sa(first.source, first.destination, first.spi),
    }
    for sa in sas.values():
        node.xfrm.add(sa)
    for owned, times in (((1,), 1), ((), 2)):
        member.own(*owned)
        found = sorted(name for name, sa in sas.items() if node.replay(sa).sent)
        expected = ["ah", "first"]
        assert found == expected, (
            f"taking segment 1 over moved on {found}, expected {expected} {member.remark}"
        )
        numbers = {node.replay(sas[name]).sent for name in expected}
        assert numbers == {times * JUMP}, f"moved to {numbers}, expected {times} x {JUMP}"


@contextlib.contextmanager
def forwarding(cluster: Cluster) -> Iterator[None]:
    """Let both nodes forward."""
    sysctl = "net/ipv4/ip_forward" if cluster.a.ends is IPV4 else "net/ipv6/conf/all/forwarding"
    for node in cluster.nodes:
        node.namespace.sysctl(sysctl, 1)
    try:
        yield
    finally:
        for node in cluster.nodes:
            node.namespace.sysctl(sysctl, 0)


def behind(ends: Ends, *, net: int = 0) -> str:
    """Return a host of the network behind the cluster, or of the one next to the peer's."""
    prefix = ends.nets[0] if net == 0 else ("10.77.1.0/24" if ends is IPV4 else "fd78::/64")
    return str(ipaddress.ip_network(prefix)[9])


@pytest.mark.proof(red=r"of 20 packets to be forwarded 0 left as ESP, expected 20 ")
def test_what_came_for_the_virtual_gateway_is_forwarded(members: Members) -> None:
    members.join(2, ((1,), (2,)), RULE)
    cluster, ends = members.cluster, members.cluster.a.ends
    sa = cluster.add(cluster.a.outbound(1, 2, mode=xs.MODE_TUNNEL))
    with forwarding(cluster):
        for number in range(20):
            # To the cluster's MAC, as a host behind it sends it.
            data = str(number).encode()
            cluster.segment.send(sealing.udp_packet(behind(ends), ends.behind_peer, PORT, data))
        for node in cluster.nodes:
            node.settle()
        left = cluster.segment.esp()
    assert len(left) == 20, (
        f"of 20 packets to be forwarded {len(left)} left as ESP, expected 20 {members.remark}"
    )
    inside = sealing.Sealer(sa, (behind(ends), ends.behind_peer)).open(left[0])
    source = inside[12:16] if ends is IPV4 else inside[8:24]
    assert ipaddress.ip_address(source) == ipaddress.ip_address(behind(ends)), (
        f"inside ESP is {inside!r}, from another"
    )
    assert cluster.sent(sa) == [20, 20], f"the numbers are at {cluster.sent(sa)}, expected 20, 20"


@pytest.mark.proof(red=r"of 20 packets to be forwarded to a device 0 left as ESP, expected 20 ")
@pytest.mark.parametrize("kind", [XFRM, VTI])
def test_what_is_routed_to_a_tunnels_device_is_forwarded(members: Members, kind: str) -> None:
    members.join(2, ((1,), (2,)), RULE)
    cluster, ends = members.cluster, members.cluster.a.ends
    if ends is IPV6 and kind == VTI:
        kind = VTI6
    with behind_devices(cluster, kind) as sa, forwarding(cluster):
        for number in range(20):
            data = str(number).encode()
            cluster.segment.send(sealing.udp_packet(behind(ends), ends.behind_peer, PORT, data))
        for node in cluster.nodes:
            node.settle()
        left = cluster.segment.esp()
        sent = cluster.sent(sa)
    assert len(left) == 20, (
        f"of 20 packets to be forwarded to a device {len(left)} left as ESP, expected 20"
        f" {members.remark}"
    )
    assert sent == [20, 20], f"the numbers are at {sent}, expected 20, 20"


@pytest.mark.control
@pytest.mark.parametrize("by", [RULE, SET])
def test_what_no_sa_is_for_is_not_forwarded_by_both(members: Members, by: str) -> None:
    members.join(2, ((1,), (2,)), by)
    cluster, ends = members.cluster, members.cluster.a.ends
    stranger = behind(ends, net=1)
    for node in cluster.nodes:
        node.namespace.ip(f"route add {stranger}/{ends.bits} via {ends.peer} dev {node.device}")
    with forwarding(cluster):
        cluster.segment.frames()
        cluster.segment.send(sealing.udp_packet(behind(ends), stranger, PORT, b"plain"))
        for node in cluster.nodes:
            node.settle()
        frames = cluster.segment.frames()
    for node in cluster.nodes:
        node.namespace.ip(f"route del {stranger}/{ends.bits}")
    # What the peer sent itself is not among them.
    forwarded = [frame for frame in frames if ipaddress.ip_address(stranger).packed in frame]
    assert forwarded == [], f"{len(forwarded)} packets were forwarded in the clear, expected none"


@pytest.mark.control
@ENDS
def test_ipcomp_goes_with_its_esp(plug: Callable[[Ends], tuple[Member, Wire]], ends: Ends) -> None:
    member, plugged = plug(ends)
    node = member.join(2, 1).node
    esp = node.outbound(1, 2)
    cpi = spi_in(esp.destination, 2, 2)
    deflate = (xa.compression("deflate"),)
    comp = xs.Sa(esp.source, esp.destination, cpi, xs.PROTO_COMP, attributes=deflate)
    for sa in (esp, comp):
        node.xfrm.add(sa)
    templates = [xs.Template(sa.source, sa.destination, sa.proto, sa.mode) for sa in (comp, esp)]
    selector = xs.Selector(f"{esp.source}/{ends.bits}", f"{esp.destination}/{ends.bits}")
    node.xfrm.add_policy(xs.Policy(selector, xs.DIR_OUT, templates[0], further=(templates[1],)))
    node.emit(esp, range(20))
    left = len(esp_on(plugged))
    assert left == 20, f"through IPComp of segment 2 and its own ESP {left} of 20 packets left"


@pytest.mark.proof(red=r"a filter chain at hook 9 refused: Operation not supported")
@ENDS
def test_the_hook_decides_by_the_hash(
    plug: Callable[[Ends], tuple[Member, Wire]], ends: Ends
) -> None:
    member, plugged = plug(ends)
    node = member.node
    total, segments = 8, (2, 3, 7)
    table = nf.Table(node.namespace, nf.IP if ends is IPV4 else nf.IP6)
    others = Match(total, mask_of(segments), 7, SPI | INVERT, ends.cluster).expression()
    chain = table.chain("seal", nf.XFRM_OUT)
    table.apply(chain, table.rule("seal", others, nf.counter(), nf.verdict(nf.DROP)))
    expected, got = [], []
    for number in range(60):
        sa = sealing.sa(ends.cluster, ends.peer, 0x7000 + 91 * number, window=0)
        node.add(sa)
        if sa_segment(sa.destination, sa.spi, total, 7) in segments:
            expected.append(sa.spi)
        node.emit(sa, [number])
        got += [int.from_bytes(sealing.esp_of(packet)[:4], "big") for packet in esp_on(plugged)]
        node.xfrm.delete(sa)
        node.xfrm.flush_policies()
    assert got == expected, f"of 60 SAs those sent were {got}, expected {expected}"
    counted = table.packets("seal")
    assert counted == (60 - len(expected),), f"{counted} were for others, expected the rest"


@TWO_CPUS
@pytest.mark.proof(red=r"a filter chain at hook 8 refused: ")
@ENDS
def test_a_namespace_goes_away_under_traffic(ends: Ends) -> None:
    with two_nodes(ends) as cluster:
        members = Members(cluster)
        members.join(2, ((1,), (2,)), FILE)
        assert not members.remark, members.remark
        sealer = cluster.a.sealer(cluster.add(cluster.a.inbound(1, 2)))
        cluster.add(cluster.a.outbound(1, 2))
        with Stream(lambda number: cluster.segment.send(sealer.datagram(number, PORT))) as stream:
            gone = []
            for node in cluster.nodes:
                stream.more(20)
                for opened in (node.xfrm, node.inner, node.marker):
                    opened.close()
                gone.append(goes_away(node.namespace))
    assert gone == [True, True], f"A and B went away: {gone}, expected both within 20 s"


@pytest.mark.proof(red=r"without the rules \[20, 20\] packets left before and after, expected")
@ENDS
def test_without_rules_it_is_a_host_again(
    plug: Callable[[Ends], tuple[Member, Wire]], ends: Ends
) -> None:
    member, plugged = plug(ends)
    sa = member.join(2, 2).node.add(member.node.outbound(1, 2))
    counts = []
    for _ in range(2):
        member.node.emit(sa, range(20))
        counts.append(len(esp_on(plugged)))
        if not member.refused and counts == [0]:
            member.rules.leave()
    assert counts == [0, 20], (
        f"without the rules {counts} packets left before and after, expected [0, 20]"
        f" {member.remark}"
    )


def run(where: Namespace, *arguments: str) -> tuple[int, str]:
    """Run the tool as a program would be, in a namespace; return its code and what it said."""
    said, complained = io.StringIO(), io.StringIO()
    with where.inside(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        code = xt_cluster_rules.main(arguments)
    return code, said.getvalue() or complained.getvalue()


@pytest.mark.proof(red=r"join said 1 'xt_cluster_rules: a filter chain at hook 8 refused")
@ENDS
@WAYS
def test_the_tool_says_what_it_has_done(netns: Namespace, ends: Ends, by: str) -> None:
    address = ends.cluster
    code, said = run(
        netns, "join", "--address", address, "--total", "4", "--by", by, "--own", "2,3"
    )
    assert code == 0, f"join said {code} {said!r}, expected 0"
    name = address.replace(".", "-")
    where = f" {xt_cluster_rules.DIRECTORY / name}" if by == FILE else ""
    line = "{} segments {} of 4 seed 0 by {}{}\n"
    shown = [run(netns, "show")]
    shown.append(run(netns, "own", "--address", address, "1,3"))
    shown.append(run(netns, "show"))
    shown.append(run(netns, "own", "--address", address, ""))
    shown.append(run(netns, "show"))
    expected = [
        (0, line.format(address, "2,3", by, where)),
        (0, ""),
        (0, line.format(address, "1,3", by, where)),
        (0, ""),
        (0, line.format(address, "none", by, where)),
    ]
    assert shown == expected, f"it said {shown}, expected {expected}"
    left = [run(netns, "leave"), run(netns, "show"), run(netns, "own", "--address", address, "1")]
    no = f"xt_cluster_rules: no rules for {address}; join first\n"
    assert left == [(0, ""), (0, ""), (1, no)], f"after leaving it said {left}"
