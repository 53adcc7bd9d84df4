# SPDX-License-Identifier: GPL-2.0-only
"""Nodes of a cluster: one address, the same SAs on each, and what arrives at all of them.

A node is driven from outside: packets are sealed by the test (sealing.py) and
put on a wire, which is a TUN device of one node alone, or a bridge between a
peer and two nodes that floods what goes to the cluster's multicast MAC.

The rule that makes a namespace a node may be refused: a kernel without the
extension has no word for it. The node then goes on as a plain host, so that a
proof sees what such a kernel does with the packets.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import sealing
import xfrm_attributes as xa
import xfrm_structures as xs
from namespaces import Namespace, SetUpError, namespace, wait_until
from segment_hash import spi_in
from wire import Wire, wire
from xfrm_netlink import XfrmSocket

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: The MAC of both-active's 192.168.0.5 in strongSwan's own cases begins alike.
MAC = "01:00:5e:00:09:01"
PEER_MAC = "02:00:00:00:09:02"
PORT = 4242
MARKER_PORT = 4243
PATIENCE = 15
#: How far a change of segments moves the numbers on: 1/16 of what 32 bits hold.
JUMP = 0xFFFFFFFF // 16

_SO_RCVBUFFORCE = 33
_ROOM = 1 << 22
_ETH_P_ALL = 3


@dataclass(frozen=True)
class Ends:
    """Who is who in one family: the cluster's address, the peer, and what they tunnel for."""

    cluster: str
    peer: str
    behind_cluster: str
    behind_peer: str
    nets: tuple[str, str]
    bits: int
    own: tuple[str, str]


#: By its source address the peer is of segment 2 of 2 in both families.
IPV4 = Ends(
    "10.9.0.1", "10.9.0.2", "10.80.0.1", "10.77.0.2", ("10.80.0.0/24", "10.77.0.0/24"), 32,
    ("10.9.0.11", "10.9.0.12"),
)  # fmt: skip
IPV6 = Ends(
    "fd09::1", "fd09::2", "fd80::1", "fd77::2", ("fd80::/64", "fd77::/64"), 128,
    ("fd09::11", "fd09::12"),
)  # fmt: skip


class Link(Protocol):
    """How packets get to a node, or to several."""

    def send(self, packet: bytes) -> None:
        """Let an IP packet arrive."""


def receiver(where: Namespace, ends: Ends, port: int) -> socket.socket:
    """Open a UDP socket that has room for all a test sends."""
    opened = where.socket(xs.family_of(ends.cluster), socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
    opened.bind(("", port))
    return opened


@dataclass
class Node:
    """One member of a cluster, or a host that happens to have its address.

    ``own`` is an address of its own, which no rule is about. ``refused`` is what
    iptables-legacy said to the last rule, "" when it was taken; ``switch_name`` is
    what the file of its segments is called if not by the cluster's address.
    """

    namespace: Namespace
    link: Link
    ends: Ends
    own: str
    device: str
    xfrm: XfrmSocket
    inner: socket.socket
    marker: socket.socket
    refused: str = "there is no rule"
    switch_name: str = ""
    _marks: int = 0
    _got: list[str] = field(default_factory=list)
    _errors: Counter[str] = field(default_factory=Counter)

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.namespace.label

    @property
    def remark(self) -> str:
        """What an assertion adds, so that a refused rule is known as the cause."""
        return f" (rule: {self.refused})" if self.refused else ""

    def iptables(self, *words: str) -> str:
        """Run iptables-legacy and return what it printed."""
        return self.namespace.run(["iptables-legacy", *words])

    def rule(self, total: int, local_node: int = 0, *words: str) -> None:
        """Add the rule strongSwan's cases have; without a ``local_node`` it owns nothing yet."""
        try:
            self.iptables("-A", "INPUT", *self.rule_words(total, local_node), *words)
        except SetUpError as refusal:
            self.refused = str(refusal).rpartition(": ")[2]
        else:
            self.refused = ""

    def rule_words(self, total: int, local_node: int) -> tuple[str, ...]:
        """Return the rule as iptables-legacy is told it."""
        return (
            "-i", self.device, "-d", self.ends.cluster, "-j", "CLUSTERIP", "--new",
            "--hashmode", "sourceip", "--clustermac", MAC,
            "--total-nodes", str(total), "--local-node", str(local_node),
        )  # fmt: skip

    def without_rules(self) -> None:
        """Take all rules of INPUT away."""
        self.iptables("-F", "INPUT")
        self.refused = "there is no rule"

    @property
    def switch(self) -> Path:
        """The file that tells it which segments it owns; only from inside its namespace."""
        name = self.switch_name or self.ends.cluster
        return Path("/proc/thread-self/net/ipt_CLUSTERIP", name)

    def write(self, text: str) -> None:
        """Write to that file in one go, OSError being as the kernel answers."""
        with self.namespace.inside():
            descriptor = os.open(self.switch, os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def segments(self) -> str:
        """Read that file."""
        with self.namespace.inside():
            return self.switch.read_text(encoding="ascii")

    def take_over(self, *segments: int) -> None:
        """Own segments from now on, unless it is a plain host."""
        self._write_each("+", segments)

    def give_up(self, *segments: int) -> None:
        """Own segments no longer."""
        self._write_each("-", segments)

    def _write_each(self, sign: str, segments: tuple[int, ...]) -> None:
        for segment in segments if not self.refused else ():
            self.write(f"{sign}{segment}\n")

    def inbound(
        self,
        segment: int,
        total: int,
        *attributes: tuple[str, bytes],
        mode: int = xs.MODE_TRANSPORT,
        window: int = 32,
    ) -> xs.Sa:
        """Return an SA from the peer that is of a segment; not yet added."""
        spi = spi_in(self.ends.cluster, segment, total)
        ends = (self.ends.peer, self.ends.cluster)
        return sealing.sa(*ends, spi, *attributes, mode=mode, window=window)

    def outbound(
        self,
        segment: int,
        total: int,
        *attributes: tuple[str, bytes],
        mode: int = xs.MODE_TRANSPORT,
    ) -> xs.Sa:
        """Return an SA to the peer that is of a segment; not yet added."""
        spi = spi_in(self.ends.peer, segment, total)
        ends = (self.ends.cluster, self.ends.peer)
        return sealing.sa(*ends, spi, *attributes, mode=mode, window=0)

    def add(self, made: xs.Sa) -> xs.Sa:
        """Install an SA, with the policy it needs."""
        self.xfrm.add(made)
        outbound = made.source == self.ends.cluster
        if not outbound and made.mode == xs.MODE_TRANSPORT:
            return made
        nets = self.ends.nets
        if made.mode != xs.MODE_TUNNEL:
            nets = (f"{self.ends.cluster}/{self.ends.bits}", f"{self.ends.peer}/{self.ends.bits}")
        selector = xs.Selector(*(nets if outbound else nets[::-1]))
        template = xs.Template(made.source, made.destination, made.proto, made.mode)
        for direction in (xs.DIR_OUT,) if outbound else (xs.DIR_IN, _DIR_FORWARD):
            self.xfrm.add_policy(xs.Policy(selector, direction, template))
        return made

    def sealer(self, made: xs.Sa) -> sealing.Sealer:
        """Return the peer's end of an SA."""
        if made.mode != xs.MODE_TUNNEL:
            return sealing.Sealer(made)
        inner = (self.ends.behind_peer, self.ends.behind_cluster)
        return sealing.Sealer(made, inner if made.source == self.ends.peer else inner[::-1])

    def dumped(self, made: xs.Sa) -> xs.Sa:
        """Return an SA as it is now."""
        found = self.xfrm.find(made)
        if found is None:
            raise SetUpError(f"{self.label} has no SA of the SPI {made.spi:#x} any more")
        return found

    def replay(self, made: xs.Sa) -> xa.Replay:
        """Return where an SA's counting is."""
        return xa.Replay.of(dict(self.dumped(made).attributes))

    def settle(self) -> None:
        """Wait until all that was put on the link before has been dealt with."""
        mark = self._mark()
        while self.marker.recv(100) != mark:
            pass

    def is_reached(self) -> bool:
        """Tell whether a packet for its own address arrives at once."""
        self._mark()
        return bool(select.select([self.marker], [], [], 0)[0])

    def _mark(self) -> bytes:
        self._marks += 1
        mark = str(self._marks).encode()
        self.link.send(sealing.udp_packet(self.ends.peer, self.own, MARKER_PORT, mark))
        return mark

    def delivered(self, expected: int = 0) -> list[str]:
        """Return the datagrams that came out of SAs, after waiting for as many as expected."""
        self.settle()
        wait_until(lambda: self._drain() >= expected, seconds=PATIENCE)
        return self._got

    def forget(self) -> None:
        """Begin to count what is delivered anew."""
        self.settle()
        self._drain()
        self._got = []

    def _drain(self) -> int:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._got.append(self.inner.recv(2000).decode())
        return len(self._got)

    def emit(self, made: xs.Sa, numbers: Iterable[int]) -> int:
        """Send a datagram for each number through an SA; return how many the kernel refused."""
        tunnel = made.mode == xs.MODE_TUNNEL
        here = self.ends.behind_cluster if tunnel else self.ends.cluster
        there = self.ends.behind_peer if tunnel else self.ends.peer
        refused = 0
        with self.namespace.socket(xs.family_of(here), socket.SOCK_DGRAM) as sender:
            sender.bind((here, 0))
            for number in numbers:
                try:
                    sender.sendto(str(number).encode(), (there, PORT))
                except OSError as error:
                    # A veth has no queue, and what asynchronous crypto keeps is ENOMEM to the
                    # sender on any kernel, though it leaves.
                    refused += error.errno != errno.ENOMEM
        return refused

    def clear(self) -> None:
        """Make it a host without rules, SAs and policies; forget all."""
        self.xfrm.flush()
        self.xfrm.flush_policies()
        if not self.refused:
            self.without_rules()
        self.forget()
        self._errors = _xfrm_errors(self.namespace)

    def errors(self) -> dict[str, int]:
        """Return what XFRM has counted as errors since it was cleared."""
        return dict(_xfrm_errors(self.namespace) - self._errors)


def segments_by_jumps(node: Node, total: int) -> dict[tuple[str, int], int]:
    """Ask the kernel for the segment of every SA from the cluster's address, all at once.

    Each change of a segment moves the numbers of its SAs on; segment N is taken
    over and given up N times. The SAs need 64 bits for that.
    """
    before = node.xfrm.numbers_sent()
    if not node.refused:
        with node.namespace.inside():
            descriptor = os.open(node.switch, os.O_WRONLY)
        for segment in range(1, total + 1):
            for _ in range(segment):
                os.write(descriptor, b"+%d" % segment)
                os.write(descriptor, b"-%d" % segment)
        os.close(descriptor)
    after = node.xfrm.numbers_sent()
    return {sa: (after[sa] - number) // (2 * JUMP) for sa, number in before.items()}


_DIR_FORWARD = 2
_UDP_ENCAP = 100
_UDP_GRO = 104


def encap_socket(where: Namespace, *, gro: bool = False) -> socket.socket:
    """Open the socket through which ESP in UDP over IPv4 arrives, for GRO to open or not."""
    opened = where.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setsockopt(socket.IPPROTO_UDP, _UDP_ENCAP, xa.ENCAP_UDP)
    opened.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, gro)
    opened.bind(("", sealing.ENCAP_PORT))
    return opened


def _xfrm_errors(where: Namespace) -> Counter[str]:
    """Return the counters of /proc/net/xfrm_stat."""
    with where.inside():
        text = Path("/proc/thread-self/net/xfrm_stat").read_text(encoding="ascii")
    return Counter({name: int(number) for name, number in map(str.split, text.splitlines())})


def esp_on(plugged: Wire) -> list[bytes]:
    """Return the packets with ESP, in UDP or not, that left by a wire since the last call."""
    left = []
    while packet := plugged.receive(lambda packet: bool(sealing.esp_of(packet)), timeout=0):
        left.append(packet)
    return left


@contextlib.contextmanager
def _node(where: Namespace, link: Link, ends: Ends, own: str, device: str) -> Iterator[Node]:
    """Make a namespace, whose device is there, a node without a rule."""
    with contextlib.ExitStack() as undo:
        where.ip(
            f"addr add {own}/{ends.bits} dev {device}{_nodad(ends)}",
            f"addr add {ends.behind_cluster}/{ends.bits} dev lo{_nodad(ends)}",
            f"route add {ends.nets[1]} via {ends.peer} dev {device} onlink"
            f" src {ends.behind_cluster}",
        )
        with where.inside():
            xfrm = undo.enter_context(contextlib.closing(XfrmSocket()))
        inner = undo.enter_context(receiver(where, ends, PORT))
        inner.settimeout(0)
        marker = undo.enter_context(receiver(where, ends, MARKER_PORT))
        marker.settimeout(PATIENCE)
        yield Node(where, link, ends, own, device, xfrm, inner, marker)


@contextlib.contextmanager
def lone_node(
    where: Namespace, *, gro: bool = False, ends: Ends = IPV4
) -> Iterator[tuple[Node, Wire]]:
    """Make a namespace a node on a TUN device, through which its packets pass GRO or not."""
    with (
        wire(where, gro=gro) as plugged,
        _node(where, plugged, ends, ends.own[0], Wire.DEVICE) as node,
    ):
        yield node, plugged


class Wired:
    """Nodes on a wire each, made when first asked for and shared by a file's tests."""

    def __init__(self) -> None:
        """Have none yet."""
        self._undo = contextlib.ExitStack()
        self._nodes: dict[tuple[Ends, bool], tuple[Node, Wire]] = {}

    def close(self) -> None:
        """Take all away."""
        self._undo.close()

    def node(self, ends: Ends = IPV4, *, gro: bool = False) -> tuple[Node, Wire]:
        """Give the node of a family, whose packets pass GRO or not, and its wire."""
        if (ends, gro) not in self._nodes:
            where = self._undo.enter_context(namespace("the node"))
            made = self._undo.enter_context(lone_node(where, gro=gro, ends=ends))
            self._nodes[ends, gro] = made
        return self._nodes[ends, gro]

    def clear(self) -> None:
        """Make them hosts without rules and SAs again."""
        for node, plugged in self._nodes.values():
            node.clear()
            esp_on(plugged)


class Segment:
    """The peer's end of the bridge: frames to both nodes, and what they send."""

    def __init__(self, peer: Namespace) -> None:
        """Open it."""
        self._peer = peer
        self._socket = peer.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        self._socket.bind((BRIDGE, _ETH_P_ALL))
        self._socket.settimeout(0)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def send(self, packet: bytes) -> None:
        """Send an IP packet to the cluster's MAC, and so to both nodes."""
        kind = 0x86DD if packet[0] >> 4 == 6 else 0x0800
        self.send_frame(_mac(MAC) + _mac(PEER_MAC) + struct.pack("!H", kind) + packet)

    def send_frame(self, frame: bytes) -> None:
        """Send a frame as it is."""
        self._socket.send(frame)

    def send_large(self, packet: bytes, to: Node, segment: int) -> None:
        """Send a packet of TCP to one node, to be cut into segments where it leaves."""
        with to.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW) as opened:
            opened.bind((to.device, 0))
            mac = opened.getsockname()[4]
        with self._peer.socket(socket.AF_PACKET, socket.SOCK_RAW) as opened:
            opened.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            opened.bind((BRIDGE, 0))
            # struct virtio_net_hdr: the checksum is to be finished, TCP to be cut.
            size, kind, cut = (40, b"\x86\xdd", 4) if packet[0] >> 4 == 6 else (20, b"\x08\x00", 1)
            head = struct.pack("=BBHHHH", 1, cut, 14 + size + 20, segment, 14 + size, 16)
            opened.send(head + mac + _mac(PEER_MAC) + kind + packet)

    def frames(self) -> list[bytes]:
        """Return the frames that arrived at the peer since the last call."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, (_, _, direction, *_) = self._socket.recvfrom(2000)
                if direction != socket.PACKET_OUTGOING:
                    found.append(frame)
        return found

    def esp(self) -> list[bytes]:
        """Return the packets with ESP, in UDP or not, among them."""
        packets = (frame[14:] for frame in self.frames() if frame[12:14] in _IP)
        return [packet for packet in packets if sealing.esp_of(packet)]


BRIDGE = "bridge"
_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_IP = (b"\x08\x00", b"\x86\xdd")


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


@dataclass(frozen=True)
class Cluster:
    """Two nodes, and the peer, in whose namespace the bridge is."""

    peer: Namespace
    segment: Segment
    a: Node
    b: Node

    @property
    def nodes(self) -> tuple[Node, Node]:
        """Both."""
        return self.a, self.b

    def rule(self, total: int) -> None:
        """Give both nodes a rule by which they own nothing."""
        for node in self.nodes:
            node.rule(total)

    def add(self, made: xs.Sa) -> xs.Sa:
        """Install an SA, as if negotiated by one and told the other, on both."""
        for node in self.nodes:
            node.add(made)
        return made

    def arrive(self, packets: Iterable[bytes]) -> None:
        """Let packets arrive at both nodes."""
        for packet in packets:
            self.segment.send(packet)

    def emitted(self, sa: xs.Sa, packets: int, *, high: int = 0) -> list[int]:
        """Let both nodes send through an SA; return the numbers that left, each packet opened."""
        for node in self.nodes:
            node.emit(sa, range(packets))
        left = self.segment.esp()
        for packet in left:
            self.a.sealer(sa).open(packet, high=high)
        return [high << 32 | sealing.sequence_of(packet) for packet in left]

    def sent(self, sa: xs.Sa) -> list[int]:
        """Return the last number each node has taken."""
        return [node.replay(sa).sent for node in self.nodes]

    def fail_over(self, *segments: int) -> None:
        """Let B own what A owns."""
        self.a.give_up(*segments)
        self.b.take_over(*segments)

    def clear(self) -> None:
        """Take all away but the nodes."""
        for node in self.nodes:
            node.clear()
        self.segment.frames()


@contextlib.contextmanager
def two_nodes(ends: Ends = IPV4) -> Iterator[Cluster]:
    """Make a cluster of two nodes and its peer, all of whom see each other's frames."""
    names = ("to-a", "to-b")
    with contextlib.ExitStack() as undo:
        peer, *members = (
            undo.enter_context(namespace(label)) for label in ("the peer", "node A", "node B")
        )
        peer.ip(
            f"link add {BRIDGE} address {PEER_MAC} type bridge forward_delay 0 mcast_snooping 0",
            f"addr add {ends.peer}/{_prefix(ends)} dev {BRIDGE}",
            *(
                f"link add {name} type veth peer name {DEVICE} netns {member.path}"
                for name, member in zip(names, members, strict=True)
            ),
            *(f"link set {name} master {BRIDGE} up" for name in names),
            f"link set {BRIDGE} up",
            *_known_to_the_peer(ends),
        )
        segment = undo.enter_context(contextlib.closing(Segment(peer)))
        nodes = []
        for member, own in zip(members, ends.own, strict=True):
            member.ip(
                f"addr add {ends.cluster}/{_prefix(ends)} dev {DEVICE}{_nodad(ends)}",
                f"link set {DEVICE} up",
                f"neigh add {ends.peer} lladdr {PEER_MAC} dev {DEVICE} nud permanent",
            )
            nodes.append(undo.enter_context(_node(member, segment, ends, own, DEVICE)))
        made = Cluster(peer, segment, *nodes)
        for node in made.nodes:
            # The ports of a new bridge take a moment.
            if not wait_until(node.is_reached, seconds=PATIENCE):
                raise SetUpError(f"nothing reaches {node.label} through the bridge")
        yield made


DEVICE = "net"


def _known_to_the_peer(ends: Ends) -> tuple[str, ...]:
    """Return what keeps the peer from asking where the cluster is.

    What a node answers in IPv6 goes through an SA to the peer, and takes a number.
    """
    if ends.bits == IPV4.bits:
        return ()
    return (f"neigh add {ends.cluster} lladdr {MAC} dev {BRIDGE} nud permanent",)


def _nodad(ends: Ends) -> str:
    """Return what makes an address one to use at once: even on lo a work queue says so else."""
    return " nodad" if ends.bits == 128 else ""


def _prefix(ends: Ends) -> int:
    return 24 if ends.bits == 32 else 64
