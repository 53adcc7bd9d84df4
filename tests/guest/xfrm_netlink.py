# SPDX-License-Identifier: GPL-2.0-only
"""The XFRM socket: SAs, SPIs, policies and what the kernel says about them."""

from __future__ import annotations

import os
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xfrm_messages as xm
import xfrm_structures as xs
from netlink_frames import (
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NetlinkSocket,
    attributes,
    decode,
    encode,
    frames_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: A range no test's hand-made SA lies in; IPComp's is 16 bits wide.
ESP_SPIS = (0xC0000000, 0xCFFFFFFF)
IPCOMP_CPIS = (0x0100, 0xEFFF)


@dataclass(frozen=True)
class Expiry:
    """An EXPIRE notification: which SA, and whether it is gone (hard)."""

    sa: xs.Sa
    hard: bool


@dataclass(frozen=True)
class Acquire:
    """An ACQUIRE notification: traffic for which there is a policy but no SA."""

    source: str
    destination: str
    proto: int
    sequence: int


@dataclass(frozen=True)
class Mapping:
    """A MAPPING notification: an SA's packets come from another address or port now."""

    spi: int
    old: tuple[str, int]
    new: tuple[str, int]


class XfrmSocket(NetlinkSocket):
    """Requests to, and notifications from, XFRM in the namespace it is opened in."""

    def __init__(self, *, groups: tuple[int, ...] = (), timeout: float = 10) -> None:
        """Open it and join the notification groups given."""
        super().__init__(xm.NETLINK_XFRM, groups=groups, timeout=timeout)

    def allocate_spi(self, sa: xs.Sa, spis: tuple[int, int] = ESP_SPIS) -> xs.Sa:
        """ALLOCSPI: return the larval SA as the kernel's reply shows it."""
        frames = self.ask("ALLOCSPI", spi_request(sa, spis), xm.MSG_ALLOCSPI)
        return sa_of(frames[0])

    def add(self, sa: xs.Sa) -> None:
        """NEWSA."""
        self.ask("NEWSA", _sa_message(sa), xm.MSG_NEWSA, NLM_F_EXCL)

    def add_alike(self, like: xs.Sa, ids: Iterable[tuple[str, int]]) -> None:
        """NEWSA for many SAs that differ in destination and SPI only, without asking about each."""
        frame = bytearray(encode(_sa_message(like), xm.MSG_NEWSA, NLM_F_EXCL, 0))
        for destination, spi in ids:
            frame[_ID : _ID + 20] = xs.pack_address(destination) + spi.to_bytes(4, "big")
            os.write(self.fileno(), frame)

    def numbers_sent(self) -> dict[tuple[str, int], int]:
        """Dump, quickly, the last number sent by each SA that has 64 bits of it."""
        found = {}
        for frame in self.dump("GETSA", xm.DumpMessage(), xm.MSG_GETSA):
            family = int.from_bytes(frame[_FAMILY : _FAMILY + 2], sys.byteorder)
            destination = xs.unpack_address(frame[_ID : _ID + 16], family)
            spi = int.from_bytes(frame[_ID + 16 : _ID + 20], "big")
            found[destination, spi] = _number_sent(frame[16 + xs.Sa.LAYOUT.size :])
        return found

    def update(self, sa: xs.Sa) -> None:
        """UPDSA: replaces the larval SA of the same SPI."""
        self.ask("UPDSA", _sa_message(sa), xm.MSG_UPDSA)

    def states(self) -> list[xs.Sa]:
        """Dump every SA, larval ones included."""
        frames = self.dump("GETSA", xm.DumpMessage(), xm.MSG_GETSA)
        return [sa_of(frame) for frame in frames]

    def find(self, sa: xs.Sa) -> xs.Sa | None:
        """Return the SA of the same destination, protocol and SPI from a dump, or None."""
        wanted = (sa.destination, sa.proto, sa.spi)
        for found in self.states():
            if (found.destination, found.proto, found.spi) == wanted:
                return found
        return None

    def delete(self, sa: xs.Sa) -> None:
        """DELSA."""
        message = xm.SaIdMessage()
        message.update(
            address=xs.pack_address(sa.destination),
            spi=sa.spi.to_bytes(4, "big"),
            family=sa.family,
            proto=sa.proto,
        )
        self.ask("DELSA", message, xm.MSG_DELSA)

    def set_replay(self, sa: xs.Sa, state: tuple[str, bytes]) -> None:
        """NEWAE: set the sequence numbers of an SA, XFRMA_REPLAY_VAL or XFRMA_REPLAY_ESN_VAL."""
        message = xm.AeMessage()
        message.update(
            address=xs.pack_address(sa.destination),
            spi=sa.spi.to_bytes(4, "big"),
            family=sa.family,
            proto=sa.proto,
            source=xs.pack_address(sa.source),
            flags=0,
            reqid=sa.reqid,
        )
        mark = sa.attribute("XFRMA_MARK")
        message["attrs"] = [state, *([("XFRMA_MARK", mark)] if mark else [])]
        self.ask("NEWAE", message, xm.MSG_NEWAE, NLM_F_REPLACE)

    def flush(self) -> None:
        """FLUSHSA, all protocols."""
        self.ask("FLUSHSA", xm.FlushMessage(), xm.MSG_FLUSHSA)

    def flush_policies(self) -> None:
        """FLUSHPOLICY."""
        self.ask("FLUSHPOLICY", xm.DumpMessage(), xm.MSG_FLUSHPOLICY)

    def add_policy(self, policy: xs.Policy) -> None:
        """NEWPOLICY."""
        message = xm.PolicyMessage()
        message["info"] = policy.pack()
        if policy.templates:
            packed = b"".join(template.pack() for template in policy.templates)
            message["attrs"] = [("XFRMA_TMPL", packed)]
        self.ask("NEWPOLICY", message, xm.MSG_NEWPOLICY)

    def migrate(
        self, policy: xs.Policy, sa: xs.Sa, ends: tuple[str, str], *further: tuple[str, bytes]
    ) -> None:
        """MIGRATE: move an SA, and the policy that asks for it, to other ends.

        Its encapsulation goes along as XFRMA_ENCAP: up to 7.1 an SA kept it
        unasked, since 7.2 it loses it.
        """
        message = xm.MigrateMessage()
        message.update(selector=policy.selector.pack(), index=0, direction=policy.direction)
        source, destination = ends
        moved = struct.pack(
            "=16s16s16s16sBB2xIHH",
            *(xs.pack_address(end) for end in (sa.destination, sa.source, destination, source)),
            *(sa.proto, sa.mode, sa.reqid, sa.family, xs.family_of(destination)),
        )
        encap = sa.attribute("XFRMA_ENCAP")
        kept = [("XFRMA_ENCAP", encap)] if encap else []
        message["attrs"] = [("XFRMA_MIGRATE", moved), *kept, *further]
        self.ask("MIGRATE", message, xm.MSG_MIGRATE)

    def policies(self) -> list[tuple[bytes, dict[str, bytes]]]:
        """Dump every policy as its 168 bytes and its attributes."""
        found = []
        for frame in self.dump("GETPOLICY", xm.DumpMessage(), xm.MSG_GETPOLICY):
            policy = decode(xm.PolicyMessage, frame)
            found.append((bytes(policy["info"]), attributes(policy)))
        return found

    def algorithms(self) -> list[xs.Algorithm]:
        """Dump the algorithms that an SA can be installed with."""
        frames = self.dump("GETALG", xm.DumpMessage(), xm.MSG_GETALG)
        return [algorithm_of(frame) for frame in frames]

    def expiries(self, timeout: float) -> Iterator[Expiry]:
        """Give every EXPIRE heard within ``timeout`` seconds."""
        for kind, frame in self.heard(timeout):
            if kind == xm.MSG_EXPIRE:
                yield _expiry(frame)

    def next_expiry(self, sa: xs.Sa, timeout: float) -> Expiry | None:
        """Wait for the EXPIRE of one SPI; None after ``timeout`` seconds."""
        return next((expiry for expiry in self.expiries(timeout) if expiry.sa.spi == sa.spi), None)

    def next_acquire(self, timeout: float) -> Acquire | None:
        """Wait for an ACQUIRE; None after ``timeout`` seconds."""
        for kind, frame in self.heard(timeout):
            if kind == xm.MSG_ACQUIRE:
                return _acquire(frame)
        return None

    def next_mapping(self, timeout: float) -> Mapping | None:
        """Wait for a MAPPING; None after ``timeout`` seconds."""
        for kind, frame in self.heard(timeout):
            if kind == xm.MSG_MAPPING:
                return _mapping(frame)
        return None


def spi_request(sa: xs.Sa, spis: tuple[int, int]) -> Any:
    """Return the ALLOCSPI message, not yet encoded."""
    message = xm.SpiMessage()
    message["info"] = sa.pack()
    message["lowest"], message["highest"] = spis
    message["attrs"] = list(sa.attributes)
    return message


def spi_request_of_32_bits(sa: xs.Sa, spis: tuple[int, int], sequence: int) -> bytes:
    """Return ALLOCSPI as a 32-bit program lays it out.

    There a 64-bit integer is aligned to four bytes, so that struct
    xfrm_usersa_info ends four bytes earlier: 220 instead of 224.
    """
    return _with_info_of_32_bits(encode(spi_request(sa, spis), xm.MSG_ALLOCSPI, 0x4, sequence))


def sa_request_of_32_bits(sa: xs.Sa, sequence: int) -> bytes:
    """Return NEWSA as a 32-bit program lays it out."""
    return _with_info_of_32_bits(encode(_sa_message(sa), xm.MSG_NEWSA, 0x4, sequence))


def dump_request(sequence: int) -> bytes:
    """Return GETSA for all SAs, which has the same bytes for a 32-bit program."""
    return encode(xm.DumpMessage(), xm.MSG_GETSA, NLM_F_DUMP, sequence)


def sas_of_32_bits(data: bytes) -> list[tuple[xs.Sa, bytes]]:
    """Read the SAs of a datagram laid out for a 32-bit program, NEWSA or EXPIRE.

    Each with the four bytes that follow it: EXPIRE's begin with whether it is a hard one.
    """
    found = []
    for kind, _, frame in frames_of(data):
        if kind in {xm.MSG_NEWSA, xm.MSG_EXPIRE}:
            info = frame[16 : 16 + xs.Sa.LAYOUT.size - 4]
            found.append((xs.Sa.unpack(info + bytes(4), {}), frame[16 + len(info) :][:4]))
    return found


def _with_info_of_32_bits(request: bytes) -> bytes:
    shorter = bytearray(request)
    info_end = 16 + xs.Sa.LAYOUT.size
    del shorter[info_end - 4 : info_end]
    shorter[0:4] = len(shorter).to_bytes(4, "little")
    return bytes(shorter)


def _sa_message(sa: xs.Sa) -> Any:
    message = xm.SaMessage()
    message["info"] = sa.pack()
    message["attrs"] = list(sa.attributes)
    return message


#: Where in a frame struct xfrm_usersa_info has its struct xfrm_id, and its family.
_ID = 16 + 56
_FAMILY = 16 + 212


def _number_sent(attributes: bytes) -> int:
    """Find XFRMA_REPLAY_ESN_VAL among an SA's attributes without decoding the others."""
    while attributes:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind == 23:
            _, low, _, high = struct.unpack_from("=4I", attributes, 4)
            return int(high << 32 | low)
        attributes = attributes[(length + 3) & ~3 :]
    raise ValueError("an SA without XFRMA_REPLAY_ESN_VAL")


def sa_of(frame: bytes) -> xs.Sa:
    message = decode(xm.SaMessage, frame)
    return xs.Sa.unpack(message["info"], attributes(message))


def algorithm_of(frame: bytes) -> xs.Algorithm:
    """Read one message of GETALG's dump."""
    return xs.Algorithm.unpack(decode(xm.AlgorithmMessage, frame)["alg"])


def _expiry(frame: bytes) -> Expiry:
    message = decode(xm.ExpireMessage, frame)
    return Expiry(xs.Sa.unpack(message["info"], attributes(message)), bool(message["hard"]))


def _acquire(frame: bytes) -> Acquire:
    message = decode(xm.AcquireMessage, frame)
    selector = xs.Selector.unpack(message["selector"], xs.AF_INET)
    family = xs.AF_INET6 if ":" in selector.destination else xs.AF_INET
    return Acquire(
        source=xs.unpack_address(message["source"], family),
        destination=xs.unpack_address(message["destination"], family),
        proto=message["proto"],
        sequence=message["sequence"],
    )


def mappings_of(data: bytes) -> list[Mapping]:
    """Read the MAPPINGs of a datagram, which look alike to 32 and to 64 bits."""
    return [_mapping(frame) for kind, _, frame in frames_of(data) if kind == xm.MSG_MAPPING]


def _mapping(frame: bytes) -> Mapping:
    message = decode(xm.MappingMessage, frame)
    ends = [
        (
            xs.unpack_address(message[f"{age}_source"], message["family"]),
            int.from_bytes(message[f"{age}_port"], "big"),
        )
        for age in ("old", "new")
    ]
    return Mapping(int.from_bytes(message["spi"], "big"), *ends)
