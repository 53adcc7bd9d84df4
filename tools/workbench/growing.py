# SPDX-License-Identifier: GPL-2.0-only
"""A kernel tree that patches are applied to, without ever being written out.

Directories of the kernel are read from the store as they are asked for; what
the series changed lies over them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench import applying, treeobject
from workbench.errors import UsageError
from workbench.filechange import SYMLINK
from workbench.gitapply import Application, Entry, SmallIndex
from workbench.treeobject import DIRECTORY
from workbench.treepath import leads_outside

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from workbench.gitstore import Store
    from workbench.patchfile import PatchFile


class GrowingTree:
    """A tree in the store, and the changes on top of it."""

    def __init__(self, store: Store, tree: str, folder: Path) -> None:
        """Start from ``tree`` (an id); in ``folder`` lies the index that git is asked with."""
        self._store = store
        self._directories: dict[str, dict[str, Entry]] = {}
        self._root = tree
        self._changed: dict[str, Entry | None] = {}
        self._folder = folder

    def file(self, path: str) -> Entry | None:
        """Return the file of that name as it is now; None for a directory or nothing."""
        if path in self._changed:
            return self._changed[path]
        entry = self._below(path)
        return entry if entry and entry.mode != DIRECTORY else None

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
        return bool(entry and entry.mode == DIRECTORY)

    def apply(self, patch: PatchFile) -> tuple[Application, dict[str, Entry | None]]:
        """Apply a patch as plain ``git apply --index`` would: all of it, or nothing.

        Also return the files it changed, None for those it took away. Where it
        fails is told by :meth:`misfit`.
        """
        created = (change.new for change in patch.changes if change.new not in {None, change.old})
        if any(self.blocked(path) for path in created if path is not None):
            return Application(applied=False), {}
        plain = applying.apply(self._store, patch.changes, self.file) or self._by_git(patch)
        if not plain.application.applied:
            return plain.application, {}
        return plain.application, self._note(plain.after, str(patch.path))

    def _by_git(self, patch: PatchFile) -> applying.Plain:
        index = self._index(patch)
        result = index.apply(patch.diff, where=str(patch.path))
        if not result.applied:
            return applying.Plain(result)
        now = index.stages()
        return applying.Plain(result, {path: now.get(path, {}).get(0) for path in patch.touched})

    def misfit(self, patch: PatchFile) -> tuple[str, int]:
        """Say where a patch that does not apply fails first: file and line in its old text.

        The line is 0 when it is not about a hunk.
        """
        failed = self._index(patch).apply(patch.diff, "--check", where=str(patch.path)).failed
        return failed[0] if failed else (patch.touched[0], 0)

    def has_it(self, patch: PatchFile) -> bool:
        """Tell whether the patch could be taken back, and so is in there."""
        return self._index(patch).apply(patch.diff, "--reverse", "--check").applied

    def _index(self, patch: PatchFile) -> SmallIndex:
        """Lay out the files a patch touches for git."""
        file = self._folder / "index"
        file.unlink(missing_ok=True)
        index = SmallIndex(self._store, file)
        index.put({path: self.file(path) for path in patch.touched})
        return index

    def put(self, changes: Mapping[str, Entry | None], where: str) -> dict[str, Entry | None]:
        """Change files as ``where`` (a file of the user's) asks; return those really changed."""
        return self._note(changes, where)

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
            if entry is None or entry.mode != DIRECTORY:
                return {}
            oid = entry.oid
        return treeobject.read(self._store, oid)
