# SPDX-License-Identifier: GPL-2.0-only
"""Keep what was resolved between extensions when one of them gets new patch files.

A patch file stands on its extension and what that requires. Where it meets
the lines of another extension, the whole series needs a resolution, and that
is kept by the patch: a patch that is written anew needs it anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.errors import InfraError
from workbench.extensions import find, patches_for
from workbench.gitapply import Entry
from workbench.rebase import halt_at, rebase
from workbench.resolutions import remember_at

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from workbench.declared import Extension
    from workbench.gitstore import Store
    from workbench.model import Kernel, PatchOutcome, RebasedSeries
    from workbench.paths import Paths
    from workbench.progress import Progress

_GONE = "0" * 40


@dataclass(frozen=True)
class Neighbours:
    """All extensions before and after ``name`` got new files; new resolutions go below ``paths``.

    Those of ``before`` are found there too.
    """

    paths: Paths
    store: Store
    progress: Progress
    name: str
    before: Sequence[Extension]
    after: Sequence[Extension]
    repo: Path | None = None

    def keep(self, kernel: Kernel) -> list[Path]:
        """Write the resolutions that the whole series needs to come out as it did."""
        old = self._rebased(kernel, self.before)
        if self._rebased(kernel, self.after).tree == old.tree:
            return []
        extension = find(self.after, self.name)
        files = {path.name: path for path, _ in patches_for(extension, kernel.tag)}
        outcomes = (each for each in old.outcomes if each.extension == self.name and each.commit)
        written = []
        for outcome in outcomes:
            file = files.get(outcome.patch.rpartition("/")[2])
            if file and (made := self._kept(kernel, outcome, file)):
                written.append(made)
        new = self._rebased(kernel, self.after)
        if old.applies and new.tree != old.tree:
            unfit = (each for each in new.outcomes if not each.state.applies)
            told = ", ".join(f"{each.extension}/{each.patch}: {each.state}" for each in unfit)
            raise InfraError(
                f"with the patches as they would be saved the whole series comes out "
                f"otherwise ({told or 'all apply'})",
                where=f"{self.name} on {kernel.name}",
                next_step="nothing of it was written; name what they meet in 'requires'",
            )
        return written

    def _kept(self, kernel: Kernel, outcome: PatchOutcome, file: Path) -> Path | None:
        """Resolve a patch's new file as the old one was, if it conflicts in the same place."""
        halted = halt_at(
            self.paths, self.store, kernel, self.after, file, self.progress, repo=self.repo
        )
        same_place = halted.series.tree == self.store.tree_of(f"{outcome.commit}~")
        if halted.standoff is None or not same_place:
            return None
        files = self._changed(f"{outcome.commit}~", f"{outcome.commit}")
        return remember_at(self.store, self.paths.patches, halted, files)

    def _changed(self, before: str, after: str) -> dict[str, Entry | None]:
        words = ("diff-tree", "-r", "--raw", "--no-abbrev", "--no-renames", "-z", before, after)
        listed = self.store.git(*words).split("\0")
        heads = (head.split(" ") for head in listed[0::2] if head)
        return {
            path: None if head[3] == _GONE else Entry(head[1], head[3])
            for head, path in zip(heads, listed[1::2], strict=False)
        }

    def _rebased(self, kernel: Kernel, extensions: Sequence[Extension]) -> RebasedSeries:
        return rebase(self.paths, self.store, kernel, extensions, self.progress, repo=self.repo)
