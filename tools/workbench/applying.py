# SPDX-License-Identifier: GPL-2.0-only
"""Apply and merge plain changes of text without ``git apply``, with its very result.

A change that is out of the ordinary, or a merge that is not clean, has no
answer here (None): the caller asks git, which then says what there is to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.filechange import ChangeKind
from workbench.gitapply import Application, Entry
from workbench.mergefile import Versions, merge_file
from workbench.placing import Placed, place, understood

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from workbench.filechange import FileChange
    from workbench.gitstore import Store

_OID_DIGITS = 40
_REGULAR = {"100644", "100755"}


@dataclass(frozen=True)
class Plain:
    """What came of applying; ``after`` are the files then, None for those that went."""

    application: Application
    after: Mapping[str, Entry | None] = field(default_factory=dict)


def plain(changes: Sequence[FileChange], file: Callable[[str], Entry | None]) -> bool:
    """Tell whether all changes can be understood here, on the files that are there."""
    names = [change.name for change in changes]
    return len(set(names)) == len(names) and all(
        understood(change) and ((entry := file(change.name)) is None or entry.mode in _REGULAR)
        for change in changes
    )


def apply(
    store: Store, changes: Sequence[FileChange], file: Callable[[str], Entry | None]
) -> Plain | None:
    """Apply changes to the files ``file`` names, all or none, as ``git apply --cached`` does."""
    if not plain(changes, file):
        return None
    placed: list[Placed] = []
    for change in changes:
        done = _applied(store, change, file(change.name))
        if done is None:
            return Plain(Application(applied=False))
        placed.append(done)
    after = {
        change.name: _entry(store, change, file(change.name), done.text)
        for change, done in zip(changes, placed, strict=True)
    }
    offsets = tuple(offset for done in placed for offset in done.offsets)
    return Plain(Application(applied=True, offsets=offsets), after)


def _applied(store: Store, change: FileChange, entry: Entry | None) -> Placed | None:
    if change.kind is ChangeKind.CREATE:
        return None if entry else Placed(change.hunks[0].after)
    if entry is None:
        return None
    text = store.must_read(entry.oid)
    if change.kind is ChangeKind.DELETE:
        return Placed(b"") if text == change.hunks[0].before else None
    return place(text, change.hunks)


def _entry(store: Store, change: FileChange, before: Entry | None, text: bytes) -> Entry | None:
    if change.kind is ChangeKind.DELETE:
        return None
    # A patch without lines on the mode leaves the one that is there.
    mode = before.mode if before else change.new_mode
    return Entry(mode, store.add("blob", text))


class Sides:
    """The two ends of each change, as its patch knows them: worked out once for all kernels."""

    def __init__(self, store: Store) -> None:
        """Read the blobs the patches name from ``store``."""
        self._store = store
        self._known: dict[tuple[str, bytes], tuple[bytes, bytes]] = {}

    def of(self, change: FileChange) -> tuple[bytes, bytes] | None:
        """Return a text before and after a change; None when it does not apply to its blob."""
        key = change.old_oid, change.text
        known = self._known.get(key) or self._work_out(change)
        if known is not None:
            self._known[key] = known
        return known

    def _work_out(self, change: FileChange) -> tuple[bytes, bytes] | None:
        if len(change.old_oid) != _OID_DIGITS:
            return None
        try:
            base = self._store.cat_file(change.old_oid)
        except KeyError:
            return None
        theirs = place(base, change.hunks)
        return (base, theirs.text) if theirs else None


class PlainMerge:
    """Merges plain changes, file by file, as ``git apply --3way`` does; ``folder`` is scratch."""

    def __init__(self, store: Store, sides: Sides, folder: Path) -> None:
        """``sides`` may be shared between kernels, ``folder`` may not."""
        self._store = store
        self._sides = sides
        self._folder = folder

    def merge(
        self, changes: Sequence[FileChange], files: Mapping[str, Entry]
    ) -> dict[str, Entry | None] | None:
        """Return the files after a clean merge of all changes; None when git must look at it."""
        if not plain(changes, files.get):
            return None
        after: dict[str, Entry | None] = {}
        for change in changes:
            entry = files.get(change.name)
            text = self._merged(change, entry)
            if text is None:
                return None
            after[change.name] = _entry(self._store, change, entry, text)
        return after

    def _merged(self, change: FileChange, entry: Entry | None) -> bytes | None:
        if change.kind is not ChangeKind.MODIFY or entry is None:
            done = _applied(self._store, change, entry)
            return done.text if done else None
        sides = self._sides.of(change)
        if sides is None:
            return None
        base, theirs = sides
        ours = self._store.must_read(entry.oid)
        if base == ours:
            return theirs
        if theirs in {base, ours}:
            return ours
        # The same merge as git apply's, for a third of its time: no store to open, none to write.
        merged = merge_file(self._store, self._folder, Versions(ours, base, theirs))
        return merged[1] if merged and merged[0] else None
