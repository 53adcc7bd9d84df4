# SPDX-License-Identifier: GPL-2.0-only
"""Make this network namespace a node of a cluster by xt_cluster revision 1, which nft cannot say.

    python3 xt_cluster_rules.py join --address 10.9.0.1 --total 2 [--own 1,2] [--by rule|set|file]
    python3 xt_cluster_rules.py own --address 10.9.0.1 1,2
    python3 xt_cluster_rules.py show | leave

What nodes agree on is the address, the number of segments and the seed. Who
has which segment is said by replacing the rules ("rule"), by a set of the
table ("set"), or by /proc/net/ipt_CLUSTERIP/NAME ("file"), as an IKE daemon
writes it. The first two go through "own", which also moves the sequence
numbers of the SAs concerned, before a segment is taken and after one is given
away, so that no two nodes use the same. The kernel does that for "file".

One table xt_cluster a family is made, with five chains. What IPsec is about is
decided where its SA is known, never in INPUT: a packet dropped there would
not be followed. An SA in a bundle is known to the match only, not to a set.
What came by a multicast MAC is forwarded into an SA, out of one, or not at all:
each node gets it, and of what no SA is for none keeps the others.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import socket
import struct
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import nf_tables_raw as nf
import xfrm_structures as xs
from netlink_frames import NetlinkRefusedError
from segment_hash import sa_segment
from xfrm_netlink import XfrmSocket

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

INVERT = 1
SPI = 2
NAME_BYTES = 32
DIRECTORY = Path("/proc/thread-self/net/ipt_CLUSTERIP")
#: By how much outbound numbers are moved: a 16th of those without ESN.
JUMP = 0xFFFFFFFF // 16

RULE, SET, FILE = "rule", "set", "file"
TABLE = "xt_cluster"
_OWNED = "segments"
_NAT_T = 4500
_HASHED, _KEPT, _LOADED = nf.WORD1, nf.WORD3 + 4, nf.WORD3 + 5


@dataclass(frozen=True)
class Match:
    """struct xt_cluster_match_info1; an ``address`` or ``name`` of "" is none.

    ``mask`` has bit 0 for segment 1.
    """

    total: int
    mask: int
    seed: int = 0
    flags: int = SPI
    address: str = ""
    name: str = ""

    LAYOUT: ClassVar = struct.Struct("=4I16s32s8s")
    REVISION: ClassVar = 1

    def pack(self) -> bytes:
        """Return its 72 bytes."""
        address = ipaddress.ip_address(self.address).packed if self.address else b""
        head = (self.total, self.mask, self.seed, self.flags)
        return self.LAYOUT.pack(*head, address, self.name.encode(), bytes(8))

    @classmethod
    def unpack(cls, raw: bytes, family: int) -> Match:
        """Read its 72 bytes; the last eight are the kernel's own."""
        total, mask, seed, flags, address, name, _ = cls.LAYOUT.unpack(raw)
        if not any(address):
            text = ""
        elif family == xs.AF_INET:
            text = socket.inet_ntop(family, address[:4])
        else:
            text = socket.inet_ntop(family, address)
        return cls(total, mask, seed, flags, text, name.rstrip(b"\0").decode())

    def expression(self) -> bytes:
        """Return it for a rule."""
        return nf.match("cluster", self.REVISION, self.pack())


def mask_of(segments: Iterable[int]) -> int:
    """Return the mask of segments, which count from 1."""
    return sum(1 << segment - 1 for segment in set(segments))


def segments_of(mask: int) -> tuple[int, ...]:
    """Return the segments in a mask."""
    return tuple(bit + 1 for bit in range(mask.bit_length()) if mask >> bit & 1)


def verify() -> bytes:
    """End with the target that lets a packet of another node be verified, or dropped."""
    return nf.target("CLUSTERVERIFY")


@dataclass(frozen=True)
class Plan:
    """What a node is to be: ``by`` is the way in which segments are taken."""

    address: str
    total: int
    seed: int = 0
    by: str = RULE
    name: str = ""

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return xs.family_of(self.address)

    def match(self, owned: Iterable[int], *, invert: bool = True) -> Match:
        """Return the match of one rule."""
        flags = SPI | (INVERT if invert else 0)
        name = self.name if self.by == FILE else ""
        return Match(self.total, mask_of(owned), self.seed, flags, self.address, name)

    def everything(self, *, invert: bool) -> Match:
        """Return a match that owns all: it fails only for numbers from before a jump."""
        return replace(self.match(range(1, self.total + 1), invert=invert), name="")


class Numbers:
    """The sequence numbers of the outbound SAs of a node."""

    def __init__(self, plan: Plan) -> None:
        """Look at those of the network namespace it is made in."""
        self._plan = plan
        self._xfrm = XfrmSocket()

    def close(self) -> None:
        """Close it."""
        self._xfrm.close()

    def jump(self, segments: Iterable[int]) -> int:
        """Move those of the SAs of segments; return how many SAs it were."""
        wanted = set(segments)
        moved = 0
        for sa in self._xfrm.states() if wanted else ():
            if sa.source == self._plan.address and not sa.is_larval and self._segment(sa) in wanted:
                self._xfrm.set_replay(sa, moved_on(sa))
                moved += 1
        return moved

    def _segment(self, sa: xs.Sa) -> int:
        return sa_segment(sa.destination, sa.spi, self._plan.total, self._plan.seed)


_MAY_WRAP = 2
_REPLAY = struct.Struct("=3I")
_ESN_HEAD = struct.Struct("=6I")


def moved_on(sa: xs.Sa) -> tuple[str, bytes]:
    """Return the replay state of a dumped SA with its outbound number moved by JUMP.

    Without ESN it stops where the next packet is refused, unless the SA may wrap.
    """
    esn = sa.attribute("XFRMA_REPLAY_ESN_VAL")
    if esn is None:
        sent, *inbound = _REPLAY.unpack(sa.attribute("XFRMA_REPLAY_VAL") or bytes(_REPLAY.size))
        return "XFRMA_REPLAY_VAL", _REPLAY.pack(_within_32_bits(sa, sent + JUMP), *inbound)
    words, sent, received, sent_high, received_high, window = _ESN_HEAD.unpack_from(esn)
    number = (sent_high << 32 | sent) + JUMP
    if not sa.flags & xs.STATE_ESN:
        number = _within_32_bits(sa, sent + JUMP)
    head = (words, number & 0xFFFFFFFF, received, number >> 32, received_high, window)
    return "XFRMA_REPLAY_ESN_VAL", _ESN_HEAD.pack(*head) + esn[_ESN_HEAD.size :]


def _within_32_bits(sa: xs.Sa, number: int) -> int:
    extra = sa.attribute("XFRMA_SA_EXTRA_FLAGS") or bytes(4)
    if int.from_bytes(extra, sys.byteorder) & _MAY_WRAP:
        return number & 0xFFFFFFFF
    return min(number, 0xFFFFFFFF)


class Rules:
    """The table of one node, in a namespace (anything with ``inside()``)."""

    def __init__(self, place: nf.Place, plan: Plan) -> None:
        """Say what is to be made; ``join`` makes it."""
        self._place = place
        self.plan = plan
        self.table = nf.Table(place, _nf_family(plan.family), TABLE, make=False)

    def join(self, owned: Iterable[int] = ()) -> None:
        """Make the table, owning some segments; NetlinkRefusedError, and nothing is made."""
        plan, owned = self.plan, tuple(owned)
        requests = [
            self.table.made(),
            self.table.chain("verify", nf.XFRM_IN),
            self.table.chain("seal", nf.XFRM_OUT),
            self.table.chain("arrive", nf.PRE_ROUTING, priority=-300),
            self.table.chain("input", nf.LOCAL_IN),
            self.table.chain("forward", nf.FORWARD),
            *self._forwarding(),
        ]
        if plan.by == SET:
            requests += [self.table.set_of_words(_OWNED), *self._elements(owned)]
        self.table.apply(*requests, *self._rules(owned))

    def own(self, owned: Iterable[int], before: Iterable[int]) -> None:
        """Own other segments than before, and see to the sequence numbers."""
        owned, before = set(owned), set(before)
        taken, given = owned - before, before - owned
        if self.plan.by == FILE:
            self._write(given, taken)
            return
        with self._place.inside(), contextlib.closing(Numbers(self.plan)) as numbers:
            numbers.jump(taken)
            self.switch(owned, before)
            numbers.jump(given)

    def _write(self, given: set[int], taken: set[int]) -> None:
        """Do what a daemon does."""
        words = [f"-{segment}\n" for segment in sorted(given)]
        words += [f"+{segment}\n" for segment in sorted(taken)]
        with self._place.inside():
            for word in words:
                self.file.write_text(word, encoding="ascii")

    def switch(self, owned: Iterable[int], before: Iterable[int]) -> None:
        """Own other segments than before, at once and all else left as it is; not for "file"."""
        owned, before = set(owned), set(before)
        if self.plan.by == SET:
            gone = self.table.without_elements(_OWNED, *_numbers(before - owned))
            added = self.table.elements(_OWNED, *_numbers(owned - before))
            requests = [gone] if before - owned else []
            requests += [added] if owned - before else []
            self.table.apply(*requests)
        else:
            emptied = (
                self.table.without_rules(name) for name in ("verify", "seal", "arrive", "input")
            )
            self.table.apply(*emptied, *self._rules(tuple(owned)))

    def leave(self) -> None:
        """Take the table away."""
        self.table.delete()

    def _elements(self, owned: Sequence[int]) -> list[nf.Request]:
        return [self.table.elements(_OWNED, *_numbers(owned))] if owned else []

    def _rules(self, owned: Sequence[int]) -> list[nf.Request]:
        """Return the rules of all chains.

        The match without a verdict is there for what it does besides: packets
        to the cluster's multicast MAC become packets for this host.
        """
        plan, rule = self.plan, self.table.rule
        host = plan.everything(invert=False).expression()
        drop = nf.verdict(nf.DROP)
        stale = []
        if plan.by == SET:
            elsewhere = nf.is_in(_OWNED, _KEPT, invert=True)
            coming = (*self._sa_segment(out=False), elsewhere)
            going = (*self._sa_segment(out=True), elsewhere)
            without_sa = (*self._source_segment(), elsewhere)
            stale = [rule("seal", plan.everything(invert=True).expression(), drop)]
        else:
            coming = going = without_sa = (plan.match(owned).expression(),)
        ours = self._is_address
        return [
            rule("verify", host),
            rule("verify", *ours("destination"), *coming, verify()),
            *stale,
            rule("seal", *ours("source"), *going, drop),
            rule("arrive", host),
            *(rule("input", *passing, nf.verdict(nf.ACCEPT)) for passing in self._ipsec()),
            rule("input", *ours("destination"), *without_sa, drop),
        ]

    def _forwarding(self) -> Iterator[nf.Request]:
        """Give the rules of "forward", which are the same whoever owns what."""
        passing = (
            # It has an SA to go into, has come out of one, or will get one of the device.
            nf.sa_spi(out=True),
            nf.has_secpath() + nf.is_equal(b"\x01"),
            *(nf.out_device_kind(kind) for kind in ("xfrm", "vti", "vti6")),
        )
        for told in passing:
            yield self.table.rule("forward", told, nf.verdict(nf.ACCEPT))
        group = (nf.link_bytes(0, 1), nf.masked(nf.REG1, nf.REG2, b"\x01"))
        is_group = nf.is_equal(b"\x01", nf.REG2)
        yield self.table.rule("forward", *group, is_group, nf.verdict(nf.DROP))

    def _is_address(self, end: str) -> tuple[bytes, ...]:
        raw = ipaddress.ip_address(self.plan.address).packed
        offset = _offset(self.plan.family, end)
        return nf.network_bytes(offset, len(raw)), nf.is_equal(raw)

    @property
    def file(self) -> Path:
        """The file that a daemon writes to; only from inside the namespace."""
        return DIRECTORY / self.plan.name

    def owned(self) -> tuple[int, ...]:
        """Return the segments that are this node's."""
        if self.plan.by == SET:
            return tuple(number + 1 for number in self.table.members(_OWNED))
        if self.plan.by == FILE:
            with self._place.inside():
                text = self.file.read_text(encoding="ascii").strip()
            return tuple(int(word) for word in text.split(",") if word)
        return segments_of(_matches(self.table, "verify")[1].mask)

    @staticmethod
    def _ipsec() -> Iterator[tuple[bytes, ...]]:
        """Give what tells ESP, AH, ESP in UDP, and what came out of one of them."""
        for proto in (socket.IPPROTO_ESP, socket.IPPROTO_AH):
            yield nf.transport_protocol(), nf.is_equal(bytes([proto]))
        yield (
            nf.transport_protocol(), nf.is_equal(bytes([socket.IPPROTO_UDP])),
            nf.transport_bytes(2, 2), nf.is_equal(_NAT_T.to_bytes(2, "big")),
            nf.transport_bytes(8, 4), nf.is_equal(bytes(4), invert=True),
        )  # fmt: skip
        yield nf.has_secpath(), nf.is_equal(b"\x01")

    def _sa_segment(self, *, out: bool) -> tuple[bytes, ...]:
        """Return what leaves the segment of an SA, from 0, in a register."""
        size = 4 if self.plan.family == xs.AF_INET else 16
        return (
            nf.network_bytes(_offset(self.plan.family, "destination"), size, _LOADED),
            nf.sa_spi(out=out, register=_LOADED + size // 4),
            *self._hashed(size + 4),
        )

    def _source_segment(self) -> tuple[bytes, ...]:
        size = 4 if self.plan.family == xs.AF_INET else 16
        return nf.network_bytes(_offset(self.plan.family, "source"), size, _LOADED), *self._hashed(
            size
        )

    def _hashed(self, size: int) -> tuple[bytes, bytes]:
        return (
            nf.host_order(_LOADED, _HASHED, size),
            nf.jenkins(_HASHED, _KEPT, length=size, total=self.plan.total, seed=self.plan.seed),
        )


def _numbers(segments: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(segment - 1 for segment in segments))


def _nf_family(family: int) -> int:
    return nf.IP if family == xs.AF_INET else nf.IP6


def _offset(family: int, end: str) -> int:
    """Return where in its header an address is."""
    first, size = (12, 4) if family == xs.AF_INET else (8, 16)
    return first if end == "source" else first + size


def _matches(table: nf.Table, chain: str) -> list[Match]:
    """Return the matches of the extension in a chain."""
    family = xs.AF_INET if table.family == nf.IP else xs.AF_INET6
    return [
        Match.unpack(parts[3], family)
        for rule in table.rules(chain)
        for name, parts in rule
        if name == "match" and parts[1].rstrip(b"\0") == b"cluster"
    ]


def found(place: nf.Place) -> Iterator[Rules]:
    """Give the rules there are in a namespace, of each family."""
    for family in (nf.IP, nf.IP6):
        table = nf.Table(place, family, TABLE, make=False)
        matches = _matches(table, "verify")
        if not matches:
            continue
        general, *special = matches
        name = special[0].name if special else ""
        by = (FILE if name else RULE) if special else SET
        yield Rules(place, Plan(general.address, general.total, general.seed, by, name))


class Here:
    """The network namespace a program is in."""

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Stay."""
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program; 0 when it was done, 1 when the kernel refused."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    join = verbs.add_parser("join", help="make the table")
    join.add_argument("--address", required=True, help="the address that all nodes have")
    join.add_argument("--total", type=int, required=True, help="how many segments there are")
    join.add_argument("--seed", type=int, default=0)
    join.add_argument("--by", choices=(RULE, SET, FILE), default=RULE)
    join.add_argument("--name", default="", help="of the file, with --by file")
    join.add_argument("--own", type=_segments, default=(), help="segments, such as 1,2")
    own = verbs.add_parser("own", help="own these segments and no others")
    own.add_argument("--address", required=True)
    own.add_argument("segments", type=_segments, help='such as 1,2, or "" for none')
    verbs.add_parser("show", help="say what there is")
    verbs.add_parser("leave", help="take all tables away")
    words = parser.parse_args(arguments)
    try:
        return _VERBS[words.verb](words)
    except (NetlinkRefusedError, OSError) as error:
        sys.stderr.write(f"xt_cluster_rules: {error}\n")
        return 1


def _segments(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(",") if word)


def _join(words: argparse.Namespace) -> int:
    name = words.name or words.address.replace(".", "-") if words.by == FILE else ""
    plan = Plan(words.address, words.total, words.seed, words.by, name)
    Rules(Here(), plan).join(words.own)
    return 0


def _own(words: argparse.Namespace) -> int:
    for rules in found(Here()):
        if rules.plan.address == words.address:
            rules.own(words.segments, rules.owned())
            return 0
    sys.stderr.write(f"xt_cluster_rules: no rules for {words.address}; join first\n")
    return 1


def _show(_words: argparse.Namespace) -> int:
    for rules in found(Here()):
        plan = rules.plan
        owned = ",".join(map(str, rules.owned())) or "none"
        by = f"{plan.by} {rules.file}" if plan.by == FILE else plan.by
        sys.stdout.write(
            f"{plan.address} segments {owned} of {plan.total} seed {plan.seed} by {by}\n"
        )
    return 0


def _leave(_words: argparse.Namespace) -> int:
    for rules in tuple(found(Here())):
        rules.leave()
    return 0


_VERBS = {"join": _join, "own": _own, "show": _show, "leave": _leave}


if __name__ == "__main__":
    sys.exit(main())
