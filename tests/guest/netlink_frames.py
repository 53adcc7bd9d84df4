# SPDX-License-Identifier: GPL-2.0-only
"""Netlink sockets that speak in pyroute2's messages: the only door to pyroute2.

pyroute2 encodes and decodes headers and attributes; the sockets are plain, so
that one can be opened in any network namespace and every reply of the kernel,
refusals with their extended acknowledgement included, is seen as it came.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import struct
import sys
import time
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_REPLACE = 0x100
NLM_F_CAPPED = 0x100
NLM_F_EXCL = 0x200
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_HEADER = struct.Struct("=IHHII")
_RECEIVE_BYTES = 1 << 17
_LAST_LOOK = 0.1


def _import_without_package(name: str) -> ModuleType:
    """Import one module of pyroute2 without running pyroute2/__init__.py.

    That file imports every subsystem of the library (0.17-0.25 s on hardware,
    1.5 s and more under TCG); the message classes need three modules of it.
    """
    package, _, _ = name.partition(".")
    if package in sys.modules:
        return importlib.import_module(name)
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"no module named {package!r}; install python3-{package}")
    sys.modules[package] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module(name)
    finally:
        # Whoever wants the whole library later gets it whole.
        del sys.modules[package]


_frames = _import_without_package("pyroute2.netlink")
Message: Any = _frames.nlmsg


class NetlinkRefusedError(Exception):
    """The kernel answered a request with an error.

    ``errno`` is positive; ``extack`` is the kernel's sentence, "" when it
    gave none.
    """

    def __init__(self, request: str, errno: int, extack: str) -> None:
        """Keep the parts; ``request`` is what was asked."""
        super().__init__(request, errno, extack)
        self.request = request
        self.errno = errno
        self.extack = extack

    def __str__(self) -> str:
        """Return one line: what was asked, the errno, the kernel's words."""
        said = f": {self.extack}" if self.extack else ""
        return f"{self.request} refused: {os.strerror(self.errno)} (errno {self.errno}){said}"


class _Refusal(Message):  # type: ignore[misc]
    """NLMSG_ERROR as it looks with NETLINK_CAP_ACK: the request's header, no payload."""

    fields = (("error", "i"), ("request", "16s"))
    nla_map = ((1, "NLMSGERR_ATTR_MSG", "asciiz"), (2, "NLMSGERR_ATTR_OFFS", "cdata"))


def encode(message: Any, kind: int, flags: int, sequence: int) -> bytes:
    """Return the bytes of a request of type ``kind``."""
    message["header"] = {
        "type": kind,
        "flags": flags | NLM_F_REQUEST,
        "sequence_number": sequence,
        "pid": 0,
    }
    message.encode()
    return bytes(message.data)


def decode(message_class: Any, frame: bytes) -> Any:
    """Decode one whole netlink message, header included."""
    message = message_class(bytearray(frame))
    message.decode()
    return message


def attributes(message: Any) -> dict[str, bytes]:
    """Return the attributes of a decoded message as bytes, by name; the last of a name wins."""
    found = {}
    for slot in message["attrs"]:
        value = slot[1]
        found[str(slot[0])] = bytes(value) if isinstance(value, bytes | bytearray) else b""
    return found


class NetlinkSocket:
    """A netlink socket of the network namespace it is opened in.

    ``protocol`` is the netlink family (6 is XFRM, 0 is ROUTE), ``groups`` the
    multicast groups to join, ``timeout`` the seconds to wait for any answer.
    """

    def __init__(self, protocol: int, *, groups: tuple[int, ...] = (), timeout: float = 10) -> None:
        """Open it; OSError where the kernel lacks the family."""
        self._sequence = count(1)
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.settimeout(timeout)
        self._timeout = timeout
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.bind((0, 0))
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def close(self) -> None:
        """Close it; twice is fine."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor, for a system call made by hand."""
        return self._socket.fileno()

    def ask(self, name: str, message: Any, kind: int, flags: int = 0) -> list[bytes]:
        """Send a request and return the replies before its acknowledgement.

        Raises NetlinkRefusedError, in which ``name`` stands for the request.
        """
        sequence = next(self._sequence)
        self._socket.send(encode(message, kind, flags | NLM_F_ACK, sequence))
        return self.replies(name, sequence)

    def dump(self, name: str, message: Any, kind: int) -> list[bytes]:
        """Send a dump request and return every message of the answer."""
        sequence = next(self._sequence)
        self._socket.send(encode(message, kind, NLM_F_DUMP, sequence))
        return self.replies(name, sequence)

    def replies(self, name: str, sequence: int) -> list[bytes]:
        """Collect the frames of one sequence number up to its end or its refusal."""
        collected: list[bytes] = []
        while True:
            for kind, number, frame in self._receive():
                if number != sequence:
                    continue
                if kind == _NLMSG_DONE:
                    return collected
                if kind == _NLMSG_ERROR:
                    _raise_refusal(name, frame)
                    return collected
                collected.append(frame)

    def heard(self, timeout: float) -> Iterator[tuple[int, bytes]]:
        """Give what arrives within ``timeout`` seconds as (message type, frame).

        What arrives while a request waits for its reply is not kept: ask on
        another socket, or afterwards.
        What has arrived by then is given even if this process was stalled
        meanwhile, as a guest on a busy machine is.
        """
        until = time.monotonic() + timeout
        late = False
        while not late:
            left = until - time.monotonic()
            late = left <= 0
            self._socket.settimeout(max(left, _LAST_LOOK))
            try:
                frames = self._receive()
            except TimeoutError:
                continue
            finally:
                self._socket.settimeout(self._timeout)
            late = False
            for kind, _, frame in frames:
                yield kind, frame

    def _receive(self) -> list[tuple[int, int, bytes]]:
        return frames_of(self._socket.recv(_RECEIVE_BYTES))


def frames_of(data: bytes) -> list[tuple[int, int, bytes]]:
    """Split one datagram into (type, sequence number, frame)."""
    frames = []
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        frames.append((kind, sequence, data[offset : offset + length]))
        offset += (max(length, _HEADER.size) + 3) & ~3
    return frames


def _raise_refusal(name: str, frame: bytes) -> None:
    """Raise what an NLMSG_ERROR says, or return when it is the acknowledgement."""
    (error,) = struct.unpack_from("=i", frame, _HEADER.size)
    if error == 0:
        return
    said = ""
    _, _, flags, _, _ = _HEADER.unpack_from(frame)
    # Kernels whose XFRM gives no reason send neither attributes nor the flag.
    if flags & NLM_F_CAPPED:
        said = str(decode(_Refusal, frame).get_attr("NLMSGERR_ATTR_MSG") or "")
    raise NetlinkRefusedError(name, -error, said)
