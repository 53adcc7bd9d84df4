# SPDX-License-Identifier: GPL-2.0-only
"""A TUN device whose other end is the test itself: made-up packets in, real ones out.

Through NAPI what is written passes GRO, as on a network card and on every
kernel (a veth does that from 5.13 on only); without, it takes the slow path.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from namespaces import Namespace

_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NAPI = 0x0010
_IFF_NO_PI = 0x1000


class Wire:
    """The descriptor of a TUN device ``wire`` in a namespace: whole IP packets, no header.

    The namespace has 10.9.0.1/24 and fd09::1/64 on it; all else is at the
    test's end.
    """

    NEAR4 = "10.9.0.1"
    FAR4 = "10.9.0.2"
    NEAR6 = "fd09::1"
    FAR6 = "fd09::2"
    DEVICE = "wire"

    def __init__(self, namespace: Namespace, *, gro: bool) -> None:
        """Make the device, bring it up and give it its addresses."""
        flags = _IFF_TUN | _IFF_NO_PI | (_IFF_NAPI if gro else 0)
        with namespace.inside():
            self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            request = struct.pack("=16sH14x", self.DEVICE.encode(), flags)
            fcntl.ioctl(self._fd, _TUNSETIFF, request)
        namespace.ip(
            f"addr add {self.NEAR4}/24 dev {self.DEVICE}",
            f"addr add {self.NEAR6}/64 dev {self.DEVICE} nodad",
            f"link set {self.DEVICE} up",
        )

    def close(self) -> None:
        """Take the device away."""
        os.close(self._fd)

    def send(self, packet: bytes) -> None:
        """Let a packet arrive on the device."""
        os.write(self._fd, packet)

    def receive(self, wanted: Callable[[bytes], bool], *, timeout: float = 5) -> bytes | None:
        """Return the first packet sent that is wanted; None after ``timeout`` seconds."""
        until = time.monotonic() + timeout
        while True:
            left = until - time.monotonic()
            ready, _, _ = select.select([self._fd], [], [], max(left, 0))
            if ready and wanted(packet := os.read(self._fd, 65535)):
                return packet
            if not ready and left <= 0:
                return None


@contextlib.contextmanager
def wire(namespace: Namespace, *, gro: bool) -> Iterator[Wire]:
    """Plug a wire into a namespace, and unplug it."""
    plugged = Wire(namespace, gro=gro)
    try:
        yield plugged
    finally:
        plugged.close()


def is_esp(packet: bytes) -> bool:
    """Tell whether an IP packet carries ESP right after its fixed header."""
    return (packet[6] if packet[0] >> 4 == 6 else packet[9]) == 50
