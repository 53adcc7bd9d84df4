# SPDX-License-Identifier: GPL-2.0-only
"""Git's tree objects: read one, and write those that a few changed files make anew."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.gitapply import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.gitstore import Store

DIRECTORY = "40000"
_RECORD = re.compile(rb"([0-7]+) ([^\0]+)\0")


def read(store: Store, oid: str) -> dict[str, Entry]:
    """Read one directory: its entries by name; InfraError when the store lost it."""
    return _parse(store.must_read(oid), len(oid) // 2)


def _parse(data: bytes, width: int) -> dict[str, Entry]:
    """Read a raw tree object; ``width`` is the length of an id in bytes."""
    entries = {}
    at = 0
    while match := _RECORD.match(data, at):
        at = match.end() + width
        name = match[2].decode(errors="surrogateescape")
        entries[name] = Entry(match[1].decode(), data[match.end() : at].hex())
    return entries


@dataclass
class _Folder:
    """One directory; ``oid`` is its id while it is as it was last written."""

    entries: dict[str, Entry]
    oid: str | None = None
    sorted: bool = True
    opened: dict[str, _Folder] = field(default_factory=dict)


class ChangingTree:
    """A tree of the store that files are put into; :meth:`write` makes the new objects."""

    def __init__(self, store: Store, tree: str) -> None:
        """Start from ``tree`` (an id)."""
        self._store = store
        self._root = _Folder(read(store, tree), tree)

    def write(self, changes: Mapping[str, Entry | None]) -> str:
        """Change files, None taking one away, and write the tree; its id.

        Directories left empty are gone. InfraError for a blob that the store has not.
        """
        for path, entry in changes.items():
            if entry is None:
                self._put(path, None)
        # Removals first: a new file may stand where a directory was.
        for path, entry in changes.items():
            if entry is not None:
                self._store.require(entry.oid)
                self._put(path, entry)
        return self._written(self._root)

    def _put(self, path: str, entry: Entry | None) -> None:
        *parents, name = path.split("/")
        folder = self._root
        for parent in parents:
            folder.oid = None
            folder = self._open(folder, parent)
        folder.oid = None
        folder.opened.pop(name, None)
        if entry is None:
            folder.entries.pop(name, None)
            return
        before = folder.entries.get(name)
        folder.sorted &= before is not None and before.mode != DIRECTORY
        folder.entries[name] = entry

    def _open(self, folder: _Folder, name: str) -> _Folder:
        if name not in folder.opened:
            entry = folder.entries.get(name)
            is_there = entry is not None and entry.mode == DIRECTORY
            below = read(self._store, entry.oid) if entry and is_there else {}
            folder.opened[name] = _Folder(below)
            folder.sorted &= is_there
        return folder.opened[name]

    def _written(self, folder: _Folder) -> str:
        """Write a folder and the opened ones below it, where anything changed."""
        if folder.oid is not None:
            return folder.oid
        for name, below in list(folder.opened.items()):
            oid = self._written(below)
            if below.entries:
                folder.entries[name] = Entry(DIRECTORY, oid)
            else:
                folder.entries.pop(name, None)
                del folder.opened[name]
        if not folder.sorted:
            folder.entries = dict(sorted(folder.entries.items(), key=_order))
            folder.sorted = True
        raw = b"".join(
            f"{entry.mode} {name}\0".encode(errors="surrogateescape") + bytes.fromhex(entry.oid)
            for name, entry in folder.entries.items()
        )
        folder.oid = self._store.add("tree", raw)
        return folder.oid


def _order(item: tuple[str, Entry]) -> bytes:
    """Sort as git does: a directory as if its name ended in a slash."""
    name, entry = item
    end = "/" if entry.mode == DIRECTORY else ""
    return (name + end).encode(errors="surrogateescape")
