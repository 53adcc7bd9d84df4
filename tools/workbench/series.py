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

from workbench.gitsettings import IDENTITY
from workbench.treeobject import ChangingTree

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

    The ref moves when all of them are there (none: no ref). With nothing to
    add it points at the kernel itself.
    """
    tree, parent = ChangingTree(store, kernel.tree), kernel.commit
    commits = []
    for addition in additions:
        parent = store.add("commit", _commit(tree.write(addition.changes), parent, addition.mail))
        commits.append(parent)
    if ref:
        store.update_ref(ref, parent)
    return tuple(commits)


def _commit(tree: str, parent: str, mail: Mail) -> bytes:
    return (
        f"tree {tree}\nparent {parent}\n"
        f"author {mail.name} <{mail.email}> {mail.date}\n"
        f"committer {IDENTITY[0]} <{IDENTITY[1]}> {mail.date}\n"
        f"\n{mail.message}"
    ).encode()
