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
    child = os.fork()
    if child == 0:
        os._exit(_write_by_int80(descriptor, data))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise SetUpError("32-bit system calls fault here: the kernel needs CONFIG_IA32_EMULATION=y")
    errno = os.WEXITSTATUS(status)
    if errno:
        raise OSError(errno, os.strerror(errno))


def _write_by_int80(descriptor: int, data: bytes) -> int:
    """Return 0 or the errno; the page lies in the low 2 GB, where 32 bits can point."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_32BIT
    everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=flags, prot=everything)
    page.write(_WRITE_BY_INT80 + data)
    start = ctypes.addressof(ctypes.c_char.from_buffer(page))
    call = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)(start)
    result = call(descriptor, start + len(_WRITE_BY_INT80), len(data))
    return 0 if result == len(data) else int(-result) & 0xFF
