# SPDX-License-Identifier: GPL-2.0-only
"""Take a foreign patch onto a kernel that is near the one it was made on.

What it was made on may have been no release, or one that nobody has here. As
long as the store knows the blobs the patch names, it is merged as by ``git am
-3``; only a clean merge counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from workbench.applying import PlainMerge, Sides
from workbench.gitapply import SmallIndex
from workbench.patchfile import parse_diff

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from workbench.filechange import FileChange
    from workbench.gitapply import Entry
    from workbench.gitstore import Store
    from workbench.growing import GrowingTree
    from workbench.patchfile import PatchFile


class Nearby:
    """Merges one patch of a series after the other; ``scratch`` is a folder."""

    def __init__(self, store: Store, tree: GrowingTree, scratch: Path) -> None:
        """Merge into ``tree``, which grows."""
        self._store = store
        self._tree = tree
        self._scratch = scratch
        self._sides = Sides(store)

    def made(self, patch: PatchFile) -> None:
        """Keep what a patch makes of its own base: the next one may have been made on that."""
        for change in self._whole(patch):
            if sides := self._sides.of(change):
                self._store.add("blob", sides[1])

    def merged(self, patch: PatchFile) -> PatchFile | None:
        """Merge a patch and return it as it is there; None when the merge is not clean."""
        before = {path: self._tree.file(path) for path in patch.touched}
        files = {path: entry for path, entry in before.items() if entry}
        merge = PlainMerge(self._store, self._sides, self._scratch)
        after = merge.merge(self._whole(patch), files)
        if after is None or not self._tree.put(after, str(patch.path)):
            return None
        trees = (self._written(entries) for entries in (before, {**before, **after}))
        words = ("diff-tree", "-p", "-M", "--full-index", *trees)
        _, diff, _ = self._store.git_bytes(*words)
        return replace(patch, changes=parse_diff(patch.path, diff))

    def unknown(self, patch: PatchFile) -> tuple[str, ...]:
        """Name the files of a patch whose blobs the store does not have."""
        changes = (change for change in patch.changes if change.old is not None)
        return tuple(each.old or "" for each in changes if self._blob(each) is None)

    def _whole(self, patch: PatchFile) -> tuple[FileChange, ...]:
        """Return its changes with whole ids, as far as they are known."""
        return tuple(
            each.made_on(oid) if each.hunks and each.old and (oid := self._blob(each)) else each
            for each in patch.changes
        )

    def _blob(self, change: FileChange) -> str | None:
        return self._store.resolve(f"{change.old_oid}^{{blob}}") if change.old_oid else None

    def _written(self, entries: Mapping[str, Entry | None]) -> str:
        file = self._scratch / "index-written"
        file.unlink(missing_ok=True)
        index = SmallIndex(self._store, file)
        index.put(entries)
        return index.write_tree()
