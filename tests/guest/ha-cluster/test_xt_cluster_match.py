# SPDX-License-Identifier: GPL-2.0-only
"""E8: what xt_cluster revision 1 accepts as a rule, and which packets it matches without their SA.

The rules are in PREROUTING, where any kernel takes a match; packets come from
a TUN device and go no further. Every packet is for one segment, worked out by
segment_hash, so one rule a segment tells which one the kernel says it is.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import random
import socket
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import nf_tables_raw as nf
import sealing
import xfrm_structures as xs
from callers import write_as_32_bits
from namespaces import Namespace, goes_away, wait_until
from netlink_frames import NetlinkRefusedError
from segment_hash import jhash2, jhash_1word, sa_segment, source_segment
from wire import Wire, wire
from xt_cluster_rules import DIRECTORY, INVERT, NAME_BYTES, SPI, Match, verify

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What a kernel says that has no revision 1: its netlink speaks of the rule.
UNKNOWN = r"a rule refused: No such file or directory \(errno 2\)"
INSTEAD = r"was answered ENOENT, expected "
FAMILIES = pytest.mark.parametrize("family", [xs.AF_INET, xs.AF_INET6], ids=["ipv4", "ipv6"])
ESP, AH, UDP = socket.IPPROTO_ESP, socket.IPPROTO_AH, socket.IPPROTO_UDP
SEED = 0x5EED
ADDRESS = {xs.AF_INET: Wire.NEAR4, xs.AF_INET6: Wire.NEAR6}
PEER = {xs.AF_INET: Wire.FAR4, xs.AF_INET6: Wire.FAR6}
#: nf_tables' families of the two.
TABLES = {xs.AF_INET: nf.IP, xs.AF_INET6: nf.IP6}


def dropping(namespace: Namespace, family: int) -> nf.Table:
    """Make a table whose chain "all" is in PREROUTING and drops in the end."""
    table = nf.Table(namespace, TABLES[family], "sieve")
    table.apply(table.chain("all", nf.PRE_ROUTING, policy=nf.DROP))
    return table


@dataclass(frozen=True)
class Sieve:
    """A namespace whose PREROUTING asks the match, and then drops."""

    namespace: Namespace
    wire: Wire

    def counts(
        self, family: int, packets: list[bytes], *rules: tuple[bytes, ...]
    ) -> tuple[int, ...]:
        """Let packets arrive; return how many matched each of some rules."""
        table = dropping(self.namespace, family)
        table.apply(*(table.rule("all", *rule, nf.counter()) for rule in rules))
        for packet in packets:
            self.wire.send(packet)
        counted = table.packets("all")
        table.delete()
        return counted


@pytest.fixture
def sieve(netns: Namespace) -> Iterator[Sieve]:
    """Give a namespace with a wire."""
    with wire(netns, gro=False) as plugged:
        yield Sieve(netns, plugged)


def refusal_of(table: nf.Table, *expressions: bytes) -> str:
    """Ask for a rule; return the name of the error it is refused with, "" when it is not."""
    try:
        table.apply(table.rule("all", *expressions))
    except NetlinkRefusedError as refusal:
        return errno.errorcode[refusal.errno]
    return ""


def raw(**fields: Any) -> bytes:
    """Return a match's bytes with some parts set as bytes."""
    parts = {"total": 2, "mask": 1, "seed": 0, "flags": SPI, "address": b"", "name": b"", **fields}
    return Match.LAYOUT.pack(*parts.values(), bytes(8))


REFUSED = {
    "mask-too-large": (raw(mask=4), "EDOM"),
    "mask-too-large-of-31": (raw(total=31, mask=1 << 31), "EDOM"),
    "no-segment": (raw(total=0, mask=0), "EINVAL"),
    "33-segments": (raw(total=33), "EINVAL"),
    "unknown-flag": (raw(flags=SPI | 4), "EINVAL"),
    "unknown-high-flag": (raw(flags=SPI | 1 << 31), "EINVAL"),
    "name-with-slash": (raw(name=b"a/b"), "EINVAL"),
    "name-without-end": (raw(name=b"n" * NAME_BYTES), "EINVAL"),
    "name-dot": (raw(name=b"."), "EINVAL"),
    "name-dots": (raw(name=b".."), "EINVAL"),
    "name-of-a-clusterip": (raw(name=b"10.9.0.1"), "EINVAL"),
    "name-without-spi": (raw(flags=0, name=b"gateway"), "EINVAL"),
    "address-without-spi": (raw(flags=INVERT, address=b"\x0a\x09\0\1"), "EINVAL"),
}
ACCEPTED = {
    "one-of-one": raw(total=1),
    "none": raw(mask=0),
    "all-of-32": raw(total=32, mask=0xFFFFFFFF),
    "inverted": raw(flags=SPI | INVERT),
    "by-conntrack": raw(flags=0),
    "by-conntrack-inverted": raw(flags=INVERT),
    "an-address": raw(address=b"\x0a\x09\0\1"),
    "a-long-name": raw(name=b"n" * (NAME_BYTES - 1)),
}


@pytest.mark.proof(red=r"mask-too-large was answered ENOENT, expected EDOM")
@FAMILIES
def test_what_makes_no_sense_is_refused(netns: Namespace, family: int) -> None:
    table = dropping(netns, family)
    for case, (info, expected) in REFUSED.items():
        answer = refusal_of(table, nf.match("cluster", 1, info))
        assert answer == expected, f"{case} was answered {answer or 'yes'}, expected {expected}"
    assert not table.rules("all"), "a refused rule is listed, expected none"


@pytest.mark.proof(red=r"one-of-one was answered ENOENT, expected yes")
@FAMILIES
def test_what_makes_sense_is_taken_and_shown(netns: Namespace, family: int) -> None:
    table = dropping(netns, family)
    for case, info in ACCEPTED.items():
        answer = refusal_of(table, nf.match("cluster", 1, info))
        assert answer == "", f"{case} was answered {answer}, expected yes"
    shown = [parts[3] for ((_, parts),) in table.rules("all")]
    expected = list(ACCEPTED.values())
    assert shown == expected, f"shown is {shown}, expected {expected}: no byte of the kernel's own"


@pytest.mark.proof(red=INSTEAD)
def test_an_ipv4_address_has_four_bytes(netns: Namespace) -> None:
    info = raw(address=ipaddress.ip_address(Wire.NEAR6).packed)
    answer = refusal_of(dropping(netns, xs.AF_INET), nf.match("cluster", 1, info))
    assert answer == "EINVAL", f"16 bytes over IPv4 was answered {answer or 'yes'}, expected EINVAL"


@pytest.mark.proof(red=INSTEAD)
@FAMILIES
def test_the_target_is_for_xfrm_in_only(netns: Namespace, family: int) -> None:
    table = dropping(netns, family)
    answer = refusal_of(table, verify())
    assert answer == "EINVAL", f"CLUSTERVERIFY was answered {answer or 'yes'}, expected EINVAL"
    for hook in (nf.LOCAL_IN, nf.FORWARD, nf.XFRM_OUT):
        table.apply(table.chain(f"at {hook}", hook))
        try:
            table.apply(table.rule(f"at {hook}", verify()))
        except NetlinkRefusedError as refusal:
            answer = errno.errorcode[refusal.errno]
        assert answer == "EINVAL", f"at hook {hook} it was answered {answer}, expected EINVAL"


@pytest.mark.proof(red=UNKNOWN)
@FAMILIES
def test_no_jump_takes_the_target_elsewhere(netns: Namespace, family: int) -> None:
    table = dropping(netns, family)
    table.apply(table.regular_chain("apart"), table.rule("apart", verify()))
    refused = 0
    try:
        table.apply(table.rule("all", nf.jump("apart")))
    except NetlinkRefusedError as refusal:
        refused = refusal.errno
    assert refused == errno.EINVAL, (
        f"a jump from PREROUTING to CLUSTERVERIFY gave errno {refused}, expected EINVAL"
    )
    table.apply(table.chain("in", nf.XFRM_IN), table.rule("in", nf.jump("apart")))


@pytest.mark.proof(red=r"a filter chain at hook 8 refused: Operation not supported")
@pytest.mark.parametrize("hook", [nf.XFRM_IN, nf.XFRM_OUT], ids=["in", "out"])
def test_conntrack_is_not_asked_at_the_hooks(netns: Namespace, hook: int) -> None:
    table = nf.Table(netns, nf.IP)
    table.apply(table.chain("verify", nf.XFRM_IN), table.chain("seal", nf.XFRM_OUT))
    chain = "verify" if hook == nf.XFRM_IN else "seal"
    for revision, info in ((0, struct.pack("=4I", 2, 1, 0, 0)), (1, raw(flags=0))):
        try:
            table.apply(table.rule(chain, nf.match("cluster", revision, info)))
        except NetlinkRefusedError:
            continue
        pytest.fail(
            f"revision {revision} by conntrack was taken at hook {hook}, expected a refusal"
        )


@pytest.mark.control
def test_32_bits_make_no_other_layout() -> None:
    assert Match.LAYOUT.size == 72, f"the structure has {Match.LAYOUT.size} bytes, expected 72"


@pytest.mark.proof(red=UNKNOWN)
@FAMILIES
def test_32_bit_callers_are_understood(sieve: Sieve, family: int) -> None:
    table = dropping(sieve.namespace, family)
    match = Match(4, 0b0100, SEED, SPI, ADDRESS[family], "gateway")
    request = table.rule("all", match.expression(), nf.counter())
    table.apply(request, write=write_as_32_bits)
    spi = next(spi for spi in range(256, 999) if segment(ADDRESS[family], spi, 4) == 3)
    for number in (spi, spi + 1):
        sieve.wire.send(packet(family, ESP, struct.pack("!II", number, 1)))
    expected = 2 if segment(ADDRESS[family], spi + 1, 4) == 3 else 1
    counted = table.packets("all")
    assert counted == (expected,), f"the rule matched {counted} packets, expected {expected}"
    shown = table.rules("all")[0][0][1][3]
    assert shown == match.pack(), f"shown is {shown!r}, expected what was sent"


def segment(address: str, spi: int, total: int) -> int:
    """Return the segment of an SA with the seed of these tests."""
    return sa_segment(address, spi, total, SEED)


def packet(family: int, proto: int, payload: bytes, *, source: str = "", to: str = "") -> bytes:
    """Return a packet from the peer to the node."""
    ends = (source or PEER[family], to or ADDRESS[family])
    return sealing.ip_packet(*ends, proto, payload)


def esp(spi: int) -> bytes:
    """Return ESP that no one has to open."""
    return struct.pack("!II", spi, 1) + bytes(32)


def ah(spi: int, inner: int = UDP, payload: bytes = bytes(20)) -> bytes:
    """Return AH with an ICV of 12 bytes."""
    return struct.pack("!BBHII", inner, 4, 0, spi, 1) + bytes(12) + payload


def udp(port: int, data: bytes) -> bytes:
    """Return a UDP datagram whose checksum is nobody's concern here."""
    return struct.pack("!4H", 500, port, 8 + len(data), 0) + data


#: IPv6 extension headers: no options, 8 bytes each, the first is the next header's number.
PLAIN_OPTIONS = b"\0\1\4\0\0\0\0"
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60


def behind(headers: tuple[int, ...], proto: int, payload: bytes) -> tuple[int, bytes]:
    """Return the first number and the payload with IPv6 extension headers before it."""
    for header in reversed(headers):
        payload = bytes([proto]) + PLAIN_OPTIONS + payload
        if header == ROUTING:
            # Type 4 with no segments left is an end of its route.
            payload = payload[:1] + b"\0\4\0\0\0\0\0" + payload[8:]
        proto = header
    return proto, payload


def fragment6(proto: int, offset: int, payload: bytes, *, more: bool) -> bytes:
    """Return the payload of an IPv6 fragment."""
    return struct.pack("!BxHI", proto, offset | int(more), 77) + payload


def with_options(made: bytes) -> bytes:
    """Return an IPv4 packet with a header of 24 bytes."""
    head = bytearray(made[:20] + b"\1\1\1\0")
    head[0] = 0x46
    head[2:4] = (len(made) + 4).to_bytes(2, "big")
    return with_checksum(bytes(head)) + made[20:]


def fragment4(made: bytes, offset: int, *, more: bool) -> bytes:
    """Return an IPv4 packet as a fragment."""
    head = bytearray(made[:20])
    head[6:8] = (offset // 8 | (0x2000 if more else 0)).to_bytes(2, "big")
    return with_checksum(bytes(head)) + made[20:]


def with_checksum(head: bytes) -> bytes:
    """Return an IPv4 header whose checksum is right again."""
    bare = head[:10] + bytes(2) + head[12:]
    total: int = sum(struct.unpack(f"!{len(bare) // 2}H", bare))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return bare[:10] + (~total & 0xFFFF).to_bytes(2, "big") + bare[12:]


SA, SOURCE, NOTHING = "its SA", "its source", "nothing"
TEST_SPI = 0xC0000001
UNTOLD = b"\0\0\0"


def kinds(family: int) -> dict[str, tuple[bytes, str]]:
    """Return packets of a family, and what each goes by."""
    secret = esp(TEST_SPI)
    found = {
        "esp": (packet(family, ESP, secret), SA),
        "ah": (packet(family, AH, ah(TEST_SPI)), SA),
        "ah-around-esp": (packet(family, AH, ah(TEST_SPI, ESP, esp(TEST_SPI + 1))), SA),
        "esp-in-udp": (packet(family, UDP, udp(4500, secret)), SA),
        "esp-to-another-port": (packet(family, UDP, udp(4501, secret)), SOURCE),
        "ike-on-4500": (packet(family, UDP, udp(4500, bytes(4) + b"IKE")), SOURCE),
        "ike-on-500": (packet(family, UDP, udp(500, secret)), SOURCE),
        "keepalive": (packet(family, UDP, udp(4500, b"\xff")), SOURCE),
        "three-bytes-on-4500": (packet(family, UDP, udp(4500, b"\xff\xff\xff")), SOURCE),
        "gre": (packet(family, 47, bytes(40)), SOURCE),
        "esp-cut-short": (packet(family, ESP, UNTOLD), NOTHING),
        "ah-cut-short": (packet(family, AH, bytes(7)), NOTHING),
        "udp-cut-short": (packet(family, UDP, bytes(7)), NOTHING),
    }
    if family == xs.AF_INET:
        found |= {
            "options": (with_options(packet(family, ESP, secret)), SA),
            "first-fragment": (fragment4(packet(family, ESP, secret), 0, more=True), SA),
            "later-fragment": (fragment4(packet(family, ESP, secret), 80, more=False), NOTHING),
            "later-fragment-of-udp": (
                fragment4(packet(family, UDP, secret), 80, more=False),
                NOTHING,
            ),
            "later-fragment-of-gre": (
                fragment4(packet(family, 47, secret), 80, more=False),
                SOURCE,
            ),
        }
        return found
    chains = [(HOP_BY_HOP,), (DESTINATION,), (ROUTING,), (HOP_BY_HOP, ROUTING, DESTINATION)]
    for chain in chains:
        name = "-".join(str(header) for header in chain)
        found[f"esp-behind-{name}"] = (packet(family, *behind(chain, ESP, secret)), SA)
        found[f"ah-behind-{name}"] = (packet(family, *behind(chain, AH, ah(TEST_SPI))), SA)
        inside = udp(4500, secret)
        found[f"esp-in-udp-behind-{name}"] = (packet(family, *behind(chain, UDP, inside)), SA)
    first = fragment6(ESP, 0, secret, more=True)
    found |= {
        "first-fragment": (packet(family, FRAGMENT, first), SA),
        "later-fragment": (
            packet(family, FRAGMENT, fragment6(ESP, 80, secret, more=False)),
            NOTHING,
        ),
        "later-fragment-of-ah": (
            packet(family, FRAGMENT, fragment6(AH, 80, secret, more=False)),
            NOTHING,
        ),
        "later-fragment-of-gre": (
            packet(family, FRAGMENT, fragment6(47, 80, secret, more=False)),
            SOURCE,
        ),
        "no-next-header": (packet(family, 59, b""), SOURCE),
    }
    return found


@pytest.mark.proof(red=UNKNOWN)
@FAMILIES
@pytest.mark.parametrize("inverted", [False, True], ids=["as-is", "inverted"])
def test_each_kind_of_packet_has_its_segment(sieve: Sieve, family: int, *, inverted: bool) -> None:
    total = 32
    flags = SPI | (INVERT if inverted else 0)
    expected, seen = {}, {}
    for name, (made, by) in kinds(family).items():
        node = {
            SA: segment(ADDRESS[family], TEST_SPI, total),
            SOURCE: source_segment(PEER[family], total, SEED),
            NOTHING: 1,
        }[by]
        owned = Match(total, 1 << node - 1, SEED, flags)
        others = replace(owned, mask=owned.mask ^ 0xFFFFFFFF)
        seen[name] = sieve.counts(family, [made], (owned.expression(),), (others.expression(),))
        expected[name] = (0, 0) if by == NOTHING else (int(not inverted), int(inverted))
    wrong = {name: counts for name, counts in seen.items() if counts != expected[name]}
    assert wrong == {}, f"owner and others matched {wrong}, expected {expected} of {kinds(family)}"


@pytest.mark.proof(red=UNKNOWN)
@FAMILIES
def test_without_conntrack_nothing_is_tracked(sieve: Sieve, family: int) -> None:
    match = Match(1, 1, SEED).expression()
    counted = sieve.counts(family, [packet(family, ESP, esp(1))], (match,))
    assert counted == (1,), f"without conntrack entry the match counted {counted}, expected 1"
    with sieve.namespace.inside():
        hooked = Path("/proc/thread-self/net/nf_conntrack").read_text(encoding="ascii")
    assert hooked == "", f"conntrack has {hooked!r}, expected nothing: the match asked for it"


@pytest.mark.proof(red=UNKNOWN)
@FAMILIES
def test_other_addresses_are_left_to_every_node(sieve: Sieve, family: int) -> None:
    match = Match(2, 0, SEED, SPI, ADDRESS[family])
    inverted = replace(match, flags=SPI | INVERT)
    elsewhere = str(ipaddress.ip_address(ADDRESS[family]) + 7)
    counts = [
        sieve.counts(family, [made], (match.expression(),), (inverted.expression(),))
        for made in (
            packet(family, ESP, esp(5)),
            packet(family, ESP, esp(5), to=elsewhere),
            packet(family, UDP, udp(9, b""), to=elsewhere),
        )
    ]
    expected = [(0, 1), (1, 0), (1, 0)]
    assert counts == expected, f"who owns nothing matched {counts}, expected {expected}"


@pytest.mark.proof(red=UNKNOWN)
@pytest.mark.deadline(240)
@FAMILIES
def test_10000_packets_are_where_the_model_says(sieve: Sieve, family: int) -> None:
    chance = random.Random(family)
    table = dropping(sieve.namespace, family)
    sent = matched = 0
    for total in range(1, 33):
        seed = chance.getrandbits(32) if total % 2 else 0
        # A packet says in its own header which rule is to look at it.
        where = 4 if family == xs.AF_INET else 2
        rules = [
            (
                nf.network_bytes(where, 2),
                nf.is_equal(number.to_bytes(2, "big")),
                Match(total, 1 << number, seed).expression(),
                nf.counter(),
            )
            for number in range(total)
        ]
        table.apply(*(table.rule("all", *rule) for rule in rules))
        for made in randomly(chance, family, total, seed, 320):
            sieve.wire.send(made)
            sent += 1
        matched += sum(table.packets("all"))
        table.apply(table.without_rules("all"))
    assert (sent, matched) == (10240, 10240), (
        f"of {sent} packets the kernel put {matched} into the segment of the model, expected all"
    )


def randomly(
    chance: random.Random, family: int, total: int, seed: int, number: int
) -> Iterator[bytes]:
    """Give ESP packets to random addresses that name their segments, from 0, in the header."""
    for _ in range(number):
        spi = chance.getrandbits(32)
        if family == xs.AF_INET:
            to = chance.getrandbits(32).to_bytes(4, "big")
            wanted = sa_segment(socket.inet_ntoa(to), spi, total, seed) - 1
            head = struct.pack("!BBHHHBB", 0x45, 0, 28, wanted, 0, 64, ESP)
            made = with_checksum(head + bytes(2) + b"\x0a\x09\0\2" + to)
        else:
            # Multicast of some scopes does not get to PREROUTING.
            to = bytes([chance.randrange(0xFF)]) + chance.randbytes(15)
            wanted = sa_segment(socket.inet_ntop(family, to), spi, total, seed) - 1
            source = ipaddress.ip_address(PEER[family]).packed
            made = struct.pack("!HHHBB", 6 << 12, wanted, 8, ESP, 64) + source + to
        yield made + struct.pack("!II", spi, 1)


@pytest.mark.proof(red=UNKNOWN)
@FAMILIES
def test_packets_without_sa_are_where_the_model_says(sieve: Sieve, family: int) -> None:
    chance = random.Random(family + 1)
    total, wrong = 8, []
    table = dropping(sieve.namespace, family)
    rules = (Match(total, 1 << bit, SEED).expression() for bit in range(total))
    table.apply(*(table.rule("all", rule, nf.counter()) for rule in rules))
    before = (0,) * total
    for _ in range(64):
        address = ipaddress.ip_address(PEER[family]) + chance.randrange(1, 200)
        sieve.wire.send(packet(family, UDP, udp(500, b"IKE"), source=str(address)))
        counts = table.packets("all")
        at = [bit + 1 for bit in range(total) if counts[bit] != before[bit]]
        before = counts
        if at != [source_segment(str(address), total, SEED)]:
            wrong.append((str(address), at))
    assert wrong == [], f"of 64 sources the kernel put elsewhere than the model: {wrong}"


@dataclass(frozen=True)
class Group:
    """A table with rules that share names."""

    table: nf.Table

    @classmethod
    def of(cls, namespace: Namespace, family: int) -> Group:
        """Make the table."""
        return cls(dropping(namespace, family))

    def add(self, **changed: Any) -> str:
        """Add a rule; return the error's name, "" without one."""
        parts = {"total": 2, "mask": 1, "name": "gateway", **changed}
        return refusal_of(self.table, Match(**parts).expression())


def names(where: Namespace) -> list[str]:
    """Return the files there are."""
    with where.inside(), contextlib.suppress(FileNotFoundError):
        return sorted(path.name for path in DIRECTORY.iterdir())
    return []


@pytest.mark.proof(red=INSTEAD)
@FAMILIES
def test_rules_of_one_name_have_to_agree(netns: Namespace, family: int) -> None:
    made = Group.of(netns, family)
    first = made.add(address=ADDRESS[family])
    assert first == "", f"the first of a name was answered {first}, expected yes"
    answers = {
        "the same": made.add(address=ADDRESS[family], mask=2, flags=SPI | INVERT),
        "another total": made.add(address=ADDRESS[family], total=4),
        "another seed": made.add(address=ADDRESS[family], seed=1),
        "another address": made.add(address=PEER[family]),
        "no address": made.add(),
        "another name": made.add(address=PEER[family], name="other"),
    }
    no = "EEXIST"
    expected = dict(zip(answers, ("", no, no, no, no, ""), strict=True))
    assert answers == expected, f"answered {answers}, expected {expected}"
    files = names(netns)
    assert files == ["gateway", "other"], f"there are the files {files}, expected one a name"
    made.table.delete()
    again = Group.of(netns, family).add(total=4)
    assert again == "", f"a name given up was answered {again}, expected yes for another total"


@pytest.mark.proof(red=r"the name was answered \['ENOENT'")
def test_without_address_a_name_is_for_both_families(netns: Namespace) -> None:
    four, six = Group.of(netns, xs.AF_INET), Group.of(netns, xs.AF_INET6)
    answers = [four.add(), six.add(), four.add(name="v4", address=Wire.NEAR4)]
    answers.append(six.add(name="v4", address="a09:1::"))
    expected = ["", "", "", "EEXIST"]
    assert answers == expected, f"the name was answered {answers}, expected {expected}"
    four.table.delete()
    files = names(netns)
    assert files == ["gateway"], f"after IPv4's rules there are the files {files}, expected gateway"
    six.table.delete()
    # What a rule held is let go of by a worker, which the next rule waits for.
    six = Group.of(netns, xs.AF_INET6)
    six.add(name="other")
    files = names(netns)
    assert files == ["other"], f"after both families' there are {files}, expected only other"


@pytest.mark.proof(red=INSTEAD)
def test_a_file_says_and_takes_what_a_clusterip_s_does(netns: Namespace) -> None:
    answer = Group.of(netns, xs.AF_INET).add(total=3, mask=0b101)
    assert answer == "", f"a rule with a name was answered {answer}, expected yes"

    def write(text: str) -> str:
        with netns.inside():
            descriptor = os.open(DIRECTORY / "gateway", os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        finally:
            os.close(descriptor)
        with netns.inside():
            return (DIRECTORY / "gateway").read_text(encoding="ascii")

    answers = [write(text) for text in WRITES]
    expected = list(WRITES.values())
    assert answers == expected, f"to {list(WRITES)} it said {answers}, expected {expected}"
    with netns.inside():
        mode = (DIRECTORY / "gateway").stat().st_mode & 0o777
    assert mode == 0o600, f"its mode is {mode:o}, expected 600"


WRITES = {
    "+2\n": "1,2,3\n",
    "+2": "ENOMEM",
    "+4\n": "ENOMEM",
    "+0\n": "ENOMEM",
    "-3\n": "1,2\n",
    "-3": "ENOENT",
    "-0": "ENOENT",
    "-4": "ENOENT",
    "-1": "2\n",
    "2": "EIO",
    "": "EIO",
    "+x\n": "EINVAL",
    "+": "EINVAL",
    "+99999999999": "EIO",
    "+999999999": "ENOMEM",
    "-2\n": "",
}


@pytest.mark.proof(red=INSTEAD)
def test_a_file_is_of_its_namespace(netns: Namespace, other_netns: Namespace) -> None:
    answer = Group.of(netns, xs.AF_INET).add()
    assert answer == "", f"a rule with a name was answered {answer}, expected yes"
    there = names(other_netns)
    assert there == [], f"the other namespace has the files {there}, expected none"
    other = Group.of(other_netns, xs.AF_INET)
    answer = other.add(total=4)
    assert answer == "", f"the name was answered {answer} in the other namespace, expected yes"


@pytest.mark.proof(red=INSTEAD)
def test_a_namespace_with_a_file_goes_away() -> None:
    dying = Namespace("dying")
    for family in (xs.AF_INET, xs.AF_INET6):
        answer = Group.of(dying, family).add()
        assert answer == "", f"a rule with a name was answered {answer}, expected yes"
    with dying.inside():
        held = os.open(DIRECTORY / "gateway", os.O_RDWR)
    assert goes_away(dying), "the namespace is still there after 20 s, expected it gone"
    said = ""

    def is_gone() -> bool:
        nonlocal said
        try:
            os.write(held, b"+2\n")
        except OSError as error:
            said = errno.errorcode[error.errno or 0]
        return said == "EIO"

    # Its devices, which tell that it goes, go before its rules.
    gone = wait_until(is_gone, seconds=20)
    os.close(held)
    assert gone, f"a file of a namespace that is gone says {said or 'yes'} to a write, expected EIO"


#: Revision 0, as it is in every kernel.
OLD = struct.Struct("=4I")


@pytest.mark.control
@FAMILIES
def test_revision_0_takes_what_it_took(netns: Namespace, family: int) -> None:
    table = dropping(netns, family)
    cases = {
        (2, 1, 0, 0): "", (2, 3, 0, 1): "", (2, 1, 0, 2): "", (2, 1, 0, 0xFFFFFFFE): "",
        (0, 0, 0, 0): "", (32, 0xFFFFFFFF, 7, 0): "",
        (2, 4, 0, 0): "EDOM", (0, 1, 0, 0): "EDOM", (33, 1, 0, 0): "EINVAL",
    }  # fmt: skip
    answers = {case: refusal_of(table, nf.match("cluster", 0, OLD.pack(*case))) for case in cases}
    assert answers == cases, f"revision 0 was answered {answers}, expected {cases}"


@pytest.mark.control
@FAMILIES
def test_revision_0_goes_by_the_source_of_the_connection(sieve: Sieve, family: int) -> None:
    total = 4
    made = [packet(family, UDP, udp(7, b""), source=source(family, number)) for number in range(32)]
    # Its own flag 2, which it does not know, changes nothing; and it hashes what is on the wire.
    expected = [0] * total
    for number in range(32):
        expected[old_segment(family, source(family, number), total)] += 1
    rules = [(nf.match("cluster", 0, OLD.pack(total, 1 << bit, SEED, 2)),) for bit in range(total)]
    rules += [(nf.match("cluster", 0, OLD.pack(total, 1 << bit, SEED, 3)),) for bit in range(total)]
    counted = sieve.counts(family, made, *rules)
    wanted = (*expected, *(32 - number for number in expected))
    assert counted == wanted, f"revision 0 matched {counted} of 32, expected {wanted}"


def source(family: int, number: int) -> str:
    """Return one of several peers, which differ in the first four bytes."""
    if family == xs.AF_INET:
        return str(ipaddress.ip_address(PEER[family]) + number)
    return f"{0x2001 + number:x}::2"


def old_segment(family: int, address: str, total: int) -> int:
    """Return the segment, from 0, of an address in revision 0: its bytes as they lie there.

    Of an IPv6 address that are the first four only, which is not what was meant.
    """
    (word,) = struct.unpack_from("=I", ipaddress.ip_address(address).packed)
    hashed = jhash_1word(word, SEED) if family == xs.AF_INET else jhash2((word,), SEED)
    return hashed * total >> 32


@pytest.mark.control
def test_iptables_still_says_revision_0(netns: Namespace) -> None:
    words = ("-m", "cluster", "--cluster-total-nodes", "2", "--cluster-local-node", "1",
             "--cluster-hash-seed", "0xdeadbeef")  # fmt: skip
    for program in ("iptables-legacy", "iptables-nft", "ip6tables-legacy", "ip6tables-nft"):
        netns.run([program, "-A", "INPUT", *words])
        listed = netns.run([program, "-S", "INPUT"])
        wanted = "--cluster-local-nodemask 0x00000001"
        assert wanted in listed, f"{program} lists {listed!r}, expected {wanted}"
        netns.run([program, "-F", "INPUT"])
