# SPDX-License-Identifier: GPL-2.0-only
"""Write a patch file anew for another kernel: its mail as it was, the diff as it is there."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from workbench import patchmail
from workbench.errors import InfraError
from workbench.mailhead import read_mail
from workbench.patchfile import parse_patch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from workbench.gitstore import Store
    from workbench.mailhead import Mail
    from workbench.patchfile import PatchFile

_STAT = re.compile(rb" \S.* \| +(?:\d+|Bin)(?: .*)?\n| \d+ files? changed.*\n")
_BASE = re.compile(rb"base-commit: [0-9a-f]+\n")
_STANDS_ON = re.compile(rb"prerequisite-patch-id: [0-9a-f]+\n")


def body(store: Store, folder: Path, before: str, after: str) -> bytes:
    """Return what format-patch writes below ``---`` for two trees: statistics and the diff.

    Hunks are headed as the kernel's own .gitattributes ask; ``folder`` is scratch.
    """
    attributes = folder / "gitattributes"
    attributes.write_bytes(store.read_file(after, ".gitattributes") or b"")
    code, text, err = store.git_bytes(
        *("-c", f"core.attributesFile={attributes}", "diff-tree", "-r", "-M", "--full-index"),
        *("--patch-with-stat", "--stat=72", "--summary", "--no-ext-diff", before, after),
    )
    if code != 0:
        raise InfraError(err or f"exit code {code}", where="git diff-tree")
    return text


def rewritten(
    patch: PatchFile, new: bytes, base: str, stands_on: Iterable[str], mail: Mail | None = None
) -> bytes:
    """Return a patch file's bytes with another :func:`body`.

    It was made on the commit ``base`` and the patches with the patch-ids
    ``stands_on``; a file that did not say so does not now. Header, message,
    trailers, notes below ``---`` and the signature stay byte for byte, but
    for a new ``mail`` in the place of the first three.
    """
    # Not splitlines: a patch may hold a lone CR, which that takes for a line's end.
    lines = io.BytesIO(patch.path.read_bytes()).readlines()
    _, end = read_mail(patch.path, lines)
    head = lines[:end]
    notes: list[bytes] = []
    if lines[end].rstrip() == b"---":
        first = patch.changes[0].line - 1
        below = lines[end + 1 : first]
        count = next((at for at, line in enumerate(below) if _STAT.fullmatch(line)), len(below))
        notes = below[:count] if b"".join(below[:count]).strip() else []
    last = patch.changes[-1]
    tail = lines[last.line - 1 + last.text.count(b"\n") :]
    tail = [_BASE.sub(f"base-commit: {base}\n".encode(), line) for line in tail]
    told = [at for at, line in enumerate(tail) if _STANDS_ON.fullmatch(line)]
    if told:
        ids = [f"prerequisite-patch-id: {each}\n".encode() for each in stands_on]
        tail[told[0] : told[-1] + 1] = ids
    if mail is not None and mail != patch.mail:
        head = [patchmail.head(mail)]
    data = b"".join([*head, b"---\n", *notes, new, *tail])
    if parse_patch(patch.path, data).mail != (mail or patch.mail):
        raise InfraError("its message would come out otherwise", where=str(patch.path))
    return data


def fresh(mail: Mail, new: bytes, base: str) -> bytes:
    """Return the bytes of a new patch file; with ``base`` empty it does not say on what it is."""
    told = f"\nbase-commit: {base}\n" if base else ""
    return patchmail.head(mail) + b"---\n" + new + f"{told}-- \nkpw\n\n".encode()
