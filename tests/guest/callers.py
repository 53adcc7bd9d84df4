# SPDX-License-Identifier: GPL-2.0-only
"""Callers the kernel treats otherwise: without CAP_NET_ADMIN, and of 32 bits."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import struct
from typing import TYPE_CHECKING

from namespaces import SetUpError

if TYPE_CHECKING:
    from collections.abc import Iterator

_CAP_NET_ADMIN = 12
_CAPABILITY_VERSION_3 = 0x20080522
_SETS = struct.Struct("=6I")
_MAP_32BIT = 0x40
_RESULT = struct.Struct("=q")
_CALL = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)

_libc = ctypes.CDLL(None, use_errno=True)

#: ssize_t write32(int fd, const void *buf, size_t len): x86-64 code that enters
#: the kernel by int 0x80, which makes it a 32-bit call whatever the program is.
_WRITE_BY_INT80 = bytes.fromhex(
    "53"  # push rbx
    "b804000000"  # mov eax, 4: write in the 32-bit table
    "89fb"  # mov ebx, edi
    "89f1"  # mov ecx, esi
    "cd80"  # int 0x80
    "5b"  # pop rbx
    "4898"  # cdqe
    "c3"  # ret
)

#: ssize_t recv32(int fd, void *buf, size_t len): the same for recvfrom without flags.
_RECEIVE_BY_INT80 = bytes.fromhex(
    "5355"  # push rbx; push rbp
    "b873010000"  # mov eax, 371: recvfrom in the 32-bit table
    "89fb"  # mov ebx, edi
    "89f1"  # mov ecx, esi
    "31f631ff31ed"  # xor esi, esi; xor edi, edi; xor ebp, ebp
    "cd80"  # int 0x80
    "5d5b"  # pop rbp; pop rbx
    "4898"  # cdqe
    "c3"  # ret
)


@contextlib.contextmanager
def without_net_admin() -> Iterator[None]:
    """Drop CAP_NET_ADMIN from the effective set of this thread, and take it back."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    kept = ctypes.create_string_buffer(_SETS.size)
    if _libc.capget(header, kept) != 0:
        raise SetUpError(f"capget: {os.strerror(ctypes.get_errno())}")
    effective, *rest = _SETS.unpack(kept.raw)
    _set_capabilities(header, _SETS.pack(effective & ~(1 << _CAP_NET_ADMIN), *rest))
    try:
        yield
    finally:
        _set_capabilities(header, kept.raw)


def _set_capabilities(header: bytes, sets: bytes) -> None:
    if _libc.capset(header, sets) != 0:
        raise SetUpError(f"capset: {os.strerror(ctypes.get_errno())}")


def write_as_32_bits(descriptor: int, data: bytes) -> None:
    """Write to a descriptor by a 32-bit system call; OSError as write(2) gives.

    A child does it: where the kernel has no IA32_EMULATION the instruction is
    a fault, which then is reported as SetUpError.
    """
    data_at = len(_WRITE_BY_INT80)
    page = _low_page(data_at + len(data))
    page.write(_WRITE_BY_INT80 + data)
    _in_a_child(descriptor, page, data_at, len(data))


def receive_as_32_bits(descriptor: int, size: int = 1 << 15) -> bytes:
    """Receive one datagram by a 32-bit system call, which netlink may translate for."""
    data_at = len(_RECEIVE_BY_INT80)
    page = _low_page(data_at + size)
    page.write(_RECEIVE_BY_INT80)
    length = _in_a_child(descriptor, page, data_at, size)
    return page[data_at : data_at + length]


def _low_page(size: int) -> mmap.mmap:
    """Return memory that runs and is shared, in the low 2 GB, where 32 bits can point."""
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _MAP_32BIT
    everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    return mmap.mmap(-1, size + _RESULT.size, flags=flags, prot=everything)


def _in_a_child(descriptor: int, page: mmap.mmap, data_at: int, size: int) -> int:
    """Call the code at the page's start; return its result, OSError when it is negative."""
    child = os.fork()
    if child == 0:
        start = ctypes.addressof(ctypes.c_char.from_buffer(page))
        call = _CALL(start)
        _RESULT.pack_into(page, data_at + size, call(descriptor, start + data_at, size))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise SetUpError("32-bit system calls fault here: the kernel needs CONFIG_IA32_EMULATION=y")
    (result,) = _RESULT.unpack_from(page, data_at + size)
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return int(result)
