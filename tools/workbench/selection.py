# SPDX-License-Identifier: GPL-2.0-only
"""Conflicts that only a selection of extensions has, and no 'kpw resolve' knows.

A patch is resolved on what its extension requires, or on the whole series
(:mod:`workbench.resolving`). With some of the others beside it, it may meet
lines that it meets in neither.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench import rebase
from workbench.errors import WorkbenchError
from workbench.extensions import find, with_required

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from workbench.declared import Extension
    from workbench.gitstore import Store
    from workbench.model import Kernel, PatchOutcome, RebasedSeries
    from workbench.paths import Paths
    from workbench.progress import Progress

# By the names of the extensions, for one kernel.
_Known = dict[tuple[str, ...], "RebasedSeries"]


@dataclass(frozen=True)
class Whole:
    """The whole series, which selections are of: ``extensions`` are all there are."""

    paths: Paths
    store: Store
    extensions: Sequence[Extension]
    progress: Progress
    repo: Path | None = None

    def told(self, series: RebasedSeries) -> RebasedSeries:
        """Return a series such that what to do next is true of a selection's conflicts, too."""
        if series.applies or len(series.extensions) == len(self.extensions):
            return series
        known = {series.extensions: series}
        outcomes = tuple(self._told(each, series.kernel, known) for each in series.outcomes)
        return replace(series, outcomes=outcomes)

    def _told(self, outcome: PatchOutcome, kernel: Kernel, known: _Known) -> PatchOutcome:
        # What is restored stands on no other extension.
        if outcome.state.applies or not outcome.patch.endswith(".patch"):
            return outcome
        name = outcome.extension
        states = []
        for extensions in (
            with_required(self.extensions, find(self.extensions, name)),
            self.extensions,
        ):
            try:
                there = self._rebased(kernel, extensions, known)
            except WorkbenchError:  # of what was not chosen; 'kpw resolve' meets and tells it
                return outcome
            state = next(each.state for each in there.outcomes if _key(each) == _key(outcome))
            if not state.applies:
                return outcome
            states.append(state)
        next_step = (
            "it is a conflict of this selection of extensions only, with nothing to resolve: "
            f"the patch is {states[0]} on what {name} requires "
            f"('kpw rebase {kernel.name} --only {name}') and {states[1]} in the whole series "
            f"('kpw rebase {kernel.name}'); choose more extensions or fewer"
        )
        conflicts = tuple(replace(each, next_step=next_step) for each in outcome.conflicts)
        return replace(outcome, conflicts=conflicts)

    def _rebased(
        self, kernel: Kernel, extensions: Sequence[Extension], known: _Known
    ) -> RebasedSeries:
        names = tuple(each.name for each in extensions)
        if names not in known:
            known[names] = rebase.rebase(
                self.paths, self.store, kernel, extensions, self.progress, repo=self.repo
            )
        return known[names]


def _key(outcome: PatchOutcome) -> tuple[str, str]:
    return outcome.extension, outcome.patch
