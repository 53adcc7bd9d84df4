# SPDX-License-Identifier: GPL-2.0-only
"""A veth within one namespace, over which packets come in that have a mark before GRO sees them.

Only a veth whose ends are in one namespace leaves a packet its mark, and only
one that has NAPI has GRO: from 5.13 on that is what turning GRO on asks for.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from namespaces import Namespace

_SIOCETHTOOL = 0x8946
_SIOCGIFHWADDR = 0x8927
_ETHTOOL_GGRO, _ETHTOOL_SGRO, _ETHTOOL_STSO = 0x2B, 0x2C, 0x1F
_SO_MARK = 36
_NEAR, _FAR = "near", "far"


@dataclass(frozen=True)
class MarkedWire:
    """What is sent on it comes in at 10.9.0.1 and fd09::1, with a mark; ``gro`` tells by which way.

    A veth without NAPI says that GRO is on, and has none.
    """

    tap: socket.socket
    hardware_address: bytes
    gro: bool

    def send(self, packet: bytes) -> None:
        """Let a packet arrive."""
        ethertype = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
        self.tap.sendto(packet, (_FAR, ethertype, 0, 0, self.hardware_address))


@contextlib.contextmanager
def marked_wire(namespace: Namespace, mark: int) -> Iterator[MarkedWire]:
    """Plug one into a namespace; its end goes with the namespace's."""
    namespace.ip(
        f"link add {_NEAR} type veth peer name {_FAR}",
        f"addr add {Wire.NEAR4}/24 dev {_NEAR}",
        f"addr add {Wire.NEAR6}/64 dev {_NEAR} nodad",
        f"link set {_NEAR} up",
        f"link set {_FAR} up",
    )
    with namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as tap:
        tap.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
        had_gro = _ethtool(tap, _NEAR, _ETHTOOL_GGRO)
        _ethtool(tap, _NEAR, _ETHTOOL_SGRO, 1)
        # A sender that makes large packets by itself is thought to have no use for GRO.
        _ethtool(tap, _FAR, _ETHTOOL_STSO, 0)
        request = fcntl.ioctl(tap, _SIOCGIFHWADDR, struct.pack("=16s24x", _NEAR.encode()))
        yield MarkedWire(tap, request[18:24], gro=not had_gro)


def _ethtool(any_socket: socket.socket, device: str, command: int, value: int = 0) -> int:
    """Ask a device by struct ethtool_value; return the value it is left with."""
    words = (ctypes.c_uint32 * 2)(command, value)
    request = struct.pack("=16sQ16x", device.encode(), ctypes.addressof(words))
    fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
    return int(words[1])
