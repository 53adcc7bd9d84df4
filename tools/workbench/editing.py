# SPDX-License-Identifier: GPL-2.0-only
"""Patches of an extension as commits of a work tree, and back as files.

What is open is a folder of the state directory, as a conflict is
(:mod:`workbench.resolving`). It is written back in one: the journal of the
extension's folder is written, or nothing is. A run killed after that finds on
its next ``--continue`` that the files say what the branch says.
"""

from __future__ import annotations

import difflib
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import edited as edits
from workbench import journal, pieces, workfolder, writeback, writefolder
from workbench.branchtree import BranchTree
from workbench.description import load
from workbench.editplan import Plan
from workbench.errors import InfraError, UsageError
from workbench.extensions import find
from workbench.model import KernelTag
from workbench.unrolled import Edited, ported, unroll
from workbench.writeback import Branches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.declared import Extension
    from workbench.edited import Edit
    from workbench.gitstore import Store
    from workbench.model import Kernel
    from workbench.paths import Paths
    from workbench.progress import Progress
    from workbench.unrolled import Unrolled


@dataclass(frozen=True)
class Done:
    """What came of ``--continue``: what was (or would be) written, or what is missing."""

    plan: Plan
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lost:
    """What went with a work tree that was given up: commits, and files that were in none."""

    commits: int = 0
    files: tuple[str, ...] = ()


class Desk:
    """Where patches are edited; ``extensions`` are all there are."""

    def __init__(
        self, paths: Paths, store: Store, extensions: Sequence[Extension], progress: Progress
    ) -> None:
        """Nothing is read or written yet."""
        self._paths = paths
        self._store = store
        self._extensions = extensions
        self._progress = progress

    def find(self, word: str, since: str = "") -> Edited:
        """Find what a user names; UsageError with the nearest name when it is not there."""
        extension = find(self._extensions, word)
        if not since:
            if not extension.patches or extension.base is None:
                raise UsageError(
                    "has no patches to edit",
                    where=extension.name,
                    next_step=f"'kpw import SOURCE --into {extension.name}' brings some",
                )
            return Edited(self._extensions, extension)
        known = {str(each.since): each for each in extension.variants}
        tag = str(KernelTag.parse(since))
        if tag not in known:
            near = difflib.get_close_matches(tag, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise UsageError(
                f"{extension.name} has no folder since-{tag}{hint}",
                next_step=f"there are: {', '.join(known) or 'none'}",
            )
        return Edited(self._extensions, extension, known[tag])

    def opened(self, word: str = "", since: str = "") -> tuple[Edit, ...]:
        """Return what is open, of one extension or folder where they are named."""
        found = edits.all_below(self._paths.edit)
        if word:
            named = {each.state.extension for each in found}
            name = word if word in named else find(self._extensions, word).name
            found = tuple(each for each in found if each.state.extension == name)
        if since:
            tag = str(KernelTag.parse(since))
            found = tuple(each for each in found if each.state.since == tag)
        return found

    def open(self, edited: Edited, kernel: Kernel) -> Edit:
        """Open a work tree, or return the one that is open.

        UsageError when no branch can be made of the patches.
        """
        name = edited.extension.name
        final = edits.place(self._paths.edit, name, edited.since)
        if final.exists():
            return edits.read(final)
        made = self._unrolled(edited, kernel)
        digests = made.digests(self._paths.patches / name)
        state = edits.State(name, edited.since, kernel.name, made.below, made.tip, digests)
        with workfolder.held(self._paths.edit):
            if not final.exists():  # another run may have been faster
                with workfolder.appearing(final, state) as place:
                    ends = made.below, made.tip
                    BranchTree.lay_out(self._store, place, ends, made.touched())
                self._store.update_ref(edits.ref_name(final), made.tip)
            return edits.read(final)

    def settle(self, found: Edit, kernel: Kernel, *, dry_run: bool = False) -> Done:
        """Write the branch back and close the work tree, when nothing is missing.

        UsageError when the patches are not those that were opened, or what the
        branch says cannot be said in files. Nobody else may write meanwhile
        (:func:`workbench.journal.held`).
        """
        state, tip = found.state, found.tree.tip()
        if missing := found.tree.unsettled(state.below, state.tip):
            return Done(Plan(), missing)
        edited = self.find(state.extension, state.since)
        now = self._unrolled(edited, kernel)
        with pieces.shielded(found.tree.git_dir) as store:
            ends = (kernel.commit, now.below), (now.below, now.tip), (now.below, tip)
            _refuse_other_ground(found, now)
            below, before, after = (pieces.read(store, *span) for span in ends)
            if self._changed_meanwhile(found, now) and not _same(before, after):
                raise _changed(found)
            files = [path for path, _ in now.patches]
            branches = Branches(kernel.commit, below, before, after, files)
            plan = self._planned(edited, branches)
            tree = store.tree_of(tip)
        if not plan.nothing:
            self._prove(edited, kernel, plan, tree)
        if not dry_run:
            if not plan.nothing:
                folder = self._paths.patches / state.extension
                journal.write(folder, plan.files, sorted(plan.leaving))
            self._close(found)
        return Done(plan)

    def give_up(self, found: Edit) -> Lost:
        """Take the work tree away, and say what went with it that is nowhere else."""
        try:
            lost = Lost(found.tree.beside(found.state.tip), found.tree.uncommitted())
        except InfraError:
            lost = Lost()  # somebody broke the repository: it goes all the same
        self._close(found)
        return lost

    def _close(self, found: Edit) -> None:
        with workfolder.held(self._paths.edit):
            if not found.folder.exists():
                raise UsageError(
                    f"another run wrote {found.name} back, or gave it up",
                    where=str(found.folder),
                    next_step="'kpw edit' lists what is open",
                )
            with self._store.writing():
                self._store.git("update-ref", "-d", edits.ref_name(found.folder))
            workfolder.remove(found.folder)

    def _unrolled(self, edited: Edited, kernel: Kernel) -> Unrolled:
        series = ported(self._paths, self._store, kernel, edited, self._progress)
        return unroll(series, edited, self._paths.patches)

    def _changed_meanwhile(self, found: Edit, now: Unrolled) -> bool:
        return now.digests(self._paths.patches / found.state.extension) != found.state.files

    def _planned(self, edited: Edited, branches: Branches) -> Plan:
        if edited.variant is None:
            return writeback.canonical(self._store, edited, branches)
        return writefolder.folder(self._store, edited, edited.variant, branches)

    def _prove(self, edited: Edited, kernel: Kernel, plan: Plan, tree: str) -> None:
        """See on a copy that the files, as they would be, give the tree of the branch."""
        name = edited.extension.name
        with tempfile.TemporaryDirectory(prefix="kpw-edit-") as scratch:
            paths = replace(self._paths, repo=Path(scratch))
            paths.patches.mkdir()
            for entry in self._paths.patches.iterdir():
                if entry.name != name:  # the resolutions of what it requires
                    (paths.patches / entry.name).symlink_to(entry)
            shutil.copytree(self._paths.patches / name, paths.patches / name)
            journal.write(paths.patches / name, plan.files, sorted(plan.leaving))
            written = edited.with_files_of(load(paths.patches / name))
            series = ported(paths, self._store, kernel, written, self._progress)
        if series.tree != tree:
            told = ", ".join(f"{each.patch}: {each.state}" for each in series.outcomes)
            raise InfraError(
                f"the patches as they would be written do not give the tree of the branch ({told})",
                where=f"{name} on {kernel.name}",
                next_step="nothing was written, and the work tree is as it was",
            )


def _same(one: Sequence[pieces.Piece], other: Sequence[pieces.Piece]) -> bool:
    return [(each.mail, each.body) for each in one] == [(each.mail, each.body) for each in other]


def _refuse_other_ground(found: Edit, now: Unrolled) -> None:
    if now.below != found.state.below:
        raise _changed(found)


def _changed(found: Edit) -> UsageError:
    return UsageError(
        f"the patches of {found.state.extension}, or what they stand on, "
        "were changed since this was opened",
        where=str(found.folder),
        next_step="keep your commits ('git format-patch base' there), --abort, and open it again",
    )
