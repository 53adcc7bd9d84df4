# SPDX-License-Identifier: GPL-2.0-only
"""Port the series to a kernel without a work tree, and say what became of each patch.

The result is what ``git am -3`` gives, patch by patch: first the patch as it
stands (lines may have moved), then a 3-way merge from the files it was made
on. A patch that is no good is left out and the next ones are still tried, unless
that conflict was resolved before (:mod:`workbench.resolutions`).
What an extension restores is a commit of its own before its first patch.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from workbench import series
from workbench.bases import Bases, Footing
from workbench.conflicts import Explainer, remedy
from workbench.dependents import Step, dependents
from workbench.extensions import patches_for, restores_for
from workbench.filechange import ChangeKind
from workbench.growing import GrowingTree
from workbench.hunkwise import Hunkwise, is_all_there, share
from workbench.model import Conflict, PatchOutcome, PatchState, RebasedSeries
from workbench.patchfile import PatchFile, read_patch
from workbench.progress import Progress, Silent
from workbench.resolutions import Memory
from workbench.restore import Restorer, Restoring
from workbench.standoff import Referee, Standoff
from workbench.threeway import Merge, Merger
from workbench.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from workbench.declared import Extension
    from workbench.explained import HunkOutcome
    from workbench.gitapply import Entry
    from workbench.gitstore import Store
    from workbench.mailhead import Mail
    from workbench.model import Kernel, KernelTag
    from workbench.paths import Paths
    from workbench.resolutions import Recalled


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
class Halted:
    """A series up to one patch: how it stands there, None when the patch is in (or need not be).

    The commit of ``series`` is what the patch does not go into.
    """

    series: RebasedSeries
    patch: PatchFile
    standoff: Standoff | None


@dataclass(frozen=True)
class _Ported:
    """What became of one patch; ``changes`` are the files it changed, if it went in."""

    state: PatchState
    changes: Mapping[str, Entry | None] = field(default_factory=dict)
    offsets: tuple[int, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    detail: str = ""
    hunks: tuple[HunkOutcome, ...] = ()
    inferred_base: str = ""


def rebase(
    paths: Paths,
    store: Store,
    kernel: Kernel,
    extensions: Sequence[Extension],
    progress: Progress | None = None,
    *,
    obtain_base: Callable[[KernelTag], Kernel] | None = None,
    repo: Path | None = None,
) -> RebasedSeries:
    """Port the patches of ``extensions``, in their order, to ``kernel``.

    Never stops at the first patch that does not apply. ``obtain_base`` brings
    the kernel a patch was made on, should a merge need one that is not in the
    store, and the kernel files are restored from (None: download it). A
    conflict is explained by the history of ``repo``, if it has the kernel.
    UsageError for a malformed patch, before anything is tried.
    """
    tasks = [task for extension in extensions for task in _tasks(extension, kernel.tag)]
    progress = progress or Silent()
    obtain = obtain_base or _downloaded(paths, progress)
    bench = _Bench(paths, store, extensions, obtain, repo)
    ported, _ = _ported(bench, kernel, tasks, progress)
    names = tuple(each.name for each in extensions)
    return _written(store, series.ref_name(kernel, names), kernel, names, tasks, ported)


def halt_at(
    paths: Paths,
    store: Store,
    kernel: Kernel,
    extensions: Sequence[Extension],
    patch: Path,
    progress: Progress | None = None,
) -> Halted:
    """Port the patches of ``extensions`` as :func:`rebase` does, up to and with one."""
    progress = progress or Silent()
    tasks = [task for extension in extensions for task in _tasks(extension, kernel.tag)]
    last = next(
        at for at, task in enumerate(tasks) if isinstance(task, _Task) and task.patch.path == patch
    )
    del tasks[last + 1 :]
    bench = _Bench(paths, store, extensions, _downloaded(paths, progress))
    ported, standoffs = _ported(bench, kernel, tasks, progress)
    names = tuple(each.name for each in extensions)
    ref = f"refs/kpw/resolve/{kernel.name}/{names[-1]}-{patch.name[:4]}"
    done = _written(store, ref, kernel, names, tasks, ported)
    return Halted(done, read_patch(patch), standoffs.get(patch))


@dataclass(frozen=True)
class _Bench:
    """What a port works with."""

    paths: Paths
    store: Store
    extensions: Sequence[Extension]
    obtain: Callable[[KernelTag], Kernel]
    repo: Path | None = None


def _ported(
    bench: _Bench, kernel: Kernel, tasks: Sequence[_Task | Restoring], progress: Progress
) -> tuple[list[_Ported], dict[Path, Standoff]]:
    """Port patches; also return where those stood that did not go in."""
    with tempfile.TemporaryDirectory(prefix="kpw-rebase-") as name:
        porter = _Porter(bench, kernel, Path(name))
        porter.tree.load(path for task in tasks for path in task.touched)
        ported = []
        for number, task in enumerate(tasks):
            progress.step(f"{kernel.name}: rebase", number, len(tasks))
            ported.append(porter.port(task))
    return ported, porter.standoffs


def _tasks(extension: Extension, tag: KernelTag) -> Iterator[_Task | Restoring]:
    for restore in restores_for(extension, tag):
        yield Restoring(extension, restore)
    for path, base in patches_for(extension, tag):
        yield _Task(extension, read_patch(path), base)


def _downloaded(paths: Paths, progress: Progress) -> Callable[[KernelTag], Kernel]:
    def obtain(tag: KernelTag) -> Kernel:
        from workbench import source

        progress.note(f"{tag} is needed too: a patch was made on it, or files come back from it")
        return source.obtain(paths, str(tag), repo=None, progress=progress)

    return obtain


def _written(
    store: Store,
    ref: str,
    kernel: Kernel,
    names: tuple[str, ...],
    tasks: Sequence[_Task | Restoring],
    ported: Sequence[_Ported],
) -> RebasedSeries:
    """Make the commits, and put outcomes beside them."""
    pairs = list(zip(tasks, ported, strict=True))
    additions = [series.Addition(task.mail, each.changes) for task, each in pairs if each.changes]
    commits = series.write(store, kernel, ref, additions)
    left = iter(commits)
    steps = [_step(task) for task in tasks]
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
            hunks=each.hunks,
            needed_by=() if each.state.applies else dependents(steps[at], steps[at + 1 :]),
            inferred_base=each.inferred_base,
        )
        for at, (task, each) in enumerate(pairs)
    )
    commit = commits[-1] if commits else kernel.commit
    tree = store.git("rev-parse", f"{commit}^{{tree}}") if commits else kernel.tree
    return RebasedSeries(kernel, names, outcomes, commit, tree, ref)


def _step(task: _Task | Restoring) -> Step:
    patch = task.patch if isinstance(task, _Task) else None
    extension = task.extension
    return Step(extension.name, task.label, task.touched, patch, extension.requires)


class _Porter:
    """Ports patches one after the other onto one growing tree."""

    def __init__(self, bench: _Bench, kernel: Kernel, folder: Path) -> None:
        store = bench.store
        self.tree = GrowingTree(store, kernel.tree, folder)
        self.standoffs: dict[Path, Standoff] = {}
        self._store = store
        self._kernel = kernel
        self._bases = Bases(store, bench.extensions, folder, bench.obtain)
        self._folder = folder
        self._merger = Merger(store, self.tree, folder)
        self._hunkwise = Hunkwise(store, self.tree, folder)
        self._upstream = Upstream(store, kernel, bench.repo)
        self._referee = Referee(store, folder)
        self._memory = Memory(store, self.tree, bench.paths.patches, folder)
        self._restorer = Restorer(store, self.tree, folder, self._bases.kernel)
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
        footing = self._bases.footing(patch, task.extension, task.base)
        moved = self._moved(task, footing)
        whole = footing.patch or patch
        merge = self._merger.merge(whole, moved, three_way=footing.patch is not None)
        left_out = bool(merge.clashes or merge.gone)
        if left_out and self.tree.has_it(patch):
            return _Ported(PatchState.UPSTREAM, detail="it can be taken back as it stands")
        hunks = self._hunkwise.judge(whole, moved, merged=not left_out)
        if left_out and is_all_there(patch, hunks):
            return _Ported(PatchState.UPSTREAM, detail="each hunk of it is there", hunks=hunks)
        if left_out:
            standoff = self._referee.standoff(merge)
            if recalled := self._memory.recall(task.extension.name, patch, standoff):
                return self._remembered(recalled)
            self.standoffs[patch.path] = standoff
        done = self._left_out(task, merge, footing) if left_out else self._put(task, merge)
        if done.state is PatchState.UPSTREAM:
            return done
        inferred = f"its base is unknown, {footing.tag} taken" if footing.inferred else ""
        detail = "; ".join(filter(None, (done.detail, share(hunks), inferred)))
        base = str(footing.tag) if footing.inferred else ""
        return replace(done, detail=detail, hunks=hunks, inferred_base=base)

    def _put(self, task: _Task, merge: Merge) -> _Ported:
        """Take what a patch was merged to into the tree."""
        changes = self.tree.put(merge.after, str(task.patch.path))
        if not changes:
            return _Ported(PatchState.UPSTREAM, detail="merging it changes nothing")
        followed = (f"{old} is {new} here" for old, new in sorted(merge.followed.items()))
        return _Ported(PatchState.THREE_WAY, changes, detail="; ".join(followed))

    def _remembered(self, recalled: Recalled) -> _Ported:
        """Put a patch in as a conflict of the same kind was resolved before."""
        changes = self.tree.put(recalled.after, str(recalled.path))
        how = f"as resolved on {recalled.tag} ({recalled.path.name})"
        detail = f"{how}; 'kpw prove' confirms it, then 'kpw save' keeps it"
        return _Ported(PatchState.REMEMBERED, changes, detail=detail)

    def _moved(self, task: _Task, footing: Footing) -> dict[str, str]:
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
        moved = self._bases.moved(away, footing.tag, self._kernel) if away else {}
        now = {path: moved.get(origin, origin) for path, origin in missing.items()}
        return {path: name for path, name in now.items() if self.tree.file(name)}

    def _left_out(self, task: _Task, merge: Merge, footing: Footing) -> _Ported:
        """Report why a patch is not in, and remember what the next ones will miss."""
        work = partial(self._upstream.work, footing.tag)
        mend = remedy(self._kernel, task.extension, task.base, task.patch.path)
        explainer = Explainer(self._store, self._folder, mend, work)
        conflicts = [each for clash in merge.clashes for each in explainer.explain(clash)]
        conflicts += [explainer.explain_gone(change, self._kernel.name) for change in merge.gone]
        gone = [change.old or "" for change in merge.gone]
        obsolete = merge.obsolete and self._not_made.isdisjoint(gone)
        stands_on = {
            self._left_behind[path] for path in task.patch.touched if path in self._left_behind
        }
        parts = [
            "" if footing.patch else _nowhere(task.base),
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


def _nowhere(base: KernelTag) -> str:
    return f"no 3-way merge: it does not apply to its base {base} either, nor to another tag here"
