# SPDX-License-Identifier: GPL-2.0-only
"""The state a patch that does not merge is left in: what git's index and files would hold.

A person resolves it in a work tree, and a resolution that is remembered is a
diff against it. So both start from the same bytes, on every machine.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from workbench.errors import InfraError
from workbench.filechange import ChangeKind
from workbench.gitapply import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from workbench.filechange import FileChange, Hunk
    from workbench.gitstore import Store
    from workbench.threeway import Clash, Merge

#: The words on the marks, and the marks a conflict begins and ends with.
LABELS = ("upstream", "base", "patch")
OPENS, CLOSES = b"<<<<<<< upstream", b">>>>>>> patch"
_BASE, _UPSTREAM, _PATCH = 1, 2, 3
_MAX_REGIONS = 127


@dataclass(frozen=True)
class Contested:
    """One file in conflict.

    ``stages`` are git's: 1 the base, 2 upstream, 3 the patch; those that
    there are. ``text`` is what the file holds meanwhile, with git's marks
    where both sides changed it; None where a directory stands in its place.
    """

    path: str
    kind: str
    mode: str
    stages: Mapping[int, Entry]
    text: bytes | None

    @property
    def gone(self) -> bool:
        """Tell that upstream has no such file any more."""
        return _UPSTREAM not in self.stages

    @cached_property
    def digest(self) -> str:
        """What the conflict is about: sha256 of its kind and of all that is between the marks."""
        whole = hashlib.sha256(f"{'gone' if self.gone else self.kind}\n".encode())
        inside = False
        for line in io.BytesIO(self.text or b""):
            inside = inside or line.rstrip(b"\r\n") == OPENS
            if inside:
                whole.update(line)
            inside = inside and line.rstrip(b"\r\n") != CLOSES
        return whole.hexdigest()


@dataclass(frozen=True)
class Standoff:
    """A patch that does not go in: the files in conflict, and what did merge beside them."""

    contested: tuple[Contested, ...]
    merged: Mapping[str, Entry | None]


class Referee:
    """Makes standoffs out of merges; ``folder`` is scratch."""

    def __init__(self, store: Store, folder: Path) -> None:
        """Write the blobs of both sides into the store."""
        self._store = store
        self._folder = folder

    def standoff(self, merge: Merge) -> Standoff:
        """Lay out all clashes of a merge, and the files that are gone."""
        found = [self._clash(clash) for clash in merge.clashes]
        found += [self._gone(change) for change in merge.gone]
        # A file git saw in two clashes (it was renamed twice) is one file in the index.
        named = {each.path: each for each in found}
        merged = {path: entry for path, entry in merge.after.items() if path not in named}
        return Standoff(tuple(named.values()), merged)

    def _clash(self, clash: Clash) -> Contested:
        change, upstream = clash.change, clash.upstream
        if upstream is None:
            return Contested(clash.path, clash.kind, "100644", {}, None)
        there = self._store.cat_file(upstream.oid)
        if change.kind is ChangeKind.DELETE:
            base = self._known(change)
            stages = {_BASE: base, _UPSTREAM: upstream} if base else {_UPSTREAM: upstream}
            return Contested(clash.path, clash.kind, upstream.mode, stages, there)
        base, patched = clash.base, clash.patched
        if patched is None:
            base, patched = self._made_up(change, upstream, there)
        text = self._marked(clash.path, there, base, patched)
        sides = {_BASE: base, _UPSTREAM: upstream, _PATCH: patched}
        stages = {stage: entry for stage, entry in sides.items() if entry}
        return Contested(clash.path, clash.kind, upstream.mode, stages, text)

    def _made_up(
        self, change: FileChange, upstream: Entry, there: bytes
    ) -> tuple[Entry | None, Entry]:
        """Return sides for a merge git has none for.

        From the base where it is known; else from upstream's own text, with
        what a hunk expected in the place it expected it in.
        """
        mode = change.new_mode or upstream.mode
        if change.old is None:
            return None, self._blob(mode, sides(b"", change.hunks)[1])
        known = self._known(change)
        text = self._store.cat_file(known.oid) if known else there
        before, after = (self._blob(mode, side) for side in sides(text, change.hunks))
        return before, after

    def _gone(self, change: FileChange) -> Contested:
        base = self._known(change)
        _, after = sides(self._store.cat_file(base.oid) if base else b"", change.hunks)
        patched = self._blob(change.new_mode or "100644", after)
        stages = {_BASE: base, _PATCH: patched} if base else {_PATCH: patched}
        return Contested(change.old or "", "gone upstream", patched.mode, stages, after)

    def _known(self, change: FileChange) -> Entry | None:
        """Return the blob a change was made on, if the store has it."""
        oid = self._store.resolve(f"{change.old_oid}^{{blob}}") if change.old_oid else None
        return Entry(change.old_mode or "100644", oid) if change.old and oid else None

    def _blob(self, mode: str, data: bytes) -> Entry:
        return Entry(mode, self._store.add("blob", data))

    def _marked(self, path: str, there: bytes, base: Entry | None, patched: Entry) -> bytes:
        """Merge the three texts and leave git's marks, in its zdiff3 style."""
        texts = (
            there,
            self._store.cat_file(base.oid) if base else b"",
            self._store.cat_file(patched.oid),
        )
        files = []
        for label, text in zip(LABELS, texts, strict=True):
            file = self._folder / f"standoff-{label}"
            file.write_bytes(text)
            files.append(file)
        names = (word for label in LABELS for word in ("-L", label))
        code, marked, err = self._store.git_bytes(
            "merge-file", "--stdout", "--quiet", "--zdiff3", *names, *files
        )
        if code > _MAX_REGIONS:
            raise InfraError(err or f"exit code {code}", where=f"git merge-file {path}")
        return marked


def sides(text: bytes, hunks: Iterable[Hunk]) -> tuple[bytes, bytes]:
    """Return a text as the hunks expect it and as they leave it.

    Where a hunk's old lines are not found (near their place first), they are
    put where they should be. On the text a patch was made on the first of
    the two is that text.
    """
    lines = list(io.BytesIO(text))
    before: list[bytes] = []
    after: list[bytes] = []
    at = moved = 0
    for hunk in hunks:
        old = list(io.BytesIO(hunk.before))
        stated = max(hunk.old_start - (1 if old else 0), 0)
        found = _find(lines, old, at, stated + moved)
        place = min(max(stated + moved, at), len(lines)) if found is None else found
        moved = moved if found is None else found - stated
        before += [*lines[at:place], *old]
        after += [*lines[at:place], *io.BytesIO(hunk.after)]
        at = place + len(old)
    return b"".join([*before, *lines[at:]]), b"".join([*after, *lines[at:]])


def _find(lines: list[bytes], old: list[bytes], start: int, near: int) -> int | None:
    """Find lines at or after ``start``, nearest to ``near``; None when they are not there."""
    places = range(start, len(lines) - len(old) + 1)
    by_distance = sorted(places, key=lambda place: abs(place - near))
    return next((place for place in by_distance if lines[place : place + len(old)] == old), None)
