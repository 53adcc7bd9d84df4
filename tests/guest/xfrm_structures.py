# SPDX-License-Identifier: GPL-2.0-only
"""The structures of linux/xfrm.h, as a 64-bit kernel lays them out.

Each is a frozen dataclass that packs to, and unpacks from, its bytes, every
padding byte spelled out.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, field
from typing import ClassVar

MODE_TRANSPORT = 0
MODE_TUNNEL = 1
MODE_BEET = 4
MODE_IPTFS = 5

DIR_IN = 0
DIR_OUT = 1

INFINITE = (1 << 64) - 1

PROTO_ESP = 50
PROTO_AH = 51
PROTO_COMP = 108

AF_INET = 2
AF_INET6 = 10


def pack_address(text: str) -> bytes:
    """Return an xfrm_address_t: 16 bytes, an IPv4 address in the first four."""
    return ipaddress.ip_address(text).packed.ljust(16, b"\0")


def unpack_address(raw: bytes, family: int) -> str:
    """Return the text of an xfrm_address_t."""
    return str(ipaddress.ip_address(raw[:4] if family == AF_INET else raw))


def family_of(text: str) -> int:
    """Return the address family of an address in text."""
    return AF_INET if ipaddress.ip_address(text).version == 4 else AF_INET6


@dataclass(frozen=True)
class Lifetime:
    """struct xfrm_lifetime_cfg; seconds count from adding or from first use."""

    soft_bytes: int = INFINITE
    hard_bytes: int = INFINITE
    soft_packets: int = INFINITE
    hard_packets: int = INFINITE
    soft_add_seconds: int = 0
    hard_add_seconds: int = 0
    soft_use_seconds: int = 0
    hard_use_seconds: int = 0

    LAYOUT: ClassVar = struct.Struct("=8Q")

    def pack(self) -> bytes:
        """Return its 64 bytes."""
        return self.LAYOUT.pack(
            self.soft_bytes,
            self.hard_bytes,
            self.soft_packets,
            self.hard_packets,
            self.soft_add_seconds,
            self.hard_add_seconds,
            self.soft_use_seconds,
            self.hard_use_seconds,
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Lifetime:
        """Read its 64 bytes."""
        return cls(*cls.LAYOUT.unpack(raw))


#: Of Sa.flags: take an ICMP error for the flow it is about.
STATE_ICMP = 16
#: Of Sa.flags: sequence numbers of 64 bits.
STATE_ESN = 128

#: What strongSwan's zeroed structure says: no word about any lifetime.
UNSPOKEN = Lifetime(0, 0, 0, 0)


@dataclass(frozen=True)
class Selector:
    """struct xfrm_selector; ``source`` and ``destination`` are prefixes such as ``10.0.0.0/8``.

    A port of 0 stands for all ports.
    """

    source: str
    destination: str
    proto: int = 0
    source_port: int = 0
    destination_port: int = 0

    LAYOUT: ClassVar = struct.Struct("=16s16s2s2s2s2sHBBB3xiI")

    @classmethod
    def everything(cls, family: int) -> Selector:
        """Return the selector that matches all of one family."""
        prefix = "0.0.0.0/0" if family == AF_INET else "::/0"
        return cls(prefix, prefix)

    def pack(self) -> bytes:
        """Return its 56 bytes; the two prefixes must be of one family."""
        source = ipaddress.ip_network(self.source)
        destination = ipaddress.ip_network(self.destination)
        return self.LAYOUT.pack(
            pack_address(str(destination.network_address)),
            pack_address(str(source.network_address)),
            *_port(self.destination_port),
            *_port(self.source_port),
            AF_INET if source.version == 4 else AF_INET6,
            destination.prefixlen,
            source.prefixlen,
            self.proto,
            0,
            0,
        )

    @classmethod
    def unpack(cls, raw: bytes, family: int) -> Selector:
        """Read its 56 bytes; ``family`` is the SA's, as a larval SA's selector names none."""
        (daddr, saddr, dport, _, sport, _, named, plen_d, plen_s, proto, _, _) = cls.LAYOUT.unpack(
            raw
        )
        family = named or family
        return cls(
            f"{unpack_address(saddr, family)}/{plen_s}",
            f"{unpack_address(daddr, family)}/{plen_d}",
            proto,
            int.from_bytes(sport, "big"),
            int.from_bytes(dport, "big"),
        )


def _port(number: int) -> tuple[bytes, bytes]:
    """Return a port and its mask, both big-endian."""
    return number.to_bytes(2, "big"), (b"\xff\xff" if number else b"\0\0")


@dataclass(frozen=True)
class Sa:
    """struct xfrm_usersa_info with the attributes that came or go with it.

    A larval SA is one that has an SPI (or only an acquire) but no algorithm.
    ``added`` is the kernel's clock in seconds at which it was made, ``packets``
    how many it has carried, ``forged`` how many were not authentic.
    """

    source: str
    destination: str
    spi: int = 0
    proto: int = PROTO_ESP
    mode: int = MODE_TRANSPORT
    reqid: int = 0
    sequence: int = 0
    replay_window: int = 32
    flags: int = 0
    lifetime: Lifetime = field(default_factory=Lifetime)
    selector: Selector | None = None
    attributes: tuple[tuple[str, bytes], ...] = ()
    added: int = 0
    packets: int = 0
    forged: int = 0

    LAYOUT: ClassVar = struct.Struct("=56s16s4sB3x16s64s32s12sIIHBBB7x")

    @property
    def family(self) -> int:
        """The family of the outer addresses."""
        return family_of(self.destination)

    @property
    def is_larval(self) -> bool:
        """Tell whether it has no algorithm yet."""
        return not any(name.startswith("XFRMA_ALG_") for name, _ in self.attributes)

    def attribute(self, name: str) -> bytes | None:
        """Return one attribute's bytes, or None."""
        return dict(self.attributes).get(name)

    def pack(self) -> bytes:
        """Return its 224 bytes, without the attributes."""
        # An IPv4-in-IPv6 tunnel would need the inner family here; none of ours does.
        selector = self.selector or Selector.everything(self.family)
        return self.LAYOUT.pack(
            selector.pack(),
            pack_address(self.destination),
            self.spi.to_bytes(4, "big"),
            self.proto,
            pack_address(self.source),
            self.lifetime.pack(),
            bytes(32),
            bytes(12),
            self.sequence,
            self.reqid,
            self.family,
            self.mode,
            self.replay_window,
            self.flags,
        )

    @classmethod
    def unpack(cls, raw: bytes, attributes: dict[str, bytes]) -> Sa:
        """Read its 224 bytes."""
        (sel, daddr, spi, proto, saddr, lifetime, current, stats, seq, reqid, family, *rest) = (
            cls.LAYOUT.unpack(raw)
        )
        mode, window, flags = rest
        _, packets, added, _ = struct.unpack("=4Q", current)
        return cls(
            source=unpack_address(saddr, family),
            destination=unpack_address(daddr, family),
            spi=int.from_bytes(spi, "big"),
            proto=proto,
            mode=mode,
            reqid=reqid,
            sequence=seq,
            replay_window=window,
            flags=flags,
            lifetime=Lifetime.unpack(lifetime),
            selector=Selector.unpack(sel, family),
            attributes=tuple(attributes.items()),
            added=added,
            packets=packets,
            forged=struct.unpack("=3I", stats)[2],
        )


@dataclass(frozen=True)
class Template:
    """struct xfrm_user_tmpl: what a policy asks the SA to be."""

    source: str
    destination: str
    proto: int = PROTO_ESP
    mode: int = MODE_TRANSPORT
    reqid: int = 0
    optional: bool = False

    LAYOUT: ClassVar = struct.Struct("=16s4sB3xH2x16sIBBBxIII")

    def pack(self) -> bytes:
        """Return its 64 bytes: any SPI, any algorithm."""
        anything = 0xFFFFFFFF
        return self.LAYOUT.pack(
            pack_address(self.destination),
            bytes(4),
            self.proto,
            family_of(self.destination),
            pack_address(self.source),
            self.reqid,
            self.mode,
            0,
            self.optional,
            anything,
            anything,
            anything,
        )


@dataclass(frozen=True)
class Policy:
    """struct xfrm_userpolicy_info with its templates.

    ``template`` is what a packet that leaves goes through first, ``further``
    what comes after it; without one it lets pass what no SA protected.
    """

    selector: Selector
    direction: int
    template: Template | None = None
    priority: int = 1000
    further: tuple[Template, ...] = ()

    LAYOUT: ClassVar = struct.Struct("=56s64s32sIIBBBB4x")

    @property
    def templates(self) -> tuple[Template, ...]:
        """All its templates, in order."""
        return self.further if self.template is None else (self.template, *self.further)

    def pack(self) -> bytes:
        """Return its 168 bytes: allow, no lifetime."""
        return self.LAYOUT.pack(
            self.selector.pack(), Lifetime().pack(), bytes(32), self.priority, 0, self.direction, 0,
            0, 0,
        )  # fmt: skip


@dataclass(frozen=True)
class Algorithm:
    """struct xfrm_user_alg: an algorithm that an SA can be installed with.

    ``attribute`` is the one it goes into. All lengths are in bits; those of
    keys count nonce and salt. ``icv`` is what is used unless an SA says
    otherwise.
    """

    name: str
    compat_name: str
    attribute: str
    flags: int
    icv: int
    icv_max: int
    key_min: int
    key_max: int
    iv: int

    ESP: ClassVar = 1
    AH: ClassVar = 2
    COMP: ClassVar = 4
    LAYOUT: ClassVar = struct.Struct("=64s64s7H2x")
    ATTRIBUTES: ClassVar = {
        1: "XFRMA_ALG_AUTH",
        2: "XFRMA_ALG_CRYPT",
        3: "XFRMA_ALG_COMP",
        18: "XFRMA_ALG_AEAD",
    }

    @classmethod
    def unpack(cls, raw: bytes) -> Algorithm:
        """Read its 144 bytes."""
        name, compat_name, kind, flags, *lengths = cls.LAYOUT.unpack(raw)
        icv, icv_max, key_min, key_max, iv = lengths
        return cls(
            name=name.rstrip(b"\0").decode(),
            compat_name=compat_name.rstrip(b"\0").decode(),
            attribute=cls.ATTRIBUTES.get(kind, f"XFRMA {kind}"),
            flags=flags,
            icv=icv,
            icv_max=icv_max,
            key_min=key_min,
            key_max=key_max,
            iv=iv,
        )
