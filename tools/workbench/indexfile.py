# SPDX-License-Identifier: GPL-2.0-only
"""Git's index file, version 2: written and read here, for indexes of a few entries."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

from workbench.errors import InfraError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HEAD = struct.Struct(">4sII")
#: Times, device, inode (not known here, so 0), mode, owner, size, id, flags.
_ENTRY = struct.Struct(">24xI12x20sH")
_SIGNATURE, _VERSION = b"DIRC", 2
_LONG = 0xFFF
_STAGE_SHIFT = 12
_ALIGN = 8

#: Name, mode as git writes it (``100644``), blob id, stage.
Record = tuple[str, str, str, int]


def pack(records: Iterable[Record]) -> bytes:
    """Return the bytes of an index."""
    entries = sorted(
        (name.encode(errors="surrogateescape"), stage, int(mode, 8), bytes.fromhex(oid))
        for name, mode, oid, stage in records
    )
    parts = [_HEAD.pack(_SIGNATURE, _VERSION, len(entries))]
    for name, stage, mode, oid in entries:
        flags = stage << _STAGE_SHIFT | min(len(name), _LONG)
        padding = _ALIGN - (_ENTRY.size + len(name)) % _ALIGN
        parts += [_ENTRY.pack(mode, oid, flags), name, b"\0" * padding]
    data = b"".join(parts)
    return data + hashlib.sha1(data, usedforsecurity=False).digest()


def unpack(data: bytes, where: str) -> Iterator[Record]:
    """Yield the entries of an index that git wrote; InfraError for another version of it."""
    signature, version, count = _HEAD.unpack_from(data)
    if (signature, version) != (_SIGNATURE, _VERSION):
        raise InfraError(
            f"git wrote an index of version {version}, not 2",
            where=where,
            next_step="take 'index.version' out of git's configuration",
        )
    at = _HEAD.size
    for _ in range(count):
        mode, oid, flags = _ENTRY.unpack_from(data, at)
        end = data.index(b"\0", at + _ENTRY.size)
        name = data[at + _ENTRY.size : end].decode(errors="surrogateescape")
        yield name, f"{mode:o}", oid.hex(), flags >> _STAGE_SHIFT & 3
        at += (end - at) // _ALIGN * _ALIGN + _ALIGN
