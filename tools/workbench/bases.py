# SPDX-License-Identifier: GPL-2.0-only
"""What patches were made on: the files a 3-way merge starts from, and where files went.

One is shared by all kernels a series is ported to, which may be at the same time.

A patch names the blobs it was made on. They are in the store when its base
kernel is; for the later patches of a series only once the earlier ones were
applied to that base, which is done here when a merge asks for it.
"""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from workbench.applying import Sides
from workbench.extensions import patches_for, restores_for, with_required
from workbench.gitapply import Entry
from workbench.growing import GrowingTree
from workbench.patchfile import PatchFile, read_patch
from workbench.restore import Restorer
from workbench.treeobject import EMPTY, ChangingTree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from workbench.declared import Extension
    from workbench.gitstore import Store
    from workbench.model import Kernel, KernelTag
    from workbench.paths import Paths
    from workbench.progress import Progress


class Bases:
    """The declared bases of a series, brought in and worked out as merges need them."""

    def __init__(
        self,
        store: Store,
        extensions: Sequence[Extension],
        folder: Path,
        obtain: Callable[[KernelTag], Kernel],
    ) -> None:
        """``obtain`` is asked for a base that is not in the store; ``folder`` is scratch."""
        self._store = store
        self._extensions = extensions
        self._folder = folder
        self._obtain = obtain
        self.sides = Sides(store)
        self._guard = threading.RLock()
        self._kernels: dict[KernelTag, Kernel] = {}
        self._here: set[str] = set()
        self._made_on: dict[tuple[str, KernelTag], dict[Path, dict[str, str]]] = {}
        self._added: dict[tuple[str, str, tuple[str, ...]], dict[str, Entry]] = {}

    def with_blobs(
        self, patch: PatchFile, extension: Extension, base: KernelTag
    ) -> PatchFile | None:
        """Return the patch such that every blob it says it was made on is in the store.

        None when that cannot be: it does not apply to its declared base either.
        """
        if self.have_blobs(patch):
            return patch
        with self._guard:
            made_on = self._materialised(extension, base).get(patch.path)
        if self.have_blobs(patch):
            return patch
        if made_on is None:
            return None
        changes = (
            change.made_on(made_on[change.old]) if change.old and change.hunks else change
            for change in patch.changes
        )
        return replace(patch, changes=tuple(changes))

    def moved(self, paths: Iterable[str], base: KernelTag, kernel: Kernel) -> dict[str, str]:
        """Tell under which names files of the base are in the kernel now, if git finds them.

        Only files the kernel has and the base has not can be a renamed one.
        Those of the same name or folder are asked first: to compare with all
        of them takes seconds.
        """
        with self._guard:
            return self._moved(paths, self.kernel(base), kernel)

    def _moved(self, paths: Iterable[str], source: Kernel, kernel: Kernel) -> dict[str, str]:
        tree = GrowingTree(self._store, source.tree, self._folder)
        gone = {path: entry for path in paths if (entry := tree.file(path))}
        if not gone:
            return {}
        near = self._added_files(
            source, kernel, tuple(spec for path in gone for spec in _near(path))
        )
        found = self._renamed(gone, near)
        rest = {path: entry for path, entry in gone.items() if path not in found}
        if rest:
            taken = set(found.values())
            added = self._added_files(source, kernel)
            found |= self._renamed(rest, {path: added[path] for path in added if path not in taken})
        return found

    def _renamed(self, gone: Mapping[str, Entry], added: Mapping[str, Entry]) -> dict[str, str]:
        """Let git find renames between two sets of files."""
        if not added:
            return {}
        before, after = (ChangingTree(self._store, EMPTY).write(files) for files in (gone, added))
        words = ("-r", "-z", "-M50%", "-l0", "--diff-filter=R", "--name-status")
        found = self._store.git("diff-tree", *words, before, after).split("\0")
        return dict(zip(found[1::3], found[2::3], strict=False))

    def have_blobs(self, patch: PatchFile) -> bool:
        """Tell whether the store has every blob the patch says it was made on."""
        needed = (change.old_oid for change in patch.changes if change.old and change.hunks)
        return all(oid and self._known(oid) for oid in needed)

    def _known(self, oid: str) -> bool:
        if oid not in self._here:
            try:
                self._store.cat_file(oid)
            except KeyError:
                return False
            self._here.add(oid)
        return True

    def kernel(self, tag: KernelTag) -> Kernel:
        """Return a kernel that patches were made on or files come back from; obtained once."""
        with self._guard:
            if tag not in self._kernels:
                self._kernels[tag] = self._store.kernel(str(tag)) or self._obtain(tag)
            return self._kernels[tag]

    def _materialised(self, extension: Extension, base: KernelTag) -> dict[Path, dict[str, str]]:
        """Apply an extension, and what it requires, to its base, with what they restore.

        Returns the blobs each patch that applies there was applied to. What
        cannot be restored there is told on a kernel that needs it.
        """
        key = extension.name, base
        if key in self._made_on:
            return self._made_on[key]
        folder = self._folder / f"base-{len(self._made_on)}"
        folder.mkdir()
        tree = GrowingTree(self._store, self.kernel(base).tree, folder)
        restorer = Restorer(self._store, tree, folder, self.kernel)
        made_on: dict[Path, dict[str, str]] = {}
        for each in with_required(self._extensions, extension):
            for restore in restores_for(each, base):
                restorer.bring(each, restore)
            for path, _ in patches_for(each, base):
                patch = read_patch(path)
                before = {name: entry.oid for name in patch.touched if (entry := tree.file(name))}
                if tree.apply(patch)[0].applied:
                    made_on[path] = before
        self._made_on[key] = made_on
        return made_on

    def _added_files(
        self, base: Kernel, kernel: Kernel, specs: tuple[str, ...] = ()
    ) -> dict[str, Entry]:
        """Return the files that came since the base: all of them, or those of some pathspecs."""
        key = base.tree, kernel.tree, specs
        if key not in self._added:
            words = ("-r", "-z", "--no-renames", "--diff-filter=A", base.tree, kernel.tree)
            listed = self._store.git("diff-tree", *words, "--", *specs).split("\0")
            heads = (head.split(" ") for head in listed[0::2] if head)
            self._added[key] = {
                path: Entry(head[1], head[3])
                for head, path in zip(heads, listed[1::2], strict=False)
            }
        return self._added[key]


def downloaded(paths: Paths, progress: Progress) -> Callable[[KernelTag], Kernel]:
    """Return how a base that is not in the store is obtained: like any other kernel."""

    def obtain(tag: KernelTag) -> Kernel:
        from workbench import source

        progress.note(f"{tag} is needed too: a patch was made on it, or files come back from it")
        return source.obtain(paths, str(tag), repo=None, progress=progress)

    return obtain


def _near(path: str) -> tuple[str, str]:
    """Return the pathspecs of a file's folder, and of its name in any other."""
    folder, slash, name = (re.sub(r"([\\*?\[])", r"\\\1", part) for part in path.rpartition("/"))
    return f":(glob){folder}{slash}*", f":(glob)**/{name}"
