# SPDX-License-Identifier: GPL-2.0-only
"""strongSwan's HA cases: two gateways with the ha plugin, and the road warriors they serve.

What divides the traffic between the gateways is a Division: the rules that an
extension of the kernel gives. The rest is as in strongSwan's own suite
(testing/tests/ha), but with a shared key. There a node that was killed keeps its
cables; here they are pulled with it, as a crash would.
"""

from __future__ import annotations

import contextlib
import re
import struct
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ha_network import (
    GATEWAYS,
    IPV4,
    PEERS,
    network,
)
from namespaces import SetUpError, wait_until
from segment_hash import sa_segment, spis
from strongswan import Charon, Configuration, Connection, Setting, Wanted, several
from xfrm_netlink import XfrmSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xfrm_structures as xs
    from ha_network import Addresses, Network
    from namespaces import Namespace

#: What the ha plugin waits for a heartbeat before it takes all segments: its default.
HEARTBEAT_TIMEOUT = 2.1

_PATIENCE = 30
_ORDER = 5
# Longer than a heartbeat between the gateways takes.
_CROSSING = 0.5
_RUN = 8
_PROPOSALS = "proposals = aes128-sha256-x25519"
_ESP = "esp_proposals = aes128gcm128-x25519"
_MARS = "mars.strongswan.org"

# The suite's own rules, those of both cases together; the CLUSTERIP rules come before.
_FILTER = """
*filter
:INPUT DROP [0:0]
:OUTPUT DROP [0:0]
:FORWARD DROP [0:0]
-A FORWARD -i out -m policy --dir in --pol ipsec --proto esp -s {carol} -j ACCEPT
-A FORWARD -i out -m policy --dir in --pol ipsec --proto esp -s {dave} -j ACCEPT
-A FORWARD -o out -m policy --dir out --pol ipsec --proto esp -j ACCEPT
-A INPUT -p 50 -j ACCEPT
-A OUTPUT -p 50 -d {carol} -j ACCEPT
-A OUTPUT -p 50 -d {dave} -j ACCEPT
-A OUTPUT -o in -s {own} -d {other} -p 50 -j ACCEPT
-A INPUT -i in -d {own} -s {other} -p udp --sport 500 --dport 500 -j ACCEPT
-A OUTPUT -o in -s {own} -d {other} -p udp --dport 500 --sport 500 -j ACCEPT
-A INPUT -i out -p udp --sport 500 --dport 500 -j ACCEPT
-A OUTPUT -o out -p udp --dport 500 --sport 500 -j ACCEPT
-A INPUT -i out -p udp --sport 4500 --dport 4500 -j ACCEPT
-A OUTPUT -o out -p udp --dport 4500 --sport 4500 -j ACCEPT
-A INPUT -i in -d {own} -s {other} -p udp --dport 4510 --sport 4510 -j ACCEPT
-A OUTPUT -o in -s {own} -d {other} -p udp --dport 4510 --sport 4510 -j ACCEPT
{icmp}
COMMIT
"""
_ICMP = """
-A INPUT -i in -d {own} -s {other} -p icmp --icmp-type 3 -j ACCEPT
-A OUTPUT -o in -s {own} -d {other} -p icmp --icmp-type 3 -j ACCEPT
"""
# What ARP is to IPv4 goes through these rules.
_ICMPV6 = """
-A INPUT -i in -d {own} -s {other} -p icmpv6 --icmpv6-type 1 -j ACCEPT
-A OUTPUT -o in -s {own} -d {other} -p icmpv6 --icmpv6-type 1 -j ACCEPT
-A INPUT -p icmpv6 --icmpv6-type 135 -j ACCEPT
-A OUTPUT -p icmpv6 --icmpv6-type 135 -j ACCEPT
-A INPUT -p icmpv6 --icmpv6-type 136 -j ACCEPT
-A OUTPUT -p icmpv6 --icmpv6-type 136 -j ACCEPT
"""


class Division(Protocol):
    """How a gateway is told which packets are its own.

    ``refusal`` is what a kernel says that does not know how, ``files`` are those
    under /proc/net/ipt_CLUSTERIP to which the ha plugin writes.
    """

    refusal: str
    files: tuple[str, ...]

    def put(self, gateway: Namespace, total: int) -> None:
        """Give a gateway its rules, first of all; it owns no segment yet. SetUpError if refused."""

    def clear(self, gateway: Namespace) -> None:
        """Take them away, but for those of iptables-legacy."""


class ClusterIp:
    """iptables' CLUSTERIP target, as the suite has it."""

    # Without the target; with the target as it was, which wants a node of its own.
    refusal = r"CLUSTERIP.*(No chain/target/match by that name|Invalid argument)"
    files: tuple[str, ...] = (IPV4.virtual, IPV4.virtual_inside)

    def put(self, gateway: Namespace, total: int) -> None:
        """Give a gateway its rules; it owns no segment yet."""
        for device, address, mac in IPV4.shared_macs():
            rule = f"-A INPUT -i {device} -d {address} -j CLUSTERIP --new --hashmode sourceip"
            nodes = f"--clustermac {mac} --total-nodes {total} --local-node 0"
            gateway.run(["iptables-legacy", *rule.split(), *nodes.split()])

    def clear(self, gateway: Namespace) -> None:
        """Take no more away."""


@dataclass(frozen=True)
class Case:
    """What one of the suite's two cases sets."""

    segments: int
    plugin: tuple[str, ...]
    at: Addresses = IPV4

    def owner(self, segment: int) -> str:
        """Return the gateway that has a segment at the outset."""
        return "alice" if segment == 1 else "moon"


# Without the suite's autobalance: it would give a segment to a gateway that comes
# back and is slow before that one has the SAs.
BOTH_ACTIVE = Case(2, ("segment_count = 2",))
ACTIVE_PASSIVE = Case(1, ("segment_count = 1", "secret = PliyxREnfoPaSXDJx1NrlH0kkKXT"))


def _spi_lines(name: str, case: Case) -> tuple[str, ...]:
    """Return a range of SPIs, so that each direction of each peer is of a known segment.

    The SA from carol is alice's and the one to her moon's; dave's are the other
    way round. moon serves carol's IKE and alice dave's.
    """
    if case.segments == 1:
        return ()
    own = case.at.virtual if name in GATEWAYS else case.at.outside[name]
    segment = 1 if name in ("moon", "dave") else 2
    lowest = 0xC0000000 + ((*GATEWAYS, *PEERS).index(name) << 24)
    run: list[int] = []
    for before, spi in pairwise(spis(own, segment, case.segments, lowest=lowest)):
        run = [*run, spi] if spi == before + 1 else [spi]
        if len(run) == _RUN:
            return (f"spi_min = {run[0]:#x}", f"spi_max = {run[-1]:#x}")
    raise AssertionError("unreachable: there are always more")


def _gateway(name: str, host: Namespace, case: Case) -> Wanted:
    other = GATEWAYS[1 - GATEWAYS.index(name)]
    # Heartbeats twice as often as by default: one that a busy machine delays is not to look
    # lost. And no asking for the other's SAs: that is a second after the start, when a slow
    # machine's swanctl has not yet said what the connections are; see revive().
    inside = case.at.inside
    ends = (f"local = {inside[name]}", f"remote = {inside[other]}")
    plugin = (*ends, "heartbeat_delay = 500", "resync = no")
    setting = Setting(
        lines=_spi_lines(name, case),
        plugins={"ha": (*plugin, *case.plugin)},
        threads=16,
        own_run=True,
    )
    children = {"net": (f"local_ts = {case.at.protected}", _ESP)}
    lines = ("mobike = yes", _PROPOSALS)
    connection = Connection("rw", case.at.virtual, "%any", children, lines, local_id=_MARS)
    return Wanted(host, Configuration((connection,)), setting)


def _peer(name: str, host: Namespace, case: Case) -> Wanted:
    children = {"home": (f"remote_ts = {case.at.protected}", _ESP)}
    lines = ("mobike = yes", _PROPOSALS)
    ends = (case.at.outside[name], case.at.virtual)
    ids = (f"{name}@strongswan.org", _MARS)
    connection = Connection("home", *ends, children, lines, *ids)
    return Wanted(host, Configuration((connection,)), Setting(_spi_lines(name, case)))


@dataclass
class Cluster:
    """Both gateways and their peers, running.

    ``refused`` is what the kernel said against the rules: then nothing runs.
    ``keys`` are those ever seen with a destination and an SPI.
    """

    net: Network
    case: Case
    division: Division
    refused: str = ""
    charons: dict[str, Charon] = field(default_factory=dict)
    keys: dict[tuple[str, int], set[bytes]] = field(default_factory=dict)
    undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def at(self) -> Addresses:
        """The addresses of all."""
        return self.case.at

    @property
    def _iptables(self) -> str:
        return "ip6tables-legacy" if self.at.is_ipv6 else "iptables-legacy"

    def give_rules(self, name: str) -> None:
        """Give a gateway its rules, as at its boot."""
        host = self.net.hosts[name]
        self.division.put(host, self.case.segments)
        other = GATEWAYS[1 - GATEWAYS.index(name)]
        ends = {"own": self.at.inside[name], "other": self.at.inside[other]}
        peers = {peer: self.at.outside[peer] for peer in PEERS}
        icmp = (_ICMPV6 if self.at.is_ipv6 else _ICMP).format(**ends).strip()
        rules = _FILTER.format(**ends, **peers, icmp=icmp)
        host.run([f"{self._iptables}-restore", "--noflush"], text=rules)

    def start(self, *names: str) -> None:
        """Start the charons of hosts."""
        wanted = [
            (_gateway if name in GATEWAYS else _peer)(name, self.net.hosts[name], self.case)
            for name in names
        ]
        started = self.undo.enter_context(several(*wanted))
        self.charons |= dict(zip(names, started, strict=True))
        # With a tunnel between the gateways charon does not end when asked to: the
        # suite kills it too.
        for charon in started:
            self.undo.callback(charon.process.kill)

    def owned(self, name: str) -> dict[str, str]:
        """Return the segments a gateway's kernel has, as each of its proc files says."""
        with self.net.hosts[name].inside():
            folder = Path("/proc/thread-self/net/ipt_CLUSTERIP")
            return {
                entry.name: entry.read_text(encoding="ascii").strip() for entry in folder.iterdir()
            }

    def owns(self, name: str, segments: str) -> bool:
        """Tell whether a gateway has just these segments, as all its files say."""
        return self.owned(name) == dict.fromkeys(self.division.files, segments)

    def order(self, name: str, order: str, by: str, logged: str) -> None:
        """Write to a gateway's FIFO until one of them logs what comes of it.

        "+1" takes a segment, "*1" sends its SAs to the other. The plugin reads one order
        at a time, and what is written while it obeys another is lost.
        """
        said = self.charons[by].log
        before = said().count(logged)
        for _ in range(_PATIENCE // _ORDER):
            fifo = self.charons[name].folder / "charon.ha"
            fifo.write_text(f"{order}\n", encoding="ascii")
            if wait_until(lambda: said().count(logged) > before, seconds=_ORDER):
                return
        raise SetUpError(f"{name} does not obey {order}: no {logged!r} by {by}; {self.said()}")

    def take(self, name: str, segment: int) -> None:
        """Have a gateway take a segment; if it has it, it says so again."""
        other = GATEWAYS[1 - GATEWAYS.index(name)]
        self.order(name, f"+{segment}", other, f"remote node takes segment {segment}")

    def share(self, *taken: tuple[str, int], **segments: str) -> None:
        """Have gateways take segments until they have just these.

        To the plugin, a heartbeat that is on its way while a segment changes hands says
        that both have it, and one gives it back. Then they are ordered again.
        """
        wanted = segments.items()

        def shared() -> bool:
            return all(self.owns(name, each) for name, each in wanted)

        for _ in range(_PATIENCE // _ORDER):
            for name, segment in taken:
                self.take(name, segment)
            if wait_until(shared, seconds=_ORDER) and not wait_until(
                lambda: not shared(), seconds=_CROSSING
            ):
                return
        now = {name: self.owned(name) for name in segments}
        raise SetUpError(f"the segments are {now}, wanted {segments}; {self.said()}")

    def said(self) -> str:
        """Return how the gateways' logs end."""
        return "; ".join(dict.fromkeys(self.charons[name].log_end() for name in GATEWAYS))

    def sas(self, name: str) -> list[str]:
        """Return a host's IKE_SAs as "swanctl --list-sas --raw" has them."""
        said = self.charons[name].swanctl("--list-sas", "--raw")
        return [part.strip() for part in said.split("list-sa event")[1:]]

    def states(self, name: str) -> list[xs.Sa]:
        """Return the SAs in a host's kernel that are of a tunnel with a peer."""
        with self.net.hosts[name].inside(), contextlib.closing(XfrmSocket()) as xfrm:
            shared = self.at.virtual
            found = [sa for sa in xfrm.states() if shared in (sa.source, sa.destination)]
        for sa in found:
            self.keys.setdefault((sa.destination, sa.spi), set()).add(_key(sa))
        return found

    def keyed(self, name: str) -> set[tuple[int, bytes]]:
        """Return the SPI and the key of each of a gateway's SAs with peers."""
        return {(sa.spi, _key(sa)) for sa in self.states(name)}

    def spis(self, name: str) -> set[tuple[str, int]]:
        """Return what tells a gateway's SAs with peers from each other."""
        return {(sa.destination, sa.spi) for sa in self.states(name)}

    def segment(self, sa: xs.Sa) -> int:
        """Return the segment of an SA."""
        return sa_segment(sa.destination, sa.spi, self.case.segments)

    def wait_for_sas(self) -> None:
        """Wait until both gateways have the same SAs, two for each peer."""

        def alike() -> bool:
            found = [self.spis(name) for name in GATEWAYS]
            return found[0] == found[1] and len(found[0]) == 2 * len(PEERS)

        if not wait_until(alike, seconds=_PATIENCE):
            raise SetUpError(f"the gateways do not have the same four SAs; {self.said()}")

    def replays(self, name: str) -> int:
        """Return how many packets a gateway refused for their sequence number."""
        with self.net.hosts[name].inside():
            lines = Path("/proc/thread-self/net/xfrm_stat").read_text(encoding="ascii").splitlines()
        counters = dict(line.split() for line in lines)
        return int(counters["XfrmInStateSeqError"])

    def kill(self, name: str) -> float:
        """Kill a gateway and pull its cables; return when."""
        at = time.time()
        self.charons[name].process.kill()
        self.net.plug(name, cable=False)
        return at

    def revive(self, name: str) -> None:
        """Let a gateway boot again: its kernel knows nothing, then charon starts and gets all SAs.

        It gets them when the other gateway is told to send them.
        """
        host = self.net.hosts[name]
        host.ip("xfrm state flush", "xfrm policy flush")
        host.run([self._iptables, "-F"])
        self.division.clear(host)
        self.give_rules(name)
        self.net.plug(name, cable=True)
        self.start(name)
        other = GATEWAYS[1 - GATEWAYS.index(name)]
        segments = range(1, self.case.segments + 1)
        # It may have taken all: the tunnel that brings heartbeats takes a moment.
        everything = ",".join(map(str, segments))
        self.share(*((other, segment) for segment in segments), **{name: "", other: everything})
        for segment in segments:
            self.order(other, f"*{segment}", other, f"resyncing HA segment {segment}")
        self.wait_for_sas()


@contextlib.contextmanager
def cluster(case: Case, division: Division) -> Iterator[Cluster]:
    """Run one of the suite's cases until both peers are connected."""
    with contextlib.ExitStack() as undo:
        made = Cluster(undo.enter_context(network(case.at)), case, division)
        undo.push(made.undo)
        try:
            for name in GATEWAYS:
                made.give_rules(name)
        except SetUpError as error:
            if not re.search(division.refusal, str(error)):
                raise
            made.refused = str(error)
            yield made
            return
        made.start(*GATEWAYS, *PEERS)
        # Who came first may have taken all: the other was not there in time.
        made.share(
            *((case.owner(segment), segment) for segment in range(1, case.segments + 1)),
            alice="1",
            moon="2" if case.segments > 1 else "",
        )
        for peer in PEERS:
            made.charons[peer].initiate("home")
        made.wait_for_sas()
        yield made


def _key(sa: xs.Sa) -> bytes:
    return sa.attribute("XFRMA_ALG_AEAD") or b""


def numbers(sa: xs.Sa) -> tuple[int, int]:
    """Return the last sequence numbers an SA has sent and seen."""
    wide = sa.attribute("XFRMA_REPLAY_ESN_VAL")
    if wide is not None:
        _, sent, seen, sent_high, seen_high = struct.unpack_from("=5I", wide)
        return sent_high << 32 | sent, seen_high << 32 | seen
    sent, seen, _ = struct.unpack_from("=3I", sa.attribute("XFRMA_REPLAY_VAL") or bytes(12))
    return sent, seen


def plugin_segments(log: str) -> set[tuple[str, int, int]]:
    """Return what the ha plugin says of each CHILD_SA: the peer, its segments in and out."""
    said = re.findall(
        r"HA CHILD_SA \S+ \S+ === ([^\s/]+)/\d+ \(segment in: (\d+)\*?, out: (\d+)\*?\)", log
    )
    return {(peer, int(inbound), int(outbound)) for peer, inbound, outbound in said}
