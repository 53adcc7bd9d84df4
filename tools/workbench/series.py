# SPDX-License-Identifier: GPL-2.0-only
"""Write a rebased series into the store: one commit per patch, and the ref last.

A patch's commit has the patch's author and message; its committer is nobody
and the committer's date the author's, so that the same patches on the same
kernel are the same commits on every machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench import process
from workbench.gitstore import IDENTITY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workbench.gitapply import Entry
    from workbench.gitstore import Store
    from workbench.mailhead import Mail
    from workbench.model import Kernel

_MAX_NAME = 120


@dataclass(frozen=True)
class Addition:
    """One commit to make: files by name, None for one that goes away."""

    mail: Mail
    changes: Mapping[str, Entry | None]


def ref_name(kernel: Kernel, extensions: Sequence[str]) -> str:
    """Return ``refs/kpw/series/<kernel>/<extension>+<extension>``; a digest when that is long."""
    name = "+".join(extensions) or "none"
    if len(name) > _MAX_NAME:
        name = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"refs/kpw/series/{kernel.name}/{name}"


def write(store: Store, kernel: Kernel, ref: str, additions: Sequence[Addition]) -> tuple[str, ...]:
    """Make the commits on top of a kernel, in order; return their ids.

    The ref moves when all of them are there. With nothing to add it points
    at the kernel itself.
    """
    if not additions:
        store.update_ref(ref, kernel.commit)
        return ()
    stream = [f"feature done\nreset {ref}\nfrom {kernel.commit}\n\n".encode()]
    for mark, addition in enumerate(additions, 1):
        stream += _commit(ref, mark, addition)
    stream += [f"get-mark :{mark}\n".encode() for mark in range(1, len(additions) + 1)]
    stream.append(b"done\n")
    # A handful of objects is not worth a pack of its own.
    argv = store.argv("-c", "fastimport.unpackLimit=10000", "fast-import", "--quiet", "--force")
    with store.writing():
        done = process.run(argv, env=store.environment(), stdin=b"".join(stream))
    return tuple(done.stdout.split())


def _commit(ref: str, mark: int, addition: Addition) -> list[bytes]:
    mail = addition.mail
    committer = f"{IDENTITY[0]} <{IDENTITY[1]}>"
    message = mail.message.encode()
    lines = [
        f"commit {ref}\nmark :{mark}\n",
        f"author {mail.name} <{mail.email}> {mail.date}\n",
        f"committer {committer} {mail.date}\n",
        f"data {len(message)}\n",
    ]
    removed = [f"D {_quoted(path)}\n" for path, entry in addition.changes.items() if not entry]
    added = [
        f"M {entry.mode} {entry.oid} {_quoted(path)}\n"
        for path, entry in addition.changes.items()
        if entry
    ]
    # Removals first: a new file may stand where a directory was.
    files = "".join([*removed, *added, "\n"])
    return ["".join(lines).encode(), message, files.encode()]


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
