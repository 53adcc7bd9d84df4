# SPDX-License-Identifier: GPL-2.0-only
"""Write an object into a git store without starting git: one loose file each.

A rebase makes a few hundred blobs, trees and commits a kernel. A file each is
what git itself leaves of so few, and it costs less than the start of a program.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
import zlib
from typing import TYPE_CHECKING

from workbench.errors import InfraError

if TYPE_CHECKING:
    from pathlib import Path

#: zlib's fastest, as git's own core.looseCompression.
_LEVEL = 1


def place(store: Path, oid: str) -> Path:
    """Return where a loose object lies."""
    return store / "objects" / oid[:2] / oid[2:]


def write(store: Path, kind: str, data: bytes) -> str:
    """Write an object (``blob``, ``tree`` or ``commit``) unless it lies there; return its id.

    Another writer of the same object does no harm: the file appears whole, and
    its content is its name. InfraError when the disk does not take it.
    """
    raw = f"{kind} {len(data)}\0".encode() + data
    oid = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
    file = place(store, oid)
    if file.exists():
        return oid
    # The name under which 'git prune' looks for what a killed writer left.
    young = file.with_name(f"tmp_obj_{os.getpid()}_{threading.get_ident()}")
    try:
        _create(young, zlib.compress(raw, _LEVEL))
        young.rename(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            young.unlink()
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise InfraError(
            "the disk is full" if full else f"cannot be written: {error.strerror}",
            where=str(file),
            next_step="free some space" if full else "check the disk",
        ) from error
    return oid


def _create(file: Path, data: bytes) -> None:
    flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
    try:
        handle = os.open(file, flags, 0o444)
    except FileNotFoundError:
        file.parent.mkdir(exist_ok=True)
        handle = os.open(file, flags, 0o444)
    with os.fdopen(handle, "wb") as opened:
        opened.write(data)
