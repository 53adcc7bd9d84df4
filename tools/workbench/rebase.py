# SPDX-License-Identifier: GPL-2.0-only
"""Port the series to a kernel without a work tree, and say what became of each patch.

The result is what ``git am -3`` gives, patch by patch: first the patch as it
stands (lines may have moved), then a 3-way merge from the files it was made
on. A patch that is no good is left out and the next ones are still tried.
What an extension restores is a commit of its own before its first patch.
"""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from workbench import series
from workbench.bases import Bases, downloaded
from workbench.conflicts import Explainer
from workbench.extensions import patches_for, restores_for
from workbench.filechange import ChangeKind
from workbench.growing import GrowingTree
from workbench.model import Conflict, PatchOutcome, PatchState, RebasedSeries
from workbench.patchfile import PatchFile, read_patch
from workbench.progress import Progress, Silent
from workbench.restore import Restorer, Restoring
from workbench.threeway import Merge, Merger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from workbench.declared import Extension
    from workbench.gitapply import Entry
    from workbench.gitstore import Store
    from workbench.mailhead import Mail
    from workbench.model import Kernel, KernelTag
    from workbench.paths import Paths


@dataclass(frozen=True)
class _Task:
    """A patch to port, and the tag it was made on."""

    extension: Extension
    patch: PatchFile
    base: KernelTag

    @property
    def mail(self) -> Mail:
        """What its commit says."""
        return self.patch.mail

    @property
    def touched(self) -> tuple[str, ...]:
        """All names it touches."""
        return self.patch.touched

    @property
    def label(self) -> str:
        """The patch's name in its extension: ``0001-x.patch``, ``since-v6.12/0001-x.patch``."""
        path = self.patch.path
        return (
            f"{path.parent.name}/{path.name}"
            if path.parent.name.startswith("since-")
            else path.name
        )


@dataclass(frozen=True)
class _Ported:
    """What became of one patch; ``changes`` are the files it changed, if it went in."""

    state: PatchState
    changes: Mapping[str, Entry | None] = field(default_factory=dict)
    offsets: tuple[int, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    detail: str = ""


def rebase(
    paths: Paths,
    store: Store,
    kernel: Kernel,
    extensions: Sequence[Extension],
    progress: Progress | None = None,
    *,
    obtain_base: Callable[[KernelTag], Kernel] | None = None,
) -> RebasedSeries:
    """Port the patches of ``extensions``, in their order, to ``kernel``.

    Never stops at the first patch that does not apply. ``obtain_base`` brings
    the kernel a patch was made on, should a merge need one that is not in the
    store, and the kernel files are restored from (None: download it).
    UsageError for a malformed patch, before anything is tried.
    """
    progress = progress or Silent()
    with tempfile.TemporaryDirectory(prefix="kpw-rebase-") as name:
        obtain = obtain_base or downloaded(paths, progress)
        rebaser = Rebaser(store, extensions, Path(name), obtain)
        number = len(rebaser.tasks(kernel))
        done = itertools.count()
        return rebaser.port(
            kernel, lambda: progress.step(f"{kernel.name}: rebase", next(done), number)
        )


class Rebaser:
    """Ports one series to any number of kernels; what they share is worked out once.

    Two threads may port to two kernels at the same time.
    """

    def __init__(
        self,
        store: Store,
        extensions: Sequence[Extension],
        folder: Path,
        obtain: Callable[[KernelTag], Kernel],
    ) -> None:
        """``folder`` is scratch; ``obtain`` brings a kernel that is not in the store."""
        self._store = store
        self._extensions = extensions
        self._folder = folder
        self._bases = Bases(store, extensions, folder, obtain)

    def tasks(self, kernel: Kernel) -> list[_Task | Restoring]:
        """Return what is to be done on a kernel; UsageError for a malformed patch."""
        return [task for each in self._extensions for task in _tasks(each, kernel.tag)]

    def port(self, kernel: Kernel, tell: Callable[[], None]) -> RebasedSeries:
        """Port the series to one kernel; ``tell`` is called before each patch."""
        tasks = self.tasks(kernel)
        ported = []
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            porter = _Porter(self._store, kernel, self._bases, Path(name))
            for task in tasks:
                tell()
                ported.append(porter.port(task))
        names = tuple(each.name for each in self._extensions)
        return _written(self._store, kernel, names, tasks, ported)


def _tasks(extension: Extension, tag: KernelTag) -> Iterator[_Task | Restoring]:
    for restore in restores_for(extension, tag):
        yield Restoring(extension, restore)
    for path, base in patches_for(extension, tag):
        yield _Task(extension, read_patch(path), base)


def _written(
    store: Store,
    kernel: Kernel,
    names: tuple[str, ...],
    tasks: Sequence[_Task | Restoring],
    ported: Sequence[_Ported],
) -> RebasedSeries:
    """Make the commits, and put outcomes beside them."""
    ref = series.ref_name(kernel, names)
    pairs = list(zip(tasks, ported, strict=True))
    additions = [series.Addition(task.mail, each.changes) for task, each in pairs if each.changes]
    commits = series.write(store, kernel, ref, additions)
    left = iter(commits)
    outcomes = tuple(
        PatchOutcome(
            extension=task.extension.name,
            patch=task.label,
            subject=task.mail.subject,
            state=each.state,
            commit=next(left) if each.changes else None,
            offsets=each.offsets,
            conflicts=each.conflicts,
            detail=each.detail,
        )
        for task, each in pairs
    )
    commit = commits[-1] if commits else kernel.commit
    tree = store.tree_of(commit) if commits else kernel.tree
    return RebasedSeries(kernel, names, outcomes, commit, tree, ref)


class _Porter:
    """Ports patches one after the other onto one growing tree."""

    def __init__(self, store: Store, kernel: Kernel, bases: Bases, folder: Path) -> None:
        self.tree = GrowingTree(store, kernel.tree, folder)
        self._store = store
        self._kernel = kernel
        self._bases = bases
        self._folder = folder
        self._merger = Merger(store, self.tree, bases.sides, folder)
        self._restorer = Restorer(store, self.tree, folder, bases.kernel)
        self._left_behind: dict[str, str] = {}
        self._not_renamed: dict[str, str] = {}
        self._not_made: set[str] = set()

    def port(self, task: _Task | Restoring) -> _Ported:
        """Port one patch, or restore files, and change the tree when it goes in."""
        match task:
            case _Task():
                return self._applied(task)
            case Restoring():
                return self._restored(task)
            case _:
                assert_never(task)

    def _restored(self, task: Restoring) -> _Ported:
        found = self._restorer.bring(task.extension, task.restore)
        if found.conflicts:
            self._left_behind |= dict.fromkeys(task.touched, task.label)
            self._not_made |= set(task.touched)
            return _Ported(PatchState.CONFLICT, conflicts=found.conflicts, detail=found.detail)
        state = PatchState.RESTORED if found.changes else PatchState.THERE
        return _Ported(state, found.changes, detail=found.detail)

    def _applied(self, task: _Task) -> _Ported:
        applied, changes = self.tree.apply(task.patch)
        if not applied.applied:
            return self._merged(task)
        if not changes:
            return _Ported(PatchState.UPSTREAM, detail="it changes nothing here")
        state = PatchState.OFFSET if applied.offsets else PatchState.CLEAN
        return _Ported(state, changes, applied.offsets)

    def _merged(self, task: _Task) -> _Ported:
        patch = task.patch
        if not self._bases.have_blobs(patch) and self.tree.has_it(patch):
            return _Ported(PatchState.UPSTREAM, detail="it can be taken back as it stands")
        moved = self._moved(task)
        whole = self._bases.with_blobs(patch, task.extension, task.base)
        merge = self._merger.merge(whole or patch, moved, three_way=whole is not None)
        if merge.clashes or merge.gone:
            if self.tree.has_it(patch):
                return _Ported(PatchState.UPSTREAM, detail="it can be taken back as it stands")
            why = (
                "" if whole else f"no 3-way merge: it does not apply to its base {task.base} either"
            )
            return self._left_out(task, merge, why)
        changes = self.tree.put(merge.after, str(patch.path))
        if not changes:
            return _Ported(PatchState.UPSTREAM, detail="merging it changes nothing")
        followed = (f"{old} is {new} here" for old, new in sorted(merge.followed.items()))
        return _Ported(PatchState.THREE_WAY, changes, detail="; ".join(followed))

    def _moved(self, task: _Task) -> dict[str, str]:
        """Say where the files went that the patch changes and the tree has not.

        A file that keeps its name because the patch renaming it was left out
        has not gone anywhere.
        """
        missing = {}
        for path in self._merger.missing(task.patch):
            origin = path
            while origin in self._not_renamed and self.tree.file(origin) is None:
                origin = self._not_renamed[origin]
            missing[path] = origin
        away = [origin for origin in missing.values() if self.tree.file(origin) is None]
        moved = self._bases.moved(away, task.base, self._kernel) if away else {}
        now = {path: moved.get(origin, origin) for path, origin in missing.items()}
        return {path: name for path, name in now.items() if self.tree.file(name)}

    def _left_out(self, task: _Task, merge: Merge, why: str) -> _Ported:
        """Report why a patch is not in, and remember what the next ones will miss."""
        explainer = Explainer(self._store, self._folder, self._remedy(task))
        conflicts = [each for clash in merge.clashes for each in explainer.explain(clash)]
        conflicts += [explainer.explain_gone(change, self._kernel.name) for change in merge.gone]
        gone = [change.old or "" for change in merge.gone]
        obsolete = merge.obsolete and self._not_made.isdisjoint(gone)
        stands_on = {
            self._left_behind[path] for path in task.patch.touched if path in self._left_behind
        }
        parts = [
            why,
            f"not in {self._kernel.name}: {', '.join(gone)}" if gone else "",
            f"stands on {', '.join(sorted(stands_on))}, left out" if stands_on else "",
            *(f"Applied-Upstream: {tag}" for tag in task.patch.mail.trailer("Applied-Upstream")),
        ]
        for change in task.patch.changes:
            self._left_behind |= dict.fromkeys(change.paths, task.label)
            self._not_made |= {change.new or ""} - {change.old}
            if change.kind is ChangeKind.RENAME and change.old and change.new:
                self._not_renamed[change.new] = change.old
        state = PatchState.OBSOLETE if obsolete else PatchState.CONFLICT
        return _Ported(state, conflicts=tuple(conflicts), detail="; ".join(filter(None, parts)))

    def _remedy(self, task: _Task) -> str:
        """Name the patch file that would mend it."""
        tag = self._kernel.tag
        taken = {variant.since for variant in task.extension.variants}
        series_start = type(tag).parse(tag.series)
        fits = task.base.series != tag.series and series_start not in taken
        since = series_start if fits else tag
        folder = f"patches/{task.extension.name}/since-{since}"
        return (
            f"write {folder}/{task.patch.path.name} for {self._kernel.name} "
            f'and a table [variants."{since}"] with base = "{tag}" in extension.toml'
        )
