# SPDX-License-Identifier: GPL-2.0-only
"""Which kernel foreign patches were made on, and whether they apply there."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.errors import UsageError
from workbench.extensions import patches_for, restores_for, with_required
from workbench.growing import GrowingTree
from workbench.model import KernelTag
from workbench.ontonearest import Nearby
from workbench.patchfile import read_patch
from workbench.patchmail import with_full_ids
from workbench.restore import Restorer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from workbench.declared import Extension
    from workbench.gitstore import Store
    from workbench.model import Kernel
    from workbench.patchfile import PatchFile


@dataclass(frozen=True)
class MadeOn:
    """The kernel patches were made on; ``known`` says how that is known, in one phrase."""

    tag: KernelTag
    known: str


@dataclass(frozen=True)
class Misfit:
    """A patch that does not apply where it is said to be made.

    ``path`` and ``line`` (1-based, 0 when there is none) are those of the
    first hunk that does not fit. It cannot be merged there either: ``unknown``
    are its files whose blobs are in no imported kernel; none when they clash.
    """

    patch: PatchFile
    kernel: str
    path: str
    line: int
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fitted:
    """Patches as they are on the kernel; ``merged`` are the subjects of those that changed."""

    patches: tuple[PatchFile, ...]
    merged: tuple[str, ...] = ()


def guess(
    store: Store, patches: Sequence[PatchFile], base_commit: str, scratch: Path
) -> MadeOn | None:
    """Return the imported kernel that patches were made on, None when it cannot be told.

    Either they name its commit, or it is the oldest that has every file as
    they know it; else the oldest of those that have the most of them.
    """
    commits = {tag: commit for name, commit in store.tags().items() if (tag := _tag(name))}
    for tag, commit in commits.items():
        if base_commit and commit == base_commit:
            return MadeOn(tag, "its commit is their base-commit")
    wanted = _files_before(patches)
    same = dict.fromkeys(sorted(commits), 0)
    for tag in same:
        tree = GrowingTree(store, store.tree_of(commits[tag]), scratch)
        found = {path: tree.file(path) for path in wanted}
        same[tag] = sum(
            entry is not None and entry.oid.startswith(wanted[path])
            for path, entry in found.items()
        )
    nearest = max(same, key=lambda tag: same[tag], default=None)
    if nearest is None or not same[nearest]:
        return None
    if same[nearest] < len(wanted):
        files = f"{same[nearest]} of the {len(wanted)} files they were made on"
        return MadeOn(nearest, f"it is the nearest imported, with {files}")
    files = "the file" if len(wanted) == 1 else f"all {len(wanted)} files"
    return MadeOn(nearest, f"it is the oldest imported with {files} they were made on")


@dataclass(frozen=True)
class Site:
    """Where patches are tried; ``scratch`` is an empty folder, ``obtain`` brings a kernel."""

    store: Store
    scratch: Path
    obtain: Callable[[KernelTag], Kernel]

    def applied(
        self,
        kernel: Kernel,
        extensions: Sequence[Extension],
        extension: Extension | None,
        patches: Sequence[PatchFile],
    ) -> Fitted | Misfit:
        """Apply patches to a kernel, on top of what ``extension`` has and requires.

        Return them with whole blob ids, merged where they do not apply as
        they stand, or the first for which that is no way either.
        """
        tree = self._ground(kernel, extensions, extension)
        nearby = Nearby(self.store, tree, self.scratch)
        found = []
        merged = []
        for patch in patches:
            nearby.made(patch)
            before = {path: tree.file(path) for path in patch.touched}
            if tree.apply(patch)[0].applied:
                after = {path: tree.file(path) for path in patch.touched}
                found.append(with_full_ids(patch, before, after))
                continue
            place = tree.misfit(patch)
            there = nearby.merged(patch)
            if there is None:
                return Misfit(patch, kernel.name, *place, nearby.unknown(patch))
            found.append(there)
            merged.append(patch.mail.subject)
        return Fitted(tuple(found), tuple(merged))

    def _ground(
        self, kernel: Kernel, extensions: Sequence[Extension], extension: Extension | None
    ) -> GrowingTree:
        tree = GrowingTree(self.store, kernel.tree, self.scratch)
        below = with_required(extensions, extension) if extension else ()
        restorer = Restorer(self.store, tree, self.scratch, self.obtain)
        for each in below:
            for restore in restores_for(each, kernel.tag):
                restorer.bring(each, restore)
            for path, _ in patches_for(each, kernel.tag):
                if not tree.apply(read_patch(path))[0].applied:
                    raise UsageError(
                        f"does not apply to {kernel.name}, on which the new ones are to stand",
                        where=str(path),
                        next_step=f"see 'kpw rebase {kernel.name} --only {each.name}'",
                    )
        return tree


def _tag(name: str) -> KernelTag | None:
    with contextlib.suppress(UsageError):
        return KernelTag.parse(name)
    return None


def _files_before(patches: Sequence[PatchFile]) -> dict[str, str]:
    """Return the files that no earlier patch of the series touched, with their blob's id."""
    seen: set[str] = set()
    wanted: dict[str, str] = {}
    for patch in patches:
        for change in patch.changes:
            if change.old and change.old not in seen and change.old_oid:
                wanted.setdefault(change.old, change.old_oid)
        seen |= set(patch.touched)
    return wanted
