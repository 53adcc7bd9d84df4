# SPDX-License-Identifier: GPL-2.0-only
"""RTM_NEWADDR and its dump, with all 32 bits of IFA_FLAGS."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

from netlink_frames import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    Message,
    NetlinkSocket,
    attributes,
    decode,
    encode,
)

IFA_F_NODAD = 0x02
IFA_F_DEPRECATED = 0x20
IFA_F_PERMANENT = 0x80
#: E5: never a candidate of source address selection.
IFA_F_NOSRCSEL = 0x00100000

FOREVER = 0xFFFFFFFF

_NETLINK_ROUTE = 0
_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_CACHE = struct.Struct("=IIII")


class AddressMessage(Message):  # type: ignore[misc]
    """struct ifaddrmsg."""

    fields = (("family", "B"), ("prefix", "B"), ("flags", "B"), ("scope", "B"), ("index", "I"))
    nla_map = (
        (1, "IFA_ADDRESS", "cdata"),
        (2, "IFA_LOCAL", "cdata"),
        (6, "IFA_CACHEINFO", "cdata"),
        (8, "IFA_FLAGS", "cdata"),
    )


@dataclass(frozen=True)
class Address:
    """An address of a device, of either family; lifetimes in seconds, FOREVER for no end."""

    address: str
    index: int
    prefix: int = 128
    flags: int = IFA_F_NODAD
    preferred: int = FOREVER
    valid: int = FOREVER


class AddressSocket(NetlinkSocket):
    """Addresses of the namespace it is opened in."""

    def __init__(self) -> None:
        """Open it."""
        super().__init__(_NETLINK_ROUTE)

    def replace(self, wanted: Address) -> None:
        """Add an address, or change the one there is to be as wanted."""
        self.ask("RTM_NEWADDR", _message(wanted), _RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE)

    def addresses(self, family: int = socket.AF_INET6) -> list[Address]:
        """Dump those of a family."""
        request = AddressMessage()
        request["family"] = family
        return [_address(frame) for frame in self.dump("RTM_GETADDR", request, _RTM_GETADDR)]

    def find(self, address: str) -> Address | None:
        """Return one address from a dump, or None."""
        family = _family(address)
        return next((found for found in self.addresses(family) if found.address == address), None)

    def link_local(self, index: int) -> str:
        """Return the link-local address of a device, "" while it has none."""
        for found in self.addresses():
            if found.index == index and ipaddress.ip_address(found.address).is_link_local:
                return found.address
        return ""


def replace_request(wanted: Address, sequence: int) -> bytes:
    """Return the bytes of a replace() that asks for an acknowledgement; IFA_FLAGS comes last."""
    flags = NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK
    return encode(_message(wanted), _RTM_NEWADDR, flags, sequence)


def _message(wanted: Address) -> AddressMessage:
    message = AddressMessage()
    message.update(family=_family(wanted.address), prefix=wanted.prefix, index=wanted.index)
    packed = ipaddress.ip_address(wanted.address).packed
    message["attrs"] = [
        ("IFA_ADDRESS", packed),
        ("IFA_LOCAL", packed),
        ("IFA_CACHEINFO", _CACHE.pack(wanted.preferred, wanted.valid, 0, 0)),
        ("IFA_FLAGS", struct.pack("=I", wanted.flags)),
    ]
    return message


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _address(frame: bytes) -> Address:
    message = decode(AddressMessage, frame)
    values = attributes(message)
    preferred, valid, _, _ = _CACHE.unpack(values["IFA_CACHEINFO"])
    return Address(
        address=str(ipaddress.ip_address(values["IFA_ADDRESS"])),
        index=message["index"],
        prefix=message["prefix"],
        flags=struct.unpack("=I", values["IFA_FLAGS"])[0],
        preferred=preferred,
        valid=valid,
    )
