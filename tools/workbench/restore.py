# SPDX-License-Identifier: GPL-2.0-only
"""Bring back files that upstream removed, out of a kernel that still has them.

An extension's ``[[restore]]`` says which, from which tag on, and from where.
The text is upstream's: it comes blob by blob out of the user's own kernel
source in the store, and none of it is in this repository. What it takes to
build it again is the business of the extension's patches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.errors import UsageError
from workbench.gitsettings import EPOCH, IDENTITY
from workbench.growing import GrowingTree
from workbench.mailhead import Mail
from workbench.model import Conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from workbench.declared import Extension, Restore
    from workbench.gitapply import Entry
    from workbench.gitstore import Store
    from workbench.model import Kernel, KernelTag

_MESSAGE = """\
{subject}

The extension {name} works on what upstream removed. Its
patches/{name}/extension.toml asks for these files on every kernel
that {since} speaks for, as they are in {origin}:

{listing}

This is upstream's own text. What it needs to build here comes with the
patches that follow.
"""


@dataclass(frozen=True)
class Restoring:
    """A restore to make: what it is called, and the commit it becomes."""

    extension: Extension
    restore: Restore

    @property
    def label(self) -> str:
        """Its name where a patch has its file's."""
        return f"restore from {self.restore.origin}"

    @property
    def touched(self) -> tuple[str, ...]:
        """All names it touches."""
        return self.restore.paths

    @property
    def mail(self) -> Mail:
        """What its commit says: the same on every machine and kernel."""
        first, *others = self.restore.paths
        files = "files" if len(others) > 1 else "file"
        more = f" and {len(others)} more {files}" if others else ""
        subject = f"restore {first}{more} from {self.restore.origin}"
        message = _MESSAGE.format(
            subject=subject,
            name=self.extension.name,
            since=self.restore.since,
            origin=self.restore.origin,
            listing="\n".join(f"  {path}" for path in self.restore.paths),
        )
        return Mail(*IDENTITY, EPOCH, subject, message, ())


@dataclass(frozen=True)
class Restored:
    """What a restore came to: the files it changed (none with a conflict), and a line on it."""

    changes: Mapping[str, Entry | None] = field(default_factory=dict)
    conflicts: tuple[Conflict, ...] = ()
    detail: str = ""


class Restorer:
    """Restores files into one tree; ``folder`` is scratch."""

    def __init__(
        self, store: Store, tree: GrowingTree, folder: Path, obtain: Callable[[KernelTag], Kernel]
    ) -> None:
        """Restore into ``tree``; ``obtain`` returns a kernel files come from."""
        self._store = store
        self._tree = tree
        self._folder = folder
        self._obtain = obtain
        self._brought: dict[str, Entry] = {}

    def bring(self, extension: Extension, restore: Restore) -> Restored:
        """Bring all files of a restore back, or none; UsageError for one its origin has not.

        A file that is there as the origin has it, or that another extension
        restored (and may have patched since), is left as it is.
        """
        where = f"patches/{extension.name}/extension.toml"
        wanted = self._wanted(restore, where)
        conflicts = tuple(
            self._conflict(path, entry, kind, where)
            for path, entry in wanted.items()
            if (kind := self._in_the_way(path, entry, restore))
        )
        if conflicts:
            told = (f"{each.path}: {each.kind}" for each in conflicts)
            return Restored(conflicts=conflicts, detail="; ".join(told))
        missing = {path: wanted[path] for path in wanted if self._tree.file(path) is None}
        changes = self._tree.put(missing, where)
        self._brought |= missing
        there = ", ".join(path for path in wanted if path not in missing)
        parts = (", ".join(missing), f"already there: {there}" if there and missing else there)
        return Restored(changes, detail="; ".join(filter(None, parts)))

    def _wanted(self, restore: Restore, where: str) -> dict[str, Entry]:
        """Find the files in the kernel they come from."""
        origin = GrowingTree(self._store, self._obtain(restore.origin).tree, self._folder)
        wanted = {}
        for path in restore.paths:
            entry = origin.file(path)
            if entry is None:
                raise UsageError(
                    f"restore since {restore.since}: {path!r} is no file of {restore.origin}",
                    where=where,
                    next_step="name files of that kernel, or another kernel in 'from'",
                )
            wanted[path] = entry
        return wanted

    def _in_the_way(self, path: str, entry: Entry, restore: Restore) -> str:
        """Say what keeps a file from coming back; empty when nothing does."""
        there = self._tree.file(path)
        if there == entry or self._brought.get(path) == entry:
            return ""
        if there is None:
            return "file meets directory" if self._tree.blocked(path) else ""
        if there.oid == entry.oid:
            return f"there with mode {there.mode}, which is {entry.mode} in {restore.origin}"
        return f"there with other content than in {restore.origin}"

    def _conflict(self, path: str, entry: Entry, kind: str, where: str) -> Conflict:
        there = self._tree.file(path)
        look = ""
        if there and there.oid != entry.oid:
            diff = f"diff {there.oid[:16]} {entry.oid[:16]}"
            look = f"see the difference with: git --git-dir={self._store.path} {diff}; "
        remedy = f"limit the [[restore]] in {where}: a later 'since', or without {path}"
        return Conflict(path, 0, kind, "", "", "", look + remedy)
