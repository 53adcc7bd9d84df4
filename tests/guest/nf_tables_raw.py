# SPDX-License-Identifier: GPL-2.0-only
"""nf_tables over netlink, byte by byte: chains at hooks that nft has no word for.

A table is its netlink socket and its name; it goes away with ``delete`` or
with its namespace. An expression is the bytes of one, made by the functions
at the end of this file.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Protocol

from netlink_frames import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NetlinkSocket,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: nf_inet_hooks; the last two are the extension's.
PRE_ROUTING, LOCAL_IN, FORWARD, LOCAL_OUT, POST_ROUTING = range(5)
XFRM_IN = 8
XFRM_OUT = 9

INET, IP, ARP, NETDEV, BRIDGE, IP6 = 1, 2, 3, 5, 7, 10

DROP = 0
ACCEPT = 1
_JUMP = (1 << 32) - 3

#: Registers of 16 bytes, and the first two of 4.
VERDICT, REG1, REG2 = 0, 1, 2
WORD1, WORD2, WORD3 = 8, 9, 10

_NETFILTER = 12
_NF_TABLES = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _DELTABLE = 0, 2
_NEWCHAIN, _DELCHAIN = 3, 5
_NEWRULE, _GETRULE, _DELRULE = 6, 7, 8
_NEWSET = 9
_NEWSETELEM, _GETSETELEM, _DELSETELEM = 12, 13, 14
_NLM_F_APPEND = 0x800
_HEADER = struct.Struct("=IHHII")
_NFGEN = struct.Struct("!BBH")
_ATTRIBUTE = struct.Struct("=HH")
_NESTED = 0x8000
_KIND = 0x3FFF


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one netlink attribute, padded."""
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute made of attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def _word(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _list(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind & _KIND, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]


@dataclass(frozen=True)
class Request:
    """One message of a batch; ``label`` is what a refusal names."""

    label: str
    kind: int
    flags: int
    payload: bytes


class Place(Protocol):
    """Where a table is: a namespace."""

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """Put the calling thread into it, and back."""


class Table:
    """An nf_tables table of one family in a namespace."""

    def __init__(
        self, namespace: Place, family: int = INET, name: str = "raw", *, make: bool = True
    ) -> None:
        """Make it, unless it is there."""
        self._namespace = namespace
        self.family = family
        self._name = _text(1, name)
        self._sequence = count(1)
        self._sets = count(1)
        if make:
            self.apply(self.made())

    def made(self) -> Request:
        """Return the request for the table itself."""
        return Request("NEWTABLE", _NEWTABLE, NLM_F_CREATE, self._name)

    def delete(self) -> None:
        """Take it away with all that is in it."""
        self.apply(Request("DELTABLE", _DELTABLE, 0, self._name))

    def chain(
        self, name: str, hook: int, *, kind: str = "filter", priority: int = 0, policy: int = ACCEPT
    ) -> Request:
        """Return the request for a base chain."""
        where = nested(4, _word(1, hook), attribute(2, struct.pack("!i", priority)))
        named = _text(3, name) + where + _word(5, policy) + _text(7, kind)
        return Request(
            f"a {kind} chain at hook {hook}", _NEWCHAIN, NLM_F_CREATE, self._name + named
        )

    def regular_chain(self, name: str) -> Request:
        """Return the request for a chain that rules jump to."""
        return Request(f"the chain {name}", _NEWCHAIN, NLM_F_CREATE, self._name + _text(3, name))

    def without_chain(self, name: str) -> Request:
        """Return the request that takes a chain away; its rules have to be gone."""
        return Request("DELCHAIN", _DELCHAIN, 0, self._name + _text(3, name))

    def rule(self, chain: str, *expressions: bytes) -> Request:
        """Return the request for a rule at a chain's end."""
        payload = self._name + _text(2, chain) + nested(4, *expressions)
        return Request("a rule", _NEWRULE, NLM_F_CREATE | _NLM_F_APPEND, payload)

    def without_rules(self, chain: str) -> Request:
        """Return the request that takes all rules of a chain away."""
        return Request("DELRULE", _DELRULE, 0, self._name + _text(2, chain))

    def set_of_words(self, name: str) -> Request:
        """Return the request for a set of numbers of 32 bits."""
        number = 13
        keys = _word(4, number) + _word(5, 4)
        payload = self._name + _text(2, name) + _word(3, 0) + keys + _word(10, next(self._sets))
        return Request(f"the set {name}", _NEWSET, NLM_F_CREATE, payload)

    def elements(self, name: str, *numbers: int) -> Request:
        """Return the request that puts numbers into a set."""
        payload = self._elements(name, numbers)
        return Request(f"elements of {name}", _NEWSETELEM, NLM_F_CREATE, payload)

    def without_elements(self, name: str, *numbers: int) -> Request:
        """Return the request that takes numbers out of a set."""
        return Request(f"elements of {name}", _DELSETELEM, 0, self._elements(name, numbers))

    def _elements(self, name: str, numbers: tuple[int, ...]) -> bytes:
        # As the expressions leave it in a register: in the host's order.
        keys = (nested(1, attribute(1, struct.pack("=I", number))) for number in numbers)
        return self._name + _text(2, name) + nested(3, *(nested(1, key) for key in keys))

    def apply(self, *requests: Request, write: Callable[[int, bytes], object] = os.write) -> None:
        """Do all of it or nothing; NetlinkRefusedError names the request refused.

        ``write`` is how it is given to the kernel.
        """
        mark = struct.pack("!BBH", 0, 0, _NF_TABLES)
        first, *numbers, last = (next(self._sequence) for _ in range(len(requests) + 2))
        batch = [_frame(_BATCH_BEGIN, 0, first, mark)]
        for number, request in zip(numbers, requests, strict=True):
            head = _NFGEN.pack(self.family, 0, 0)
            kind = _NF_TABLES << 8 | request.kind
            batch.append(_frame(kind, request.flags | NLM_F_ACK, number, head + request.payload))
        batch.append(_frame(_BATCH_END, 0, last, mark))
        # A socket each time: what a refused batch leaves unread is of no interest.
        with self._socket() as netlink:
            write(netlink.fileno(), b"".join(batch))
            for number, request in zip(numbers, requests, strict=True):
                netlink.replies(request.label, number)

    def packets(self, chain: str) -> tuple[int, ...]:
        """Return what each counter of a chain has counted, in the order of its rules."""
        return tuple(
            int.from_bytes(parts[2], "big")
            for rule in self.rules(chain)
            for name, parts in rule
            if name == "counter"
        )

    def rules(self, chain: str) -> list[list[tuple[str, dict[int, bytes]]]]:
        """Return the expressions of each rule of a chain: their names, and attributes by number."""
        frames = self._dump("GETRULE", _GETRULE, self._name + _text(2, chain))
        return [list(_expressions(frame)) for frame in frames]

    def members(self, name: str) -> tuple[int, ...]:
        """Return the numbers in a set."""
        found = []
        for frame in self._dump("GETSETELEM", _GETSETELEM, self._name + _text(2, name)):
            for _, element in _list(dict(_list(frame)).get(3, b"")):
                ((_, number),) = _list(dict(_list(element))[1])
                found.append(int.from_bytes(number, sys.byteorder))
        return tuple(sorted(found))

    def _dump(self, label: str, kind: int, payload: bytes) -> list[bytes]:
        """Return the attributes of each message."""
        number = next(self._sequence)
        head = _NFGEN.pack(self.family, 0, 0)
        with self._socket() as netlink:
            request = _frame(_NF_TABLES << 8 | kind, NLM_F_DUMP, number, head + payload)
            os.write(netlink.fileno(), request)
            frames = netlink.replies(label, number)
        return [frame[_HEADER.size + _NFGEN.size :] for frame in frames]

    @contextlib.contextmanager
    def _socket(self) -> Iterator[NetlinkSocket]:
        with self._namespace.inside():
            netlink = NetlinkSocket(_NETFILTER)
        with contextlib.closing(netlink):
            yield netlink


def _frame(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    length = _HEADER.size + len(payload)
    return _HEADER.pack(length, kind, flags | NLM_F_REQUEST, sequence, 0) + payload


def _expressions(rule: bytes) -> Iterator[tuple[str, dict[int, bytes]]]:
    for _, element in _list(dict(_list(rule)).get(4, b"")):
        parts = dict(_list(element))
        yield parts[1].rstrip(b"\0").decode(), dict(_list(parts.get(2, b"")))


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, _text(1, name), nested(2, *attributes))


def counter() -> bytes:
    """Count what comes to it."""
    return _expression("counter")


def verdict(code: int) -> bytes:
    """End with ACCEPT or DROP."""
    return _expression("immediate", _word(1, VERDICT), nested(2, nested(2, _word(1, code))))


def jump(chain: str) -> bytes:
    """Go on in another chain."""
    code = _word(1, _JUMP) + _text(2, chain)
    return _expression("immediate", _word(1, VERDICT), nested(2, nested(2, code)))


def queue(number: int) -> bytes:
    """Give the packet to who reads a queue."""
    return _expression("queue", attribute(1, struct.pack("!H", number)))


def link_bytes(offset: int, length: int, register: int = REG1) -> bytes:
    """Load bytes from the link-layer header on; what came without one goes on no further."""
    return _expression(
        "payload", _word(1, register), _word(2, 0), _word(3, offset), _word(4, length)
    )


def network_bytes(offset: int, length: int, register: int = REG1) -> bytes:
    """Load bytes from the network header on."""
    return _expression(
        "payload", _word(1, register), _word(2, 1), _word(3, offset), _word(4, length)
    )


def transport_bytes(offset: int, length: int, register: int = REG1) -> bytes:
    """Load bytes from the transport header on."""
    return _expression(
        "payload", _word(1, register), _word(2, 2), _word(3, offset), _word(4, length)
    )


def is_equal(data: bytes, register: int = REG1, *, invert: bool = False) -> bytes:
    """Go on only where a register has these bytes, or has not."""
    operation = _word(2, int(invert))
    return _expression("cmp", _word(1, register), operation, nested(3, attribute(1, data)))


def masked(source: int, destination: int, mask: bytes) -> bytes:
    """Leave of a register's bytes what a mask has, in another register."""
    return _expression(
        "bitwise",
        _word(1, source), _word(2, destination), _word(3, len(mask)),
        nested(4, attribute(1, mask)), nested(5, attribute(1, bytes(len(mask)))),
    )  # fmt: skip


def sa_spi(*, out: bool, register: int = REG1) -> bytes:
    """Load the SPI, big-endian, of the SA that a packet came in or goes out through."""
    spi = 6
    direction = attribute(3, bytes([int(out)]))
    return _expression("xfrm", _word(1, register), _word(2, spi), direction, _word(4, 0))


def host_order(source: int, destination: int, length: int) -> bytes:
    """Turn 32-bit words from big-endian into the host's order, into other registers.

    One word at a time and not in place: 7.1 refuses everything else.
    """
    return b"".join(
        _expression(
            "byteorder",
            _word(1, source + word),
            _word(2, destination + word),
            _word(3, 0),
            _word(4, 4),
            _word(5, 4),
        )
        for word in range(length // 4)
    )


def jenkins(source: int, destination: int, *, length: int, total: int, seed: int = 0) -> bytes:
    """Hash a register's bytes; leave a number below ``total``."""
    return _expression(
        "hash",
        _word(1, source), _word(2, destination), _word(3, length), _word(4, total), _word(5, seed),
        _word(7, 0),
    )  # fmt: skip


def is_in(name: str, register: int, *, invert: bool = False) -> bytes:
    """Go on only where a register is in a set, or is not."""
    return _expression("lookup", _text(1, name), _word(2, register), _word(5, int(invert)))


def in_device(name: str) -> bytes:
    """Go on only for packets received on a device."""
    return _meta_name(6, name)


def out_device(name: str) -> bytes:
    """Go on only for packets that leave by a device."""
    return _meta_name(7, name)


def out_device_kind(kind: str) -> bytes:
    """Go on only for packets that leave by a device of a kind, such as "xfrm"."""
    return _meta_name(27, kind)


def _meta_name(key: int, name: str) -> bytes:
    return _expression("meta", _word(1, REG1), _word(2, key)) + is_equal(
        name.encode().ljust(16, b"\0")
    )


def transport_protocol() -> bytes:
    """Load the number, one byte, of what the transport header is of."""
    return _expression("meta", _word(1, REG1), _word(2, 16))


def has_secpath() -> bytes:
    """Load one byte: 1 where the packet came out of an SA."""
    return _expression("meta", _word(1, REG1), _word(2, 25))


def match(name: str, revision: int, info: bytes) -> bytes:
    """Ask a match of xtables."""
    return _expression("match", _text(1, name), _word(2, revision), attribute(3, info))


def target(name: str, revision: int = 0, info: bytes = b"") -> bytes:
    """End with a target of xtables."""
    return _expression("target", _text(1, name), _word(2, revision), attribute(3, info))


def reject() -> bytes:
    """Answer with "port unreachable", which is only for hooks of whole packets."""
    return _expression("reject", _word(1, 0), attribute(2, b"\x03"))
