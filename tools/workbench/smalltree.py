# SPDX-License-Identifier: GPL-2.0-only
"""A git work tree of a few files, in the state git leaves a conflict in.

It is an ordinary repository: any editor, ``git mergetool``, ``git diff`` and
``git add`` work in it. It reads the store's objects and writes its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from workbench.gitapply import Entry
from workbench.gitstore import Store

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from workbench.standoff import Standoff

_SPECIAL = re.compile(r"([\\*?\[\]!# ])")
_NOTHING = "0" * 40
_CONFIG = {
    "core.bare": "false",
    "core.autocrlf": "false",
    "core.sparseCheckout": "true",
    "core.sparseCheckoutCone": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "merge.conflictStyle": "zdiff3",
}


class SmallTree:
    """The work tree in ``folder``."""

    def __init__(self, folder: Path) -> None:
        """Stand before one that is there: :meth:`lay_out` makes it."""
        self.folder = folder
        self._git = Store(folder / ".git")

    @classmethod
    def lay_out(
        cls, store: Store, folder: Path, commit: str, standoff: Standoff, message: str
    ) -> SmallTree:
        """Make a work tree on a commit of the store, with just the files in conflict."""
        names = (f"/{escaped(each.path)}" for each in standoff.contested)
        git = repository(store, folder, "series", names)
        tree = cls(folder)
        git.git("update-ref", "HEAD", commit)
        git.git("read-tree", "--reset", "-u", "HEAD")
        tree._put_merged(standoff)
        tree._put_contested(standoff)
        (git.path / "MERGE_MSG").write_text(message)
        return tree

    def _put_merged(self, standoff: Standoff) -> None:
        """Stage what did merge; its files stay out of the work tree."""
        merged = standoff.merged
        self._index_info(
            f"{entry.mode} {entry.oid} 0\t{path}" if entry else f"0 {_NOTHING}\t{path}"
            for path, entry in merged.items()
        )
        left_out = "".join(f"{path}\0" for path, entry in merged.items() if entry)
        words = ("update-index", "-z", "--skip-worktree", "--stdin")
        self._git.git(*words, input=left_out.encode())

    def _put_contested(self, standoff: Standoff) -> None:
        """Give git the three versions, and write the files with their marks."""
        for each in standoff.contested:
            stages = each.stages.items()
            self._index_info(
                (
                    f"0 {_NOTHING}\t{each.path}",
                    *(f"{entry.mode} {entry.oid} {stage}\t{each.path}" for stage, entry in stages),
                )
            )
            file = self.folder / each.path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(each.text or b"")
            file.chmod(int(each.mode[-3:], 8))

    def _index_info(self, records: Iterable[str]) -> None:
        text = "".join(f"{record}\0" for record in records)
        self._git.git("update-index", "-z", "--index-info", input=text.encode())

    def unsettled(self) -> tuple[str, ...]:
        """Name the files that still are in conflict for git: nobody has added them."""
        listed = self._git.git("ls-files", "--unmerged", "-z").split("\0")
        return tuple(dict.fromkeys(record.split("\t", 1)[1] for record in listed if record))

    def not_added(self) -> tuple[str, ...]:
        """Name the files that were changed after they were added."""
        changed = self._git.git("diff", "--name-only", "--no-ext-diff", "-z").split("\0")
        unsettled = set(self.unsettled())
        return tuple(path for path in changed if path and path not in unsettled)

    def changes(self, commit: str) -> dict[str, Entry | None]:
        """Return what the index has otherwise than a commit; None for what it has no more."""
        words = ("diff-index", "--cached", "--raw", "--no-abbrev", "--no-renames", "-z")
        listed = self._git.git(*words, commit).split("\0")
        found: dict[str, Entry | None] = {}
        for head, path in zip(listed[0::2], listed[1::2], strict=False):
            _, mode, _, oid, status = head.split(" ")
            if status != "U":  # not settled yet
                found[path] = None if status == "D" else Entry(mode, oid)
        return found

    def content(self, entry: Entry) -> bytes:
        """Return the bytes of a file of :meth:`changes`."""
        return self._git.cat_file(entry.oid)


def repository(store: Store, folder: Path, branch: str, shown: Iterable[str]) -> Store:
    """Make the repository of a work tree over a store's objects; nothing is checked out yet.

    ``branch`` is its first, ``shown`` are the lines of its sparse-checkout file.
    """
    folder.mkdir(parents=True)
    git = Store(folder / ".git")
    git.git("init", "--quiet", "--template=", f"--initial-branch={branch}")
    (git.path / "objects" / "info" / "alternates").write_text(f"{store.path}/objects\n")
    for key, value in _CONFIG.items():
        git.git("config", key, value)
    info = git.path / "info"
    info.mkdir(exist_ok=True)
    (info / "sparse-checkout").write_text("".join(f"{line}\n" for line in shown))
    return git


def escaped(name: str) -> str:
    """Return a path as a sparse-checkout file has to spell it."""
    return _SPECIAL.sub(r"\\\1", name)
