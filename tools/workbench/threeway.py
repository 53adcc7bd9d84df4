# SPDX-License-Identifier: GPL-2.0-only
"""Merge a patch that does not apply as it stands: the second half of ``git am -3``.

``git am -3`` applies the patch to the files it was made on and merges the
result with what is there, file by file, following renames. ``git apply
--3way`` does the same on an index, except for the renames; so a file that
upstream renamed is lent its old name for the merge. ``git merge-tree`` was
not taken: it diffs with another algorithm than ``git am`` of git 2.39, and
so does not always come to the same result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.applying import PlainMerge
from workbench.filechange import ChangeKind
from workbench.gitapply import SmallIndex

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from workbench.applying import Sides
    from workbench.filechange import FileChange
    from workbench.gitapply import Entry
    from workbench.gitstore import Store
    from workbench.growing import GrowingTree
    from workbench.patchfile import PatchFile

_BASE, _OURS, _THEIRS = 1, 2, 3


@dataclass(frozen=True)
class Clash:
    """A file that could not be merged.

    ``path`` is its name upstream. The entries are git's: ``base`` what the
    patch was made on, ``upstream`` what is there, ``patched`` what the patch
    makes of its base; without them ``failed_line`` (of the old text) says
    which hunk found no place, 0 when it is not about a hunk.
    """

    path: str
    kind: str
    change: FileChange
    base: Entry | None = None
    upstream: Entry | None = None
    patched: Entry | None = None
    failed_line: int = 0


@dataclass
class Merge:
    """What a merge came to: files to change, clashes, and what upstream no longer has."""

    after: dict[str, Entry | None] = field(default_factory=dict)
    clashes: list[Clash] = field(default_factory=list)
    gone: list[FileChange] = field(default_factory=list)
    followed: dict[str, str] = field(default_factory=dict)
    active: list[FileChange] = field(default_factory=list)

    @property
    def obsolete(self) -> bool:
        """Tell whether nothing is left of the files it changes."""
        return bool(self.gone) and all(change.old is None for change in self.active)


class Merger:
    """Merges patches into one tree; ``folder`` is scratch."""

    def __init__(self, store: Store, tree: GrowingTree, sides: Sides, folder: Path) -> None:
        """Merge into ``tree`` (which is read, not changed)."""
        self._store = store
        self._plain = PlainMerge(store, sides, folder)
        self._tree = tree
        self._folder = folder
        self._count = 0

    def missing(self, patch: PatchFile) -> tuple[str, ...]:
        """Name the files the patch changes that are not in the tree."""
        olds = (change.old for change in patch.changes)
        return tuple(old for old in olds if old is not None and self._tree.file(old) is None)

    def merge(self, patch: PatchFile, moved: Mapping[str, str], *, three_way: bool) -> Merge:
        """Merge a patch; ``moved`` says where missing files went.

        Without ``three_way`` (its blobs cannot be had) only the clashes mean
        anything.
        """
        merge = Merge()
        for change in patch.changes:
            self._sort_in(merge, change, moved)
        options = ("--3way",) if three_way else ()
        if not self._apply(merge, merge.active, options):
            for change in merge.active:
                if not self._apply(merge, [change], options):
                    merge.clashes.append(self._misfit(change, merge.followed))
        return merge

    def _sort_in(self, merge: Merge, change: FileChange, moved: Mapping[str, str]) -> None:
        """Decide whether a change can be tried at all."""
        if change.new and change.new != change.old and self._tree.blocked(change.new):
            merge.clashes.append(Clash(change.new, "file meets directory", change))
        elif change.old is None or self._tree.file(change.old):
            merge.active.append(change)
        elif (now := moved.get(change.old)) is None:
            if change.kind is not ChangeKind.DELETE:
                merge.gone.append(change)
        elif change.kind is ChangeKind.DELETE:
            merge.clashes.append(Clash(now, f"deletes {change.old}, renamed upstream", change))
        elif change.kind is ChangeKind.RENAME and change.new != now:
            kind = f"renames {change.old} to {change.new}, upstream renamed it otherwise"
            merge.clashes.append(Clash(now, kind, change))
        else:
            merge.followed[change.old] = now
            merge.active.append(change)

    def _apply(self, merge: Merge, changes: Sequence[FileChange], options: tuple[str, ...]) -> bool:
        """Apply changes to an index of their own and read the result; False when git gave up."""
        placed = self._placed(changes, merge.followed)
        after = self._plain.merge(changes, placed) if options else None
        if after is not None:
            for path, entry in after.items():
                self._note(merge, path, entry)
            return True
        self._count += 1
        index = SmallIndex(self._store, self._folder / f"merge-{self._count}")
        index.put(placed)
        diff = b"".join(change.text for change in changes)
        if not diff:
            return True
        done = index.apply(diff, *options).applied
        stages = index.stages()
        clashing = {path: found for path, found in stages.items() if 0 not in found}
        if not done and not clashing:
            return False
        for path in {*placed, *stages} - {*clashing}:
            self._note(merge, path, stages.get(path, {}).get(0))
        by_name = {change.name: change for change in changes}
        for path, found in clashing.items():
            merge.clashes.append(self._clash(path, found, by_name[path], merge.followed))
        return True

    def _placed(
        self, changes: Sequence[FileChange], followed: Mapping[str, str]
    ) -> dict[str, Entry]:
        """Lay out the files for git, renamed ones under the name the patch knows."""
        names = {path: followed.get(path, path) for change in changes for path in change.paths}
        lent = {followed[path] for path in names if path in followed}
        return {
            path: entry
            for path, now in names.items()
            if path not in lent and (entry := self._tree.file(now))
        }

    @staticmethod
    def _note(merge: Merge, path: str, entry: Entry | None) -> None:
        now = merge.followed.get(path)
        if now is None:
            merge.after[path] = entry
        elif entry is not None:
            merge.after[now] = entry

    @staticmethod
    def _clash(
        path: str, stages: Mapping[int, Entry], change: FileChange, followed: Mapping[str, str]
    ) -> Clash:
        return Clash(
            followed.get(path, path),
            "both change the same lines" if _BASE in stages else "both add the file",
            change,
            stages.get(_BASE),
            stages.get(_OURS),
            stages.get(_THEIRS),
        )

    def _misfit(self, change: FileChange, followed: Mapping[str, str]) -> Clash:
        """Find out why one change does not go in by itself."""
        here = followed.get(change.old or "", change.old) or change.name
        entry = self._tree.file(here)
        if change.kind is ChangeKind.DELETE:
            return Clash(here, "deletes the file, changed upstream", change, upstream=entry)
        if change.kind is ChangeKind.CREATE:
            return Clash(here, "both add the file", change, upstream=entry)
        self._count += 1
        index = SmallIndex(self._store, self._folder / f"merge-{self._count}")
        index.put(self._placed([change], followed))
        failed = index.apply(change.text).failed
        line = failed[0][1] if failed else 0
        return Clash(here, "the hunk finds no place", change, upstream=entry, failed_line=line)
