# SPDX-License-Identifier: GPL-2.0-only
"""The reader of a queue of netfilter, who gives each packet back."""

from __future__ import annotations

import os
import struct
import time
from typing import TYPE_CHECKING

import nf_tables_raw as nf
from netlink_frames import NLM_F_ACK, NLM_F_REQUEST, NetlinkSocket

if TYPE_CHECKING:
    from namespaces import Namespace

_NETFILTER = 12
_QUEUE = 3 << 8
_PACKET, _VERDICT, _CONFIG = _QUEUE, _QUEUE | 1, _QUEUE | 2
_BIND, _COPY_META = 1, 1
_HEADER = struct.Struct("=IHHII")
_NFGEN = struct.Struct("!BBH")
#: Of a packet's first attribute: its number follows.
_PACKET_HDR = 1


class Queue:
    """Reads one queue of a namespace."""

    def __init__(self, namespace: Namespace, number: int) -> None:
        """Take the queue; NetlinkRefusedError where there is none."""
        self._number = number
        with namespace.inside():
            self._socket = NetlinkSocket(_NETFILTER)
        command = nf.attribute(1, struct.pack("!BxH", _BIND, 0))
        self._send(_CONFIG, command, NLM_F_ACK, 1)
        self._socket.replies(f"queue {number}", 1)
        self._send(_CONFIG, nf.attribute(2, struct.pack("!IB", 0, _COPY_META)), NLM_F_ACK, 2)
        self._socket.replies(f"what to copy of queue {number}", 2)

    def close(self) -> None:
        """Let go of it; what is in it is dropped."""
        self._socket.close()

    def accept(self, count: int, *, seconds: float) -> int:
        """Give packets back as accepted, until there were so many; return how many there were."""
        given, until = 0, time.monotonic() + seconds
        while given < count and time.monotonic() < until:
            for kind, frame in self._socket.heard(0.05):
                given += kind == _PACKET and self._accept(frame)
        return given

    def _accept(self, frame: bytes) -> bool:
        at = _HEADER.size + _NFGEN.size
        while at < len(frame):
            length, kind = struct.unpack_from("=HH", frame, at)
            if kind & 0x3FFF == _PACKET_HDR:
                verdict = struct.pack("!I", nf.ACCEPT) + frame[at + 4 : at + 8]
                self._send(_VERDICT, nf.attribute(2, verdict), 0, 3)
                return True
            at += (length + 3) & ~3
        return False

    def _send(self, kind: int, payload: bytes, flags: int, sequence: int) -> None:
        head = _NFGEN.pack(0, 0, self._number)
        size = _HEADER.size + len(head) + len(payload)
        header = _HEADER.pack(size, kind, flags | NLM_F_REQUEST, sequence, 0)
        os.write(self._socket.fileno(), header + head + payload)
