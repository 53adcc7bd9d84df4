# SPDX-License-Identifier: GPL-2.0-only
"""E3: GETALG tells exactly the algorithms that an SA can be installed with."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import struct
import sys
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain, count, product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import xfrm_algorithms
import xfrm_attributes as xa
import xfrm_messages as xm
import xfrm_structures as xs
from async_crypto import asynchronous, in_use
from callers import receive_as_32_bits, without_net_admin, write_as_32_bits
from netlink_frames import NLM_F_DUMP, NetlinkRefusedError, encode, frames_of
from wire import Wire, is_esp, wire
from xfrm_netlink import XfrmSocket, algorithm_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from namespaces import Namespace

    Attribute = tuple[str, bytes]

UNKNOWN = r"GETALG refused: Invalid argument \(errno 22\)$"
V4 = ("10.8.0.2", "10.8.0.1")
V6 = ("fd08::2", "fd08::1")
FAMILIES = pytest.mark.parametrize("ends", [V4, V6], ids=["ipv4", "ipv6"])
FIPS = pytest.mark.boot("fips=1")
# With modules a kernel has FIPS only if it signs them, which takes keys and a library to build.
HAS_FIPS = pytest.mark.flavour("!modules")
BOOTS = pytest.mark.parametrize("boot", ["plain", pytest.param("fips", marks=(FIPS, HAS_FIPS))])
SEQUENCE = 0x414C47

# All that xfrm_algo.c names on any of the kernels, with a key length it would take.
AEADS = {
    "rfc4106(gcm(aes))": 160,
    "rfc4309(ccm(aes))": 152,
    "rfc4543(gcm(aes))": 160,
    "rfc7539esp(chacha20,poly1305)": 288,
}
ICVS = (64, 96, 128)
AUTHS = {
    "digest_null": 0,
    "hmac(md5)": 128,
    "hmac(sha1)": 160,
    "hmac(sha256)": 256,
    "hmac(sha384)": 384,
    "hmac(sha512)": 512,
    "hmac(rmd160)": 160,
    "xcbc(aes)": 128,
    "cmac(aes)": 128,
    "hmac(sm3)": 256,
}
CRYPTS = {
    "ecb(cipher_null)": 0,
    "cbc(des)": 64,
    "cbc(des3_ede)": 192,
    "cbc(cast5)": 128,
    "cbc(blowfish)": 128,
    "cbc(aes)": 128,
    "cbc(serpent)": 128,
    "cbc(camellia)": 128,
    "cbc(twofish)": 128,
    "rfc3686(ctr(aes))": 160,
    "cbc(sm4)": 128,
}
COMPS = ("deflate", "lzs", "lzjh")

# What the configuration of these tests has on every kernel.
CONFIGURED = {
    *AEADS, "deflate",
    "digest_null", "hmac(md5)", "hmac(sha1)", "hmac(sha256)", "hmac(sha384)", "hmac(sha512)",
    "xcbc(aes)", "cmac(aes)",
    "ecb(cipher_null)", "cbc(des)", "cbc(des3_ede)", "cbc(blowfish)", "cbc(aes)", "cbc(serpent)",
    "cbc(camellia)", "rfc3686(ctr(aes))",
}  # fmt: skip
NOT_CONFIGURED = {"hmac(rmd160)", "hmac(sm3)", "cbc(cast5)", "cbc(twofish)", "lzs", "lzjh"}
# With fips=1, on every kernel. Triple DES is allowed up to 5.10 only.
FIPS_ALLOWS = {
    "rfc4106(gcm(aes))", "rfc4309(ccm(aes))",
    "hmac(sha1)", "hmac(sha256)", "hmac(sha384)", "hmac(sha512)", "cmac(aes)",
    "cbc(aes)", "rfc3686(ctr(aes))",
}  # fmt: skip
FIPS_FORBIDS = {
    "rfc4543(gcm(aes))", "rfc7539esp(chacha20,poly1305)",
    "digest_null", "hmac(md5)", "xcbc(aes)",
    "cbc(des)", "cbc(blowfish)", "cbc(serpent)", "cbc(camellia)",
}  # fmt: skip


@pytest.fixture
def xfrm(netns: Namespace) -> Iterator[XfrmSocket]:
    """Open an XFRM socket."""
    with netns.inside():
        opened = XfrmSocket()
    yield opened
    opened.flush()
    opened.close()


def names(algorithms: list[xs.Algorithm], *attributes: str) -> set[str]:
    """Return the names of those that go into one of the attributes; all of them without any."""
    return {each.name for each in algorithms if not attributes or each.attribute in attributes}


def key(bits: int) -> bytes:
    """Return a key in which nothing repeats, as triple DES wants it."""
    return bytes((37 * n + 11) & 0xFF for n in range(bits // 8))


def auth(name: str, key_bits: int, icv_bits: int = 0) -> Attribute:
    """Return XFRMA_ALG_AUTH_TRUNC; 0 stands for the algorithm's own ICV length."""
    return xa.authentication(name, key(key_bits), icv_bits)


def crypt(name: str, key_bits: int) -> Attribute:
    return xa.encryption(name, key(key_bits))


@dataclass
class Installer:
    """Installs SAs between two ends and collects what did not come out as expected."""

    xfrm: XfrmSocket
    ends: tuple[str, str]
    tried: int = 0
    wrong: list[str] = field(default_factory=list)
    _spis: Iterator[int] = field(default_factory=lambda: count(0x1000))

    def takes(self, *attributes: Attribute, proto: int = xs.PROTO_ESP) -> str:
        """Install an SA; return "" or the refusal."""
        sa = xs.Sa(*self.ends, spi=next(self._spis), proto=proto, attributes=attributes)
        try:
            self.xfrm.add(sa)
        except NetlinkRefusedError as refusal:
            return str(refusal)
        return ""

    def installs(self, what: str, *attributes: Attribute, proto: int = xs.PROTO_ESP) -> None:
        """Expect that it does."""
        self.tried += 1
        refusal = self.takes(*attributes, proto=proto)
        if refusal:
            self.wrong.append(f"{what}: {refusal}")

    def installs_somehow(self, what: str, *ways: tuple[Attribute, ...]) -> None:
        """Expect that at least one way does."""
        self.tried += 1
        if all(self.takes(*way) for way in ways):
            self.wrong.append(f"{what}: refused in each of {len(ways)} ways")

    def is_refused(self, what: str, *attributes: Attribute, proto: int = xs.PROTO_ESP) -> None:
        """Expect that it does not."""
        self.tried += 1
        if not self.takes(*attributes, proto=proto):
            self.wrong.append(what)

    def first(self) -> str:
        """Return the first that came out otherwise, for a message."""
        return self.wrong[0] if self.wrong else ""


def of_kind(algorithms: list[xs.Algorithm], kind: str, flag: int) -> list[xs.Algorithm]:
    """Return those for XFRMA_ALG_``kind`` that are good for a protocol."""
    wanted = f"XFRMA_ALG_{kind}"
    return [each for each in algorithms if each.attribute == wanted and each.flags & flag]


@pytest.mark.control
@BOOTS
def test_the_kernel_was_booted_as_asked(boot: str) -> None:
    switch = Path("/proc/sys/crypto/fips_enabled")
    said = switch.read_text(encoding="ascii").strip() if switch.exists() else "0"
    expected = "1" if boot == "fips" else "0"
    assert said == expected, f"crypto.fips_enabled is {said}, booted as {boot}"


@pytest.mark.proof(red=UNKNOWN)
def test_what_is_configured_is_reported(xfrm: XfrmSocket) -> None:
    reported = names(xfrm.algorithms())
    missing = sorted(CONFIGURED - reported)
    assert not missing, f"{len(missing)} configured algorithms are not reported: {missing}"
    surplus = sorted(NOT_CONFIGURED & reported)
    assert not surplus, f"{len(surplus)} algorithms are reported but not configured: {surplus}"


@pytest.mark.proof(red=UNKNOWN)
@BOOTS
@FAMILIES
def test_every_reported_algorithm_installs(
    xfrm: XfrmSocket, ends: tuple[str, str], boot: str
) -> None:
    reported = xfrm.algorithms()
    sa = Installer(xfrm, ends)
    for each in of_kind(reported, "AEAD", each_flag := xs.Algorithm.ESP):
        for bits in {each.key_min, each.key_max}:
            what = f"{each.name} with {each.icv} bits of ICV, {bits} of key"
            sa.installs(what, xa.aead(key(bits), each.name, each.icv))
    auths, crypts = of_kind(reported, "AUTH", each_flag), of_kind(reported, "CRYPT", each_flag)
    for one in auths:
        ways = [(auth(one.name, one.key_max), crypt(two.name, two.key_max)) for two in crypts]
        sa.installs_somehow(one.name, *ways)
    for two in crypts:
        for bits in {two.key_min, two.key_max}:
            alone = (crypt(two.name, bits),)
            ways = [(auth(one.name, one.key_max), *alone) for one in auths]
            sa.installs_somehow(f"{two.name} with {bits} bits of key", alone, *ways)
    for each in of_kind(reported, "AUTH", xs.Algorithm.AH):
        for bits in {each.icv, each.icv_max}:
            what = f"AH by {each.name} with {bits} bits of ICV"
            sa.installs(what, auth(each.name, each.key_min, bits), proto=xs.PROTO_AH)
    for each in of_kind(reported, "COMP", xs.Algorithm.COMP):
        sa.installs(each.name, xa.compression(each.name), proto=xs.PROTO_COMP)
    assert not sa.wrong, (
        f"{len(sa.wrong)} of {sa.tried} do not install ({boot}), reported as they are: {sa.first()}"
    )
    assert len(reported) > 10, f"only {len(reported)} algorithms are reported"


@pytest.mark.proof(red=UNKNOWN)
@FAMILIES
def test_every_reported_pair_installs(xfrm: XfrmSocket, ends: tuple[str, str]) -> None:
    reported = xfrm.algorithms()
    sa = Installer(xfrm, ends)
    auths = of_kind(reported, "AUTH", xs.Algorithm.ESP)
    crypts = of_kind(reported, "CRYPT", xs.Algorithm.ESP)
    for one, two in product(auths, crypts):
        attributes = (auth(one.name, one.key_min), crypt(two.name, two.key_min))
        sa.installs(f"{one.name} with {two.name}", *attributes)
    assert not sa.wrong, f"{len(sa.wrong)} of {sa.tried} pairs do not install: {sa.first()}"
    assert sa.tried > 60, f"only {sa.tried} pairs are reported"


@pytest.mark.proof(red=UNKNOWN)
@BOOTS
@FAMILIES
def test_what_is_not_reported_is_refused(
    xfrm: XfrmSocket, ends: tuple[str, str], boot: str
) -> None:
    reported = xfrm.algorithms()
    sa = Installer(xfrm, ends)
    found = {(each.name, each.icv) for each in of_kind(reported, "AEAD", xs.Algorithm.ESP)}
    for name, icv in product(AEADS, ICVS):
        if (name, icv) not in found:
            sa.is_refused(f"{name} with {icv} bits of ICV", xa.aead(key(AEADS[name]), name, icv))
    esp_auths = names(of_kind(reported, "AUTH", xs.Algorithm.ESP))
    esp_crypts = names(of_kind(reported, "CRYPT", xs.Algorithm.ESP))
    for one, two in product(AUTHS, CRYPTS):
        if one not in esp_auths or two not in esp_crypts:
            attributes = (auth(one, AUTHS[one]), crypt(two, CRYPTS[two]))
            sa.is_refused(f"{one} with {two}", *attributes)
    for name in set(CRYPTS) - esp_crypts:
        sa.is_refused(f"{name} alone", crypt(name, CRYPTS[name]))
    for name in set(AUTHS) - names(of_kind(reported, "AUTH", xs.Algorithm.AH)):
        sa.is_refused(f"AH by {name}", auth(name, AUTHS[name]), proto=xs.PROTO_AH)
    for name in set(COMPS) - names(of_kind(reported, "COMP", xs.Algorithm.COMP)):
        sa.is_refused(name, xa.compression(name), proto=xs.PROTO_COMP)
    assert not sa.wrong, (
        f"{len(sa.wrong)} of {sa.tried} install ({boot}) that are not reported: {sa.first()}"
    )
    assert sa.tried > 20, f"only {sa.tried} SAs were left to refuse"


@pytest.mark.proof(red=UNKNOWN)
@FIPS
@HAS_FIPS
def test_in_fips_mode_the_answer_is_another(xfrm: XfrmSocket) -> None:
    reported = names(xfrm.algorithms())
    missing, forbidden = sorted(FIPS_ALLOWS - reported), sorted(FIPS_FORBIDS & reported)
    assert not missing, f"FIPS allows them, they are not reported: {missing}"
    assert not forbidden, f"FIPS forbids them, they are reported: {forbidden}"


@pytest.mark.proof(red=UNKNOWN)
def test_an_aead_has_one_row_for_each_icv_length(xfrm: XfrmSocket) -> None:
    rows = [(each.name, each.icv) for each in of_kind(xfrm.algorithms(), "AEAD", 1)]
    twice = [row for row, times in Counter(rows).items() if times > 1]
    assert not twice, f"listed more than once: {twice}"
    for name, expected in (
        ("rfc4106(gcm(aes))", [64, 96, 128]),
        ("rfc4309(ccm(aes))", [64, 96, 128]),
        ("rfc4543(gcm(aes))", [128]),
        ("rfc7539esp(chacha20,poly1305)", [128]),
    ):
        found = sorted(icv for each, icv in rows if each == name)
        assert found == expected, f"{name} is listed with ICVs of {found} bits, not {expected}"


#: (ICV, longest ICV, least and greatest key, IV), by the RFCs and the ciphers, not by the tables.
LENGTHS = {
    "rfc4106(gcm(aes))": (None, None, 160, 288, 64),
    "rfc4309(ccm(aes))": (None, None, 152, 280, 64),
    "rfc4543(gcm(aes))": (128, 128, 160, 288, 64),
    "rfc7539esp(chacha20,poly1305)": (128, 128, 288, 288, 64),
    "hmac(md5)": (96, 128, 128, 128, 0),
    "hmac(sha1)": (96, 160, 160, 160, 0),
    "hmac(sha512)": (256, 512, 512, 512, 0),
    "cmac(aes)": (96, 128, 128, 128, 0),
    "digest_null": (0, 0, 0, 0, 0),
    "ecb(cipher_null)": (0, 0, 0, 0, 0),
    "cbc(des3_ede)": (0, 0, 192, 192, 64),
    "cbc(blowfish)": (0, 0, 40, 448, 64),
    "cbc(aes)": (0, 0, 128, 256, 128),
    "cbc(sm4)": (0, 0, 128, 128, 128),
    "rfc3686(ctr(aes))": (0, 0, 160, 288, 64),
    "deflate": (0, 0, 0, 0, 0),
}


@pytest.mark.proof(red=UNKNOWN)
def test_a_row_has_the_right_lengths(xfrm: XfrmSocket) -> None:
    looked_at = set()
    for each in xfrm.algorithms():
        expected = LENGTHS.get(each.name)
        if expected is None:
            continue
        looked_at.add(each.name)
        seen = (each.icv, each.icv_max, each.key_min, each.key_max, each.iv)
        wanted = tuple(
            have if want is None else want for have, want in zip(seen, expected, strict=True)
        )
        assert seen == wanted, f"{each.name}: ICV, longest, keys and IV are {seen}, not {wanted}"
    # cbc(sm4) is in the table from 6.1 on.
    unseen = sorted(set(LENGTHS) - looked_at - {"cbc(sm4)"})
    assert not unseen, f"not reported: {unseen}"


@pytest.mark.proof(red=UNKNOWN)
def test_a_compat_name_means_the_same(xfrm: XfrmSocket) -> None:
    also = {each.name: each.compat_name for each in xfrm.algorithms()}
    for name, expected in (("cbc(aes)", "aes"), ("hmac(sha256)", "sha256"), ("cmac(aes)", "")):
        assert also[name] == expected, f"{name} goes by {also[name]!r} too, not {expected!r}"
    made = xs.Sa(*V4, spi=0x777, attributes=(auth("sha256", 256), crypt("aes", 128)))
    xfrm.add(made)
    found = xfrm.find(made)
    installed = b"" if found is None else found.attribute("XFRMA_ALG_CRYPT") or b""
    name = installed[:64].rstrip(b"\0").decode()
    assert name == "cbc(aes)", f"an SA by the name of aes is of {name!r}, not 'cbc(aes)'"


# 8 of UDP and 22 of payload fill blocks of 16 together with the two bytes of ESP's trailer.
PAYLOAD = bytes(22)
PLAINTEXT = 32


@pytest.mark.proof(red=UNKNOWN)
@pytest.mark.parametrize("family", [xs.AF_INET, xs.AF_INET6], ids=["ipv4", "ipv6"])
def test_iv_and_icv_are_as_long_on_the_wire(netns: Namespace, family: int) -> None:
    ends = (Wire.NEAR4, Wire.FAR4) if family == xs.AF_INET else (Wire.NEAR6, Wire.FAR6)
    header = 20 if family == xs.AF_INET else 40
    with contextlib.ExitStack() as undo:
        plugged = undo.enter_context(wire(netns, gro=False))
        with netns.inside():
            xfrm = undo.enter_context(contextlib.closing(XfrmSocket()))
        everything = xs.Selector.everything(family)
        template = xs.Template(*ends)
        sender = undo.enter_context(netns.socket(family, socket.SOCK_DGRAM))
        ways = [way for each in xfrm.algorithms() for way in ways_of(each)]
        xfrm.add_policy(xs.Policy(everything, xs.DIR_OUT, template))
        for spi, (what, added, attributes) in enumerate(ways, start=0x2000):
            sa = xs.Sa(*ends, spi=spi, attributes=attributes)
            xfrm.add(sa)
            sender.sendto(PAYLOAD, (ends[1], 9))
            packet = plugged.receive(is_esp)
            xfrm.delete(sa)
            assert packet is not None, f"no ESP packet within 5 s by {what}"
            length = len(packet) - header
            expected = 8 + PLAINTEXT + added
            assert length == expected, f"ESP by {what} has {length} bytes, not {expected}"
    assert len(ways) > 20, f"only {len(ways)} ways were tried"


def ways_of(each: xs.Algorithm) -> Iterator[tuple[str, int, tuple[Attribute, ...]]]:
    """Give a name, the bytes of IV and ICV, and the attributes, for ESP by an algorithm."""
    if not each.flags & xs.Algorithm.ESP:
        return
    if each.attribute == "XFRMA_ALG_AEAD":
        attribute = xa.aead(key(each.key_min), each.name, each.icv)
        yield f"{each.name}, {each.icv}", (each.iv + each.icv) // 8, (attribute,)
    elif each.attribute == "XFRMA_ALG_CRYPT":
        yield each.name, each.iv // 8, (crypt(each.name, each.key_min),)
    else:
        null = crypt("ecb(cipher_null)", 0)
        default = struct.pack("=64sI", each.name.encode(), each.key_min) + key(each.key_min)
        yield each.name, each.icv // 8, (("XFRMA_ALG_AUTH", default), null)
        longest = auth(each.name, each.key_min, each.icv_max)
        yield f"{each.name}, {each.icv_max}", each.icv_max // 8, (longest, null)


@pytest.mark.proof(red=UNKNOWN)
@BOOTS
def test_proc_crypto_agrees(xfrm: XfrmSocket, boot: str) -> None:
    reported = xfrm.algorithms()
    known: dict[str, set[str]] = {}
    for block in Path("/proc/crypto").read_text(encoding="ascii").split("\n\n"):
        fields = dict(re.findall(r"^(\S+)\s*: (.*)$", block, re.MULTILINE))
        if fields.get("internal") == "no":
            known.setdefault(fields["name"], set()).add(fields["selftest"])
    for each in reported:
        state = known.get(each.name, set())
        assert "passed" in state, f"{each.name} is reported ({boot}), /proc/crypto says {state}"


@pytest.mark.proof(red=UNKNOWN)
def test_asking_again_gives_the_same(xfrm: XfrmSocket) -> None:
    before = xfrm.algorithms()
    Installer(xfrm, V4).installs("", xa.aead(key(160)))
    after = xfrm.algorithms()
    assert after == before, f"{len(after)} rows the second time, {len(before)} the first"


@pytest.mark.proof(red=UNKNOWN)
def test_asynchronous_crypto_changes_nothing(xfrm: XfrmSocket) -> None:
    before = xfrm.algorithms()
    with asynchronous() as driver:
        after = xfrm.algorithms()
        refusal = Installer(xfrm, V4).takes(xa.aead(key(160)))
        used = in_use(driver)
        xfrm.flush()
    assert after == before, f"{len(after)} rows behind cryptd, {len(before)} without"
    assert not refusal, f"rfc4106(gcm(aes)) is reported, behind cryptd {refusal}"
    assert used, f"an SA of rfc4106(gcm(aes)) does not use {driver}"


@pytest.mark.proof(red=UNKNOWN)
def test_another_namespace_gets_the_same(xfrm: XfrmSocket, other_netns: Namespace) -> None:
    here = xfrm.algorithms()
    with other_netns.inside(), contextlib.closing(XfrmSocket()) as elsewhere:
        there = elsewhere.algorithms()
        left = len(elsewhere.states()) + len(xfrm.states())
    assert there == here, f"{len(there)} rows in the other namespace, {len(here)} in this one"
    assert left == 0, f"asking left {left} SAs behind"


@pytest.mark.proof(red=r"GETALG refused: Invalid argument \(errno 22\); expected EPERM$")
def test_it_takes_cap_net_admin(xfrm: XfrmSocket) -> None:
    with without_net_admin(), pytest.raises(NetlinkRefusedError) as refusal:
        xfrm.algorithms()
    assert refusal.value.errno == errno.EPERM, f"{refusal.value}; expected EPERM"


@pytest.mark.proof(red=r"refused: Invalid argument \(errno 22\); expected a word of NLM_F_DUMP$")
@pytest.mark.parametrize("asked_by", ["64 bits", "32 bits"])
def test_it_is_a_dump_only(xfrm: XfrmSocket, asked_by: str) -> None:
    refusal = refused(xfrm, encode(xm.DumpMessage(), xm.MSG_GETALG, 0, SEQUENCE), asked_by)
    assert refusal.errno == errno.EINVAL, f"{refusal}; expected EINVAL"
    assert "NLM_F_DUMP" in refusal.extack, f"{refusal}; expected a word of NLM_F_DUMP"


@pytest.mark.proof(red=r"refused: Invalid argument \(errno 22\); expected a word of data$")
@pytest.mark.parametrize("asked_by", ["64 bits", "32 bits"])
@pytest.mark.parametrize("size", [2, 4, 144, 148])
def test_data_behind_the_header_is_refused(xfrm: XfrmSocket, size: int, asked_by: str) -> None:
    head = struct.pack("=IHHII", 16 + size, xm.MSG_GETALG, NLM_F_DUMP | 1, SEQUENCE, 0)
    refusal = refused(xfrm, head + bytes(size), asked_by)
    assert refusal.errno == errno.EINVAL, f"{refusal}; expected EINVAL"
    assert "data" in refusal.extack, f"{refusal}; expected a word of data"


def refused(xfrm: XfrmSocket, request: bytes, asked_by: str) -> NetlinkRefusedError:
    """Send a request of the sequence number SEQUENCE and return how it was refused."""
    what = f"message {int.from_bytes(request[4:6], 'little'):#x} by {asked_by}"
    if asked_by == "32 bits":
        write_as_32_bits(xfrm.fileno(), request)
    else:
        os.write(xfrm.fileno(), request)
    with pytest.raises(NetlinkRefusedError) as refusal:
        xfrm.replies(what, SEQUENCE)
    return refusal.value


@pytest.mark.proof(red=UNKNOWN)
def test_a_header_cut_short_is_ignored(xfrm: XfrmSocket) -> None:
    os.write(xfrm.fileno(), struct.pack("=IHHII", 8, xm.MSG_GETALG, NLM_F_DUMP | 1, 1, 0))
    rows = xfrm.algorithms()
    assert rows, "no rows after a message that says it is shorter than its header"


@pytest.mark.control
@pytest.mark.parametrize("asked_by", ["64 bits", "32 bits"])
@pytest.mark.parametrize("flags", [0, NLM_F_DUMP], ids=["ask", "dump"])
def test_the_numbers_around_it_are_invalid(xfrm: XfrmSocket, flags: int, asked_by: str) -> None:
    for number in (*range(0x29, 0x38), 0x3A, 0x3B):
        message = encode(xm.DumpMessage(), number, flags | 0x4, SEQUENCE)
        refusal = refused(xfrm, message, asked_by)
        assert refusal.errno == errno.EINVAL, f"{refusal}; expected EINVAL"


@pytest.mark.control
def test_newalg_is_no_request(xfrm: XfrmSocket) -> None:
    head = struct.pack("=IHHII", 160, xm.MSG_NEWALG, 0x5, SEQUENCE, 0)
    refusal = refused(xfrm, head + bytes(144), "64 bits")
    assert refusal.errno == errno.EINVAL, f"{refusal}; expected EINVAL"


def dump_request() -> bytes:
    return encode(xm.DumpMessage(), xm.MSG_GETALG, NLM_F_DUMP, SEQUENCE)


def rows_of(receive: Callable[[], bytes]) -> list[list[xs.Algorithm]]:
    """Receive up to the end of a dump; return the rows of each datagram."""
    parts: list[list[xs.Algorithm]] = []
    while True:
        rows: list[xs.Algorithm] = []
        parts.append(rows)
        for kind, number, frame in frames_of(receive()):
            assert number == SEQUENCE, f"an answer to {number:#x} amid those to {SEQUENCE:#x}"
            if kind != xm.MSG_NEWALG:
                assert kind == 3, f"the dump ends with message {kind}, not with NLMSG_DONE"
                return parts
            rows.append(algorithm_of(frame))


@pytest.fixture
def fresh(netns: Namespace) -> Iterator[socket.socket]:
    """Open a socket that never received: the kernel makes its datagrams short."""
    with netns.inside(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 6) as opened:
        yield opened


@pytest.mark.proof(red=UNKNOWN)
def test_a_32_bit_caller_receives_the_same(xfrm: XfrmSocket, fresh: socket.socket) -> None:
    expected = xfrm.algorithms()
    write_as_32_bits(fresh.fileno(), dump_request())
    rows = [*chain.from_iterable(rows_of(lambda: receive_as_32_bits(fresh.fileno())))]
    assert rows == expected, f"{len(rows)} rows for 32 bits, {len(expected)} for 64"


@pytest.mark.proof(red=UNKNOWN)
def test_a_small_receive_buffer_gets_it_in_parts(xfrm: XfrmSocket, fresh: socket.socket) -> None:
    expected = xfrm.algorithms()
    fresh.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    fresh.send(dump_request())
    parts = [len(part) for part in rows_of(lambda: fresh.recv(4096))]
    assert sum(parts) == len(expected), f"{parts} rows came, {len(expected)} were expected"
    assert len([part for part in parts if part]) > 1, f"all {parts} rows came in one datagram"


@pytest.mark.proof(red=UNKNOWN)
def test_a_truncated_datagram_costs_only_itself(xfrm: XfrmSocket, fresh: socket.socket) -> None:
    expected = xfrm.algorithms()
    fresh.send(dump_request())
    data, _, flags, _ = fresh.recvmsg(200)
    assert flags & socket.MSG_TRUNC, f"200 bytes were enough: {len(data)} came"
    rows = [*chain.from_iterable(rows_of(lambda: fresh.recv(1 << 15)))]
    assert rows, "nothing followed the truncated datagram"
    assert rows == expected[-len(rows) :], "what follows a truncated datagram is not the rest"
    fresh.send(dump_request())
    again = [*chain.from_iterable(rows_of(lambda: fresh.recv(1 << 15)))]
    assert again == expected, f"{len(again)} rows afterwards, {len(expected)} before"


@pytest.mark.proof(red=UNKNOWN)
def test_a_dump_may_be_left_in_the_middle(netns: Namespace, xfrm: XfrmSocket) -> None:
    expected = xfrm.algorithms()
    for _ in range(8):
        with netns.inside(), contextlib.closing(XfrmSocket()) as leaves:
            os.write(leaves.fileno(), dump_request())
            os.read(leaves.fileno(), 200)
    rows = xfrm.algorithms()
    assert rows == expected, f"{len(rows)} rows afterwards, {len(expected)} before"


@pytest.mark.proof(red=r"GETALG refused: Invalid argument .* this kernel has no XFRM_MSG_GETALG$")
def test_a_person_gets_a_table(netns: Namespace, xfrm: XfrmSocket) -> None:
    printed = netns.run([sys.executable, "-B", xfrm_algorithms.__file__])
    rows = [line.split() for line in printed.splitlines()]
    assert ["type", "name", "also", "for", "icv", "key", "iv"] in rows, f"no headings: {rows[0]}"
    expected = [
        ["aead", "rfc4106(gcm(aes))", "esp", "96", "160-288", "64"],
        ["auth", "hmac(sha256)", "sha256", "esp+ah", "96-256", "256"],
        ["crypt", "cbc(aes)", "aes", "esp", "128-256", "128"],
        ["comp", "deflate", "comp"],
    ]
    missing = [row for row in expected if row not in rows]
    assert not missing, f"{' '.join(missing[0])!r} is not among the {len(rows)} lines printed"
    algorithms = xfrm.algorithms()
    assert len(rows) == len(algorithms) + 1, f"{len(rows)} lines for {len(algorithms)} algorithms"
    some = xfrm_algorithms.table(algorithms, ("crypt", "aes")).splitlines()
    assert len(some) == 3, f"{len(some) - 1} rows have 'crypt' and 'aes', expected 2: {some}"
