# SPDX-License-Identifier: GPL-2.0-only
"""What patches were made on: the files a 3-way merge starts from, and where files went.

One is shared by all kernels a series is ported to, which may be at the same time.

A patch names the blobs it was made on. They are in the store when its base
kernel is; for the later patches of a series only once the earlier ones were
applied to that base, which is done here when a merge asks for it. When they
are nowhere, or the base cannot be had, the imported kernel the patch applies
to stands in for it.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench.applying import Sides
from workbench.errors import InfraError, UsageError
from workbench.extensions import patches_for, restores_for, with_required
from workbench.gitapply import Entry, SmallIndex
from workbench.growing import GrowingTree
from workbench.model import KernelTag
from workbench.patchfile import PatchFile, read_patch
from workbench.restore import Restorer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from workbench.declared import Extension
    from workbench.gitstore import Store
    from workbench.model import Kernel
    from workbench.paths import Paths
    from workbench.progress import Progress


@dataclass(frozen=True)
class Footing:
    """A patch such that every blob it names is in the store, and the kernel they are from.

    ``patch`` is None when it applies to no kernel that is known; ``tag`` is
    its declared base then. ``inferred`` tells that another kernel was taken
    than the base, or that the patch itself names blobs nobody knows; ``why``
    says which.
    """

    patch: PatchFile | None
    tag: KernelTag
    why: str = ""

    @property
    def inferred(self) -> bool:
        """Tell whether the declared base could not simply be taken."""
        return bool(self.why)


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
        self._kernels: dict[KernelTag, Kernel | InfraError] = {}
        self._here: set[str] = set()
        self._made_on: dict[tuple[str, KernelTag, KernelTag], dict[Path, dict[str, str]]] = {}
        self._added: dict[tuple[str, str, tuple[str, ...]], dict[str, Entry]] = {}

    def footing(self, patch: PatchFile, extension: Extension, base: KernelTag) -> Footing:
        """Find what a patch was made on; without its blobs, the known kernel it applies to.

        The declared base is tried first, then what is imported, nearest first.
        InfraError when the base cannot be had and none of those fits.
        """
        if self.have_blobs(patch):
            return Footing(patch, base)
        with self._guard:
            return self._worked_out(patch, extension, base)

    def _worked_out(self, patch: PatchFile, extension: Extension, base: KernelTag) -> Footing:
        absent = self.absent(base)
        for tag in self._nearest(base) if absent else (base, *self._nearest(base)):
            made_on = self._materialised(extension, base, tag).get(patch.path)
            if self.have_blobs(patch):
                return Footing(patch, base)
            if made_on is not None:
                return Footing(_made_on(patch, made_on), tag, absent or "its base is unknown")
        if absent:
            raise self._nothing_fits(f"patches/{extension.name}/{patch.path.name}", base)
        return Footing(None, base)

    def absent(self, tag: KernelTag) -> str:
        """Say why a base cannot be had; empty when it can."""
        try:
            self.kernel(tag)
        except InfraError as error:
            return f"its base {tag} cannot be had ({error.what})"
        return ""

    def _nothing_fits(self, where: str, base: KernelTag) -> InfraError:
        return InfraError(
            f"{self.absent(base)}, and no imported kernel can stand in for it",
            where=where,
            next_step=f"have it brought by 'kpw fetch {base}', or by --repo with a clone of it",
        )

    def _nearest(self, base: KernelTag) -> list[KernelTag]:
        """Return the other imported tags: those fewest releases away first, the older of two."""
        tags = sorted({base, *map(KernelTag.parse, self._store.tags())})
        at = tags.index(base)
        return sorted(
            (tag for tag in tags if tag != base), key=lambda tag: abs(tags.index(tag) - at)
        )

    def moved(self, paths: Sequence[str], base: KernelTag, kernel: Kernel) -> dict[str, str]:
        """Tell under which names files of the base are in the kernel now, if git finds them.

        Only files the kernel has and the base has not can be a renamed one.
        Those of the same name or folder are asked first: to compare with all
        of them takes seconds. A base that cannot be had is stood in for by
        the nearest kernel that has these files.
        """
        with self._guard:
            source = self._having(paths, base) if self.absent(base) else self.kernel(base)
            return self._moved(paths, source, kernel)

    def _having(self, paths: Sequence[str], base: KernelTag) -> Kernel:
        for kernel in map(self.kernel, self._nearest(base)):
            tree = GrowingTree(self._store, kernel.tree, self._folder)
            if all(tree.file(path) for path in paths):
                return kernel
        raise self._nothing_fits(", ".join(paths), base)

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
        before, after = self._small_tree("gone", gone), self._small_tree("added", added)
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
        """Return a kernel that patches were made on or files come back from; asked for once.

        InfraError when it cannot be had.
        """
        with self._guard:
            if tag not in self._kernels:
                self._kernels[tag] = self._asked_for(tag)
            found = self._kernels[tag]
        if isinstance(found, InfraError):
            raise found
        return found

    def _asked_for(self, tag: KernelTag) -> Kernel | InfraError:
        try:
            return self._store.kernel(str(tag)) or self._obtain(tag)
        except InfraError as error:
            return error

    def _materialised(
        self, extension: Extension, base: KernelTag, on: KernelTag
    ) -> dict[Path, dict[str, str]]:
        """Apply the patches for ``base`` of an extension, and of what it requires, to ``on``.

        What they restore comes before. Returns the blobs each patch that
        applies there was applied to. What cannot be restored there is told on
        a kernel that needs it; nothing is downloaded to try another kernel
        than the base.
        """
        key = extension.name, base, on
        if key in self._made_on:
            return self._made_on[key]
        folder = self._folder / f"base-{len(self._made_on)}"
        folder.mkdir()
        tree = GrowingTree(self._store, self.kernel(on).tree, folder)
        restorer = Restorer(self._store, tree, folder, self.kernel)
        made_on: dict[Path, dict[str, str]] = {}
        for each in with_required(self._extensions, extension):
            for restore in restores_for(each, on):
                if on == base or self._store.has(str(restore.origin)):
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

    def _small_tree(self, name: str, files: Mapping[str, Entry]) -> str:
        # By git, since these may be all that came in five years: it need not read their blobs.
        file = self._folder / f"{name}-index"
        file.unlink(missing_ok=True)
        index = SmallIndex(self._store, file)
        index.put(files)
        return index.write_tree()


def _made_on(patch: PatchFile, oids: Mapping[str, str]) -> PatchFile:
    """Return a patch with other blobs as what it was made on."""
    changes = (
        change.made_on(oids[change.old]) if change.old and change.hunks else change
        for change in patch.changes
    )
    return replace(patch, changes=tuple(changes))


def downloaded(
    paths: Paths, progress: Progress, repo: Path | None
) -> Callable[[KernelTag], Kernel]:
    """Return how a base that is not in the store is obtained: like any other kernel.

    ``repo`` is the user's repository, which is asked first. InfraError when
    no source has it: the patches name it, not the user.
    """

    def obtain(tag: KernelTag) -> Kernel:
        from workbench import source

        progress.note(f"{tag} is needed too: a patch was made on it, or files come back from it")
        try:
            return source.obtain(paths, str(tag), repo=repo, progress=progress)
        except UsageError as error:
            raise InfraError(error.what, where=error.where, next_step=error.next_step) from error

    return obtain


def _near(path: str) -> tuple[str, str]:
    """Return the pathspecs of a file's folder, and of its name in any other."""
    folder, slash, name = (re.sub(r"([\\*?\[])", r"\\\1", part) for part in path.rpartition("/"))
    return f":(glob){folder}{slash}*", f":(glob)**/{name}"
