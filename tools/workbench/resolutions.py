# SPDX-License-Identifier: GPL-2.0-only
"""Resolutions that were made once, kept beside the patches and used again.

``patches/<extension>/resolutions/NNNN-<digest>.resolution`` is a mail as git
writes patches, so that it can be read, reviewed and shared like one. Its diff
leads from the files in conflict, marks included, to the resolved ones. Its
trailers are the key::

    Patch-id: <git patch-id --stable of the patch>
    Resolved-on: v7.1.13
    Conflict: <sha256> net/xfrm/xfrm_user.c     one for each file in conflict

The sha256 is over what stands between the marks (see
:attr:`workbench.standoff.Contested.digest`). A resolution is used where the
patch and all conflicts are the same and the diff applies, context and all.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import atomic
from workbench.description import RESOLUTIONS, patch_number
from workbench.errors import UsageError
from workbench.gitapply import Entry, SmallIndex
from workbench.gitsettings import IDENTITY
from workbench.growing import GrowingTree
from workbench.mailhead import read_mail
from workbench.patchfile import PatchFile, read_patch
from workbench.standoff import OPENS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.gitstore import Store
    from workbench.model import KernelTag
    from workbench.rebase import Halted
    from workbench.standoff import Standoff

_MAIL = """\
From: {name} <{email}>
Date: Wed, 1 Jan 2020 00:00:00 +0000
Subject: [RESOLUTION] {extension} {subject}

How a conflict of {patch} was resolved on {tag}:
from the files in conflict, marks and all, to the resolved ones.
'kpw resolve' wrote it, 'kpw rebase' uses it where the same conflict comes up.

Patch-id: {patch_id}
Resolved-on: {tag}
{conflicts}
---
"""


@dataclass(frozen=True)
class Recalled:
    """A resolution that fits: its file, the tag it was made on, and the files it changes."""

    path: Path
    tag: str
    after: Mapping[str, Entry | None]


@dataclass(frozen=True)
class Resolved:
    """A patch, where it stood, and how it was resolved: ``files`` are all that then change."""

    extension: str
    patch: PatchFile
    standoff: Standoff
    files: Mapping[str, Entry | None]


def patch_id(store: Store, diff: bytes) -> str:
    """Return git's stable patch-id of a diff: lines and names count, places and spaces do not."""
    return store.git("patch-id", "--stable", input=diff).partition(" ")[0]


class Memory:
    """The resolutions below ``patches``, for one tree; ``folder`` is scratch."""

    def __init__(self, store: Store, tree: GrowingTree, patches: Path, folder: Path) -> None:
        """Nothing is read before a patch conflicts."""
        self._store = store
        self._tree = tree
        self._patches = patches
        self._folder = folder
        self._known: dict[str, tuple[PatchFile, ...]] = {}
        self._count = 0

    def recall(self, extension: str, patch: PatchFile, standoff: Standoff) -> Recalled | None:
        """Return how a conflict of this very kind was resolved, if it was."""
        known = self._of(extension)
        if not known or any(each.text is None for each in standoff.contested):
            return None
        identity = patch_id(self._store, patch.diff)
        for resolution in known:
            if resolution.mail.trailer("Patch-id") == (identity,) and set(
                resolution.mail.trailer("Conflict")
            ) == set(_conflicts(standoff)):
                after = self._replayed(resolution, standoff)
                if after is not None:
                    tag = " ".join(resolution.mail.trailer("Resolved-on"))
                    return Recalled(resolution.path, tag, after)
        return None

    def remember(self, resolved: Resolved, tag: KernelTag) -> Path:
        """Write a resolution made on the tree of ``tag`` down, and return its file."""
        standoff = resolved.standoff
        before = self._before(standoff, resolved.files)
        after = {path: resolved.files.get(path, self._tree.file(path)) for path in before}
        trees = (self._index(entries).write_tree() for entries in (before, after))
        words = ("diff-tree", "-p", "--full-index", "--no-renames", "--no-ext-diff")
        _, diff, _ = self._store.git_bytes(*words, *trees)
        head = _MAIL.format(
            name=IDENTITY[0],
            email=IDENTITY[1],
            extension=resolved.extension,
            subject=resolved.patch.mail.subject,
            patch=resolved.patch.path.name,
            tag=tag,
            patch_id=patch_id(self._store, resolved.patch.diff),
            conflicts="\n".join(f"Conflict: {each}" for each in _conflicts(standoff)),
        )
        digest = hashlib.sha256("".join(_conflicts(standoff)).encode() + diff).hexdigest()[:12]
        name = f"{patch_number(resolved.patch.path)}-{digest}.resolution"
        file = self._patches / resolved.extension / RESOLUTIONS / name
        file.parent.mkdir(exist_ok=True)
        atomic.write(file, head.encode() + diff)
        return file

    def _of(self, extension: str) -> tuple[PatchFile, ...]:
        if extension not in self._known:
            files = sorted((self._patches / extension / RESOLUTIONS).glob("*.*"))
            # A run that was killed while it wrote one leaves a hidden file.
            shown = (file for file in files if not file.name.startswith("."))
            self._known[extension] = tuple(_read(file) for file in shown)
        return self._known[extension]

    def _replayed(
        self, resolution: PatchFile, standoff: Standoff
    ) -> dict[str, Entry | None] | None:
        """Apply a resolution to the files in conflict; None when it does not fit."""
        if any(self._tree.blocked(change.name) for change in resolution.changes):
            return None
        before = self._before(standoff, dict.fromkeys(resolution.touched))
        index = self._index(before)
        if resolution.diff and not index.apply(resolution.diff, where=str(resolution.path)).applied:
            return None
        stages = index.stages()
        after = {path: stages.get(path, {}).get(0) for path in before}
        texts = (self._store.cat_file(entry.oid) for entry in after.values() if entry)
        return None if any(OPENS in text for text in texts) else after

    def _before(
        self, standoff: Standoff, others: Mapping[str, Entry | None]
    ) -> dict[str, Entry | None]:
        """Return the files as they are while in conflict; what is gone is not among them."""
        found: dict[str, Entry | None] = {path: self._tree.file(path) for path in others}
        found |= standoff.merged
        for each in standoff.contested:
            data = b"" if each.gone else each.text or b""
            oid = self._store.add("blob", data)
            found[each.path] = None if each.gone else Entry(each.mode, oid)
        return found

    def _index(self, entries: Mapping[str, Entry | None]) -> SmallIndex:
        self._count += 1
        index = SmallIndex(self._store, self._folder / f"memory-{self._count}")
        index.put({path: entry for path, entry in entries.items() if entry})
        return index


def remember_at(
    store: Store, patches: Path, halted: Halted, files: Mapping[str, Entry | None]
) -> Path:
    """Write down below ``patches`` how the patch a series halted at was resolved there."""
    if halted.standoff is None:
        raise AssertionError("there is a conflict, or nothing is to be remembered")
    with tempfile.TemporaryDirectory(prefix="kpw-resolve-") as name:
        folder = Path(name)
        tree = GrowingTree(store, halted.series.tree, folder)
        extension = halted.series.outcomes[-1].extension
        resolved = Resolved(extension, halted.patch, halted.standoff, files)
        memory = Memory(store, tree, patches, folder)
        return memory.remember(resolved, halted.series.kernel.tag)


def _conflicts(standoff: Standoff) -> list[str]:
    return sorted(f"{each.digest} {each.path}" for each in standoff.contested)


def _read(path: Path) -> PatchFile:
    """Read a resolution; one that keeps upstream's files as they are has no diff."""
    if path.suffix != ".resolution":
        raise UsageError(
            "is no resolution", where=str(path), next_step="they are named *.resolution"
        )
    data = path.read_bytes()
    if b"\ndiff --git " in data:
        return read_patch(path)
    mail, _ = read_mail(path, data.splitlines(keepends=True))
    return PatchFile(path, mail, ())
