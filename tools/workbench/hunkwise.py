# SPDX-License-Identifier: GPL-2.0-only
"""Judge a patch hunk by hunk: which are there already, which apply, which conflict.

This needs no history. Each hunk alone is merged from the file the patch was
made on; where that file cannot be had, or the merge conflicts, it counts
whether the hunk as it stands can be taken back or applied.
"""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Final

from workbench.explained import HunkOutcome, HunkState
from workbench.filechange import ChangeKind
from workbench.gitapply import SmallIndex
from workbench.mergefile import Versions, merge_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from workbench.filechange import FileChange, Hunk
    from workbench.gitapply import Application, Entry
    from workbench.gitstore import Store
    from workbench.growing import GrowingTree
    from workbench.patchfile import PatchFile

_NAME = "file"
#: What a hunk comes to in a file that is not there; all others conflict.
_ABSENT: Final = {ChangeKind.CREATE: HunkState.APPLIES, ChangeKind.DELETE: HunkState.THERE}


class Hunkwise:
    """Judges the hunks of patches against one tree; ``folder`` is scratch."""

    def __init__(self, store: Store, tree: GrowingTree, folder: Path) -> None:
        """Judge against ``tree`` as it is when asked."""
        self._store = store
        self._tree = tree
        self._folder = folder
        self._count = count()

    def judge(
        self, patch: PatchFile, followed: Mapping[str, str], *, merged: bool
    ) -> tuple[HunkOutcome, ...]:
        """Judge every hunk; ``followed`` says what files the patch knows are called here.

        With ``merged`` the patch went in as a whole, so that no hunk conflicts
        and few have to be looked at. Its blobs are used as far as they are in
        the store.
        """
        return tuple(
            outcome
            for change in patch.changes
            for outcome in self._of_file(change, followed, merged=merged)
        )

    def _of_file(
        self, change: FileChange, followed: Mapping[str, str], *, merged: bool
    ) -> Iterator[HunkOutcome]:
        path = followed.get(change.old or "", change.old) or change.name
        entry = self._tree.file(path)
        there = self._tree.text(path)
        base = self._base(change)
        for hunk in change.hunks:
            if merged and not _may_be_there(hunk, there):
                state = HunkState.APPLIES
            elif entry is None:
                state = _ABSENT.get(change.kind, HunkState.CONFLICTS)
            else:
                state = self._state(hunk, entry, there, base)
            yield HunkOutcome(path, hunk.line, state)

    def _base(self, change: FileChange) -> bytes | None:
        """Return the file the patch was made on, if it can be had."""
        if not change.old or not change.old_oid:
            return None
        try:
            return self._store.cat_file(change.old_oid)
        except KeyError:
            return None

    def _state(self, hunk: Hunk, entry: Entry, there: bytes, base: bytes | None) -> HunkState:
        patched = None if base is None else _with_hunk(base, hunk)
        if base is not None and patched is not None:
            merged = merge_file(self._store, self._folder, Versions(there, base, patched))
            if merged is not None and merged[0]:
                return HunkState.THERE if merged[1] == there else HunkState.APPLIES
        return self._as_it_stands(hunk, entry)

    def _as_it_stands(self, hunk: Hunk, entry: Entry) -> HunkState:
        forward = self._apply(hunk, entry)
        back = self._apply(hunk, entry, "--reverse")
        if back.applied and (not forward.applied or _way(back) < _way(forward)):
            return HunkState.THERE
        return HunkState.APPLIES if forward.applied else HunkState.CONFLICTS

    def _apply(self, hunk: Hunk, entry: Entry, *options: str) -> Application:
        index = SmallIndex(self._store, self._folder / f"hunk-{next(self._count)}")
        index.put({_NAME: entry})
        old, new = f"{hunk.old_start},{hunk.old_count}", f"{hunk.new_start},{hunk.new_count}"
        head = f"diff --git a/{_NAME} b/{_NAME}\n--- a/{_NAME}\n+++ b/{_NAME}\n"
        diff = f"{head}@@ -{old} +{new} @@\n".encode() + b"".join(hunk.body)
        return index.apply(diff, "--check", *options)


def share(hunks: Sequence[HunkOutcome]) -> str:
    """Say how much of a patch is there, when it is neither none nor all of it."""
    there = sum(hunk.state is HunkState.THERE for hunk in hunks)
    if not 0 < there < len(hunks):
        return ""
    return f"partly upstream: {there} of {len(hunks)} hunks {'is' if there == 1 else 'are'} there"


def is_all_there(patch: PatchFile, hunks: Sequence[HunkOutcome]) -> bool:
    """Tell whether hunk by hunk all the patch does is there already."""
    told_by_hunks = all(
        change.kind is ChangeKind.MODIFY and change.hunks and change.old_mode == change.new_mode
        for change in patch.changes
    )
    return told_by_hunks and all(hunk.state is HunkState.THERE for hunk in hunks)


def _with_hunk(base: bytes, hunk: Hunk) -> bytes | None:
    """Make one hunk's change in the file the patch was made on; None when that is not it."""
    lines = base.split(b"\n")
    lines = [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    start = hunk.old_start - 1 if hunk.old_count else hunk.old_start
    end = start + hunk.old_count
    if b"".join(lines[start:end]) != hunk.before:
        return None
    return b"".join((*lines[:start], hunk.after, *lines[end:]))


def _may_be_there(hunk: Hunk, there: bytes) -> bool:
    """Tell cheaply that a hunk cannot be there: a line it adds is missing."""
    added = Counter(line[1:].rstrip(b"\r\n") for line in hunk.body if line[:1] == b"+")
    # To count a file's lines takes far longer than to see that one of them is nowhere.
    if not all(line in there for line in added):
        return False
    lines = Counter(there.splitlines())
    return all(lines[line] >= times for line, times in added.items())


def _way(application: Application) -> int:
    """Return how far from its place a hunk went in."""
    return sum(map(abs, application.offsets))
