# SPDX-License-Identifier: GPL-2.0-only
"""Port patches one after the other onto one growing tree, and judge each.

First the patch as it stands (lines may have moved), then a 3-way merge from
the files it was made on. A patch that is no good is left out and the next ones
are still tried, unless that conflict was resolved before
(:mod:`workbench.resolutions`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, assert_never

from workbench.conflicts import Explainer, remedy
from workbench.explained import SAVED
from workbench.filechange import ChangeKind
from workbench.growing import GrowingTree
from workbench.hunkwise import Hunkwise, is_all_there, share
from workbench.model import PatchState
from workbench.resolutions import Memory
from workbench.restore import Restorer, Restoring
from workbench.standoff import Referee
from workbench.threeway import Merge, Merger
from workbench.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from workbench.bases import Bases, Footing
    from workbench.declared import Extension
    from workbench.explained import HunkOutcome
    from workbench.gitapply import Entry
    from workbench.gitstore import Store
    from workbench.mailhead import Mail
    from workbench.model import Conflict, Kernel, KernelTag
    from workbench.patchfile import PatchFile
    from workbench.resolutions import Recalled
    from workbench.standoff import Standoff


@dataclass(frozen=True)
class Task:
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
class Ported:
    """What became of one patch; ``changes`` are the files it changed, if it went in."""

    state: PatchState
    changes: Mapping[str, Entry | None] = field(default_factory=dict)
    offsets: tuple[int, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    detail: str = ""
    hunks: tuple[HunkOutcome, ...] = ()
    inferred_base: str = ""


@dataclass(frozen=True)
class Bench:
    """What a series is ported with, to whatever kernel.

    Resolutions lie below ``patches``; ``obtain`` brings a kernel that is not
    in the store; ``repo`` is the user's repository, whose history explains
    conflicts.
    """

    store: Store
    extensions: Sequence[Extension]
    patches: Path
    obtain: Callable[[KernelTag], Kernel]
    repo: Path | None = None


class Porter:
    """Ports patches one after the other; ``standoffs`` are where those stood that did not go in."""

    def __init__(self, bench: Bench, kernel: Kernel, bases: Bases, folder: Path) -> None:
        """``bases`` may be shared between kernels, ``folder`` (scratch) may not."""
        store = bench.store
        self.tree = GrowingTree(store, kernel.tree, folder)
        self.standoffs: dict[Path, Standoff] = {}
        self._store = store
        self._kernel = kernel
        self._bases = bases
        self._folder = folder
        self._merger = Merger(store, self.tree, bases.sides, folder)
        self._hunkwise = Hunkwise(store, self.tree, folder)
        self._upstream = Upstream(store, kernel, bench.repo)
        self._referee = Referee(store, folder)
        self._memory = Memory(store, self.tree, bench.patches, folder)
        self._restorer = Restorer(store, self.tree, folder, bases.kernel)
        self._left_behind: dict[str, str] = {}
        self._not_renamed: dict[str, str] = {}
        self._not_made: set[str] = set()

    def port(self, task: Task | Restoring) -> Ported:
        """Port one patch, or restore files, and change the tree when it goes in."""
        match task:
            case Task():
                return self._applied(task)
            case Restoring():
                return self._restored(task)
            case _:
                assert_never(task)

    def _restored(self, task: Restoring) -> Ported:
        found = self._restorer.bring(task.extension, task.restore)
        if found.conflicts:
            self._left_behind |= dict.fromkeys(task.touched, task.label)
            self._not_made |= set(task.touched)
            return Ported(PatchState.CONFLICT, conflicts=found.conflicts, detail=found.detail)
        state = PatchState.RESTORED if found.changes else PatchState.THERE
        return Ported(state, found.changes, detail=found.detail)

    def _applied(self, task: Task) -> Ported:
        applied, changes = self.tree.apply(task.patch)
        if not applied.applied:
            return self._merged(task)
        if not changes:
            return Ported(PatchState.UPSTREAM, detail="it changes nothing here")
        state = PatchState.OFFSET if applied.offsets else PatchState.CLEAN
        return Ported(state, changes, applied.offsets)

    def _merged(self, task: Task) -> Ported:
        patch = task.patch
        if not self._bases.have_blobs(patch) and self.tree.has_it(patch):
            return Ported(PatchState.UPSTREAM, detail="it can be taken back as it stands")
        footing = self._bases.footing(patch, task.extension, task.base)
        moved, gap = self._moved(task, footing)
        whole = footing.patch or patch
        merge = self._merger.merge(whole, moved, three_way=footing.patch is not None)
        left_out = bool(merge.clashes or merge.gone)
        if left_out and self.tree.has_it(patch):
            return Ported(PatchState.UPSTREAM, detail="it can be taken back as it stands")
        hunks = self._hunkwise.judge(whole, moved, merged=not left_out)
        if left_out and is_all_there(patch, hunks):
            return Ported(PatchState.UPSTREAM, detail="each hunk of it is there", hunks=hunks)
        if left_out:
            standoff = self._referee.standoff(merge)
            if recalled := self._memory.recall(task.extension.name, patch, standoff):
                return self._remembered(recalled)
            self.standoffs[patch.path] = standoff
        done = self._left_out(task, merge, footing) if left_out else self._put(task, merge)
        if done.state is PatchState.UPSTREAM:
            return done
        inferred = f"{footing.why}, {footing.tag} taken" if footing.inferred else ""
        detail = "; ".join(filter(None, (done.detail, share(hunks), inferred or gap)))
        base = str(footing.tag) if footing.inferred else ""
        return replace(done, detail=detail, hunks=hunks, inferred_base=base)

    def _put(self, task: Task, merge: Merge) -> Ported:
        """Take what a patch was merged to into the tree."""
        changes = self.tree.put(merge.after, str(task.patch.path))
        if not changes:
            return Ported(PatchState.UPSTREAM, detail="merging it changes nothing")
        followed = (f"{old} is {new} here" for old, new in sorted(merge.followed.items()))
        return Ported(PatchState.THREE_WAY, changes, detail="; ".join(followed))

    def _remembered(self, recalled: Recalled) -> Ported:
        """Put a patch in as a conflict of the same kind was resolved before."""
        changes = self.tree.put(recalled.after, str(recalled.path))
        how = f"as resolved on {recalled.tag} ({recalled.path.name})"
        detail = f"{how}; 'kpw prove' confirms it, then {SAVED}"
        return Ported(PatchState.REMEMBERED, changes, detail=detail)

    def _moved(self, task: Task, footing: Footing) -> tuple[dict[str, str], str]:
        """Say where the files went that the patch changes and the tree has not.

        A file that keeps its name because the patch renaming it was left out
        has not gone anywhere. Also tell of a base that another kernel had to
        stand in for.
        """
        missing = {}
        for path in self._merger.missing(task.patch):
            origin = path
            while origin in self._not_renamed and self.tree.file(origin) is None:
                origin = self._not_renamed[origin]
            missing[path] = origin
        away = [origin for origin in missing.values() if self.tree.file(origin) is None]
        moved = self._bases.moved(away, footing.tag, self._kernel) if away else {}
        gap = self._bases.absent(footing.tag) if away else ""
        now = {path: moved.get(origin, origin) for path, origin in missing.items()}
        return {path: name for path, name in now.items() if self.tree.file(name)}, gap

    def _left_out(self, task: Task, merge: Merge, footing: Footing) -> Ported:
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
        return Ported(state, conflicts=tuple(conflicts), detail="; ".join(filter(None, parts)))


def _nowhere(base: KernelTag) -> str:
    return f"no 3-way merge: it does not apply to its base {base} either, nor to another tag here"
