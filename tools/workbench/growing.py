# SPDX-License-Identifier: GPL-2.0-only
"""A kernel tree that patches are applied to, without ever being written out.

Directories of the kernel are read from the store as they are asked for; what
the series changed lies over them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from workbench.errors import InfraError, UsageError
from workbench.filechange import SYMLINK
from workbench.gitapply import Application, Entry, SmallIndex
from workbench.treepath import leads_outside

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from workbench.gitstore import Store
    from workbench.patchfile import PatchFile

_DIRECTORY = "40000"
_RECORD = re.compile(rb"([0-7]+) ([^\0]+)\0")


class GrowingTree:
    """A tree in the store, and the changes on top of it."""

    def __init__(self, store: Store, tree: str, folder: Path) -> None:
        """Start from ``tree`` (an id); ``folder`` is an empty one for the index."""
        self._store = store
        self._directories: dict[str, dict[str, Entry]] = {}
        self._root = tree
        self._changed: dict[str, Entry | None] = {}
        self._index = SmallIndex(store, folder / "index")
        self._loaded: set[str] = set()

    def file(self, path: str) -> Entry | None:
        """Return the file of that name as it is now; None for a directory or nothing."""
        if path in self._changed:
            return self._changed[path]
        entry = self._below(path)
        return entry if entry and entry.mode != _DIRECTORY else None

    def text(self, path: str) -> bytes:
        """Return a file's bytes; empty when there is none."""
        entry = self.file(path)
        return self._store.cat_file(entry.oid) if entry else b""

    def blocked(self, path: str) -> bool:
        """Tell whether a file of that name would stand where a directory is, or below a file."""
        parts = path.split("/")
        above = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
        if any(self.file(parent) for parent in above):
            return True
        if any(entry and name.startswith(f"{path}/") for name, entry in self._changed.items()):
            return True
        entry = self._below(path)
        return bool(entry and entry.mode == _DIRECTORY)

    def load(self, paths: Iterable[str]) -> None:
        """Put files into the index; done once for a whole series, it saves a call a patch."""
        new = {path: self.file(path) for path in paths if path not in self._loaded}
        self._index.put({path: entry for path, entry in new.items() if entry})
        self._loaded |= set(new)

    def apply(self, patch: PatchFile) -> tuple[Application, dict[str, Entry | None]]:
        """Apply a patch as plain ``git apply --index`` would: all of it, or nothing.

        Also return the files it changed, None for those it took away.
        """
        created = (change.new for change in patch.changes if change.new not in {None, change.old})
        if any(self.blocked(path) for path in created if path is not None):
            return Application(applied=False), {}
        self.load(patch.touched)
        result = self._index.apply(patch.diff, where=str(patch.path))
        if not result.applied:
            return result, {}
        now = self._index.stages()
        after = {path: now.get(path, {}).get(0) for path in patch.touched}
        return result, self._note(after, str(patch.path))

    def has_it(self, patch: PatchFile) -> bool:
        """Tell whether the patch could be taken back, and so is in there."""
        self.load(patch.touched)
        return self._index.apply(patch.diff, "--reverse", "--check").applied

    def put(self, changes: Mapping[str, Entry | None], where: str) -> dict[str, Entry | None]:
        """Change files as ``where`` (a file of the user's) asks; return those really changed."""
        changed = self._note(changes, where)
        self._index.put(changed)
        self._loaded |= set(changed)
        return changed

    def _note(self, after: Mapping[str, Entry | None], where: str) -> dict[str, Entry | None]:
        changed = {path: entry for path, entry in after.items() if entry != self.file(path)}
        for path, entry in changed.items():
            if entry and entry.mode == SYMLINK:
                self._check_link(path, entry, where)
        self._changed |= changed
        return changed

    def _check_link(self, path: str, entry: Entry, where: str) -> None:
        """Refuse a link to the outside that only shows when the patch is applied."""
        target = self._store.cat_file(entry.oid).decode(errors="replace")
        if leads_outside(path, target):
            raise UsageError(
                f"{path!r} becomes a symbolic link to {target!r}",
                where=where,
                next_step="a patch may only name files inside the kernel tree",
            )

    def _below(self, path: str) -> Entry | None:
        """Look a name up in the kernel's own tree."""
        folder, _, name = path.rpartition("/")
        return self._directory(folder).get(name)

    def _directory(self, folder: str) -> dict[str, Entry]:
        if folder not in self._directories:
            self._directories[folder] = self._read_directory(folder)
        return self._directories[folder]

    def _read_directory(self, folder: str) -> dict[str, Entry]:
        oid = self._root
        if folder:
            entry = self._below(folder)
            if entry is None or entry.mode != _DIRECTORY:
                return {}
            oid = entry.oid
        try:
            return _parse_tree(self._store.cat_file(oid), len(oid) // 2)
        except KeyError as error:
            raise InfraError(
                f"tree {oid} is missing",
                where=str(self._store.path),
                next_step="move the store away and run again",
            ) from error


def _parse_tree(data: bytes, width: int) -> dict[str, Entry]:
    """Read a raw tree object; ``width`` is the length of an id in bytes."""
    entries = {}
    at = 0
    while match := _RECORD.match(data, at):
        at = match.end() + width
        name = match[2].decode(errors="surrogateescape")
        entries[name] = Entry(match[1].decode(), data[match.end() : at].hex())
    return entries
