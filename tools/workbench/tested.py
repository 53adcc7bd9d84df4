# SPDX-License-Identifier: GPL-2.0-only
"""What the kept runs say of one series on one kernel: nothing, unless it was exactly this one.

A series is named by its last commit, which is the same on every machine for
the same patches on the same kernel. A run of another tree proves nothing
here, and a few tests run by hand hide nothing that a whole run found.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from workbench import runs
from workbench.explained import SAVED
from workbench.model import PatchState
from workbench.prove import ProofState
from workbench.verdict import CellState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.model import PatchOutcome, RebasedSeries
    from workbench.paths import Paths


@dataclass(frozen=True)
class Weight:
    """What makes one result of an extension count for more than another.

    ``whole`` tells that no ``-k`` chose among its selftests, ``decided`` that
    its red was looked at, or that it needs none.
    """

    green: bool
    whole: bool
    decided: bool

    def outweighs(self, known: Weight) -> bool:
        """Tell whether this newer result replaces one that is known.

        A whole one that proves or refutes does. One that failed takes a green
        one back, whatever ran; what passed without its red, or by ``-k``,
        replaces nothing that says more.
        """
        if self._concludes:
            return True
        if not self.green:
            return known.green or not known.whole
        if known._concludes or not known.green:
            return False
        return self.whole or not known.whole

    @property
    def _concludes(self) -> bool:
        return self.whole and (self.decided or not self.green)


@dataclass(frozen=True)
class Tested:
    """The result of an extension that counts; ``state`` is one word (``green``, ``red``, ...).

    ``passed``, ``failed``, ``skipped`` and ``lost`` (no result) count
    selftests on the patched kernel, ``proofs`` those that were seen to fail
    without their patch. ``expression`` is the ``-k`` that chose among them.
    ``started`` is local time in ISO 8601.
    """

    __test__ = False
    extension: str
    state: str
    started: str
    passed: int
    failed: int
    skipped: int
    lost: int
    proofs: int
    expression: str


@dataclass(frozen=True)
class TestedKernel:
    """The series in one flavour and architecture; ``missing`` are extensions without a result."""

    __test__ = False
    kernel: str
    flavour: str
    arch: str
    results: tuple[Tested, ...]
    missing: tuple[str, ...]


class _Word(msgspec.Struct):
    """A test's outcome, or a proof's state."""

    outcome: str = ""
    state: str = ""


class _Cell(msgspec.Struct):
    extension: str
    state: str
    upstream: bool = False
    tests: list[_Word] = []
    lost: list[str] = []
    proofs: list[_Word] = []


class _Patch(msgspec.Struct):
    commit: str


class _Trial(msgspec.Struct):
    kernel: str
    commit: str
    flavour: str
    arch: str
    patches: list[_Patch]
    cells: list[_Cell]
    expression: str = ""


class _Report(msgspec.Struct):
    started: str
    trials: list[_Trial]


def runs_of(paths: Paths, series: RebasedSeries) -> tuple[TestedKernel, ...]:
    """Return what is known of this very series, for each flavour and architecture."""
    found: dict[tuple[str, str], dict[str, tuple[Weight, Tested]]] = {}
    for report in reversed(list(_reports(paths))):
        for trial in report.trials:
            if _is_of(trial, series):
                results = found.setdefault((trial.flavour, trial.arch), {})
                _weigh(results, report.started, trial)
    return tuple(_told_of(series, key, found[key]) for key in sorted(found))


def confirmed(paths: Paths, series: RebasedSeries) -> RebasedSeries:
    """Say of each remembered resolution when its patch was proven, if a kept run did.

    The run may have had less of the series, but this very commit: each proof
    of the patch's extension failed without the patch, and all was green with it.
    """
    if all(each.state is not PatchState.REMEMBERED for each in series.outcomes):
        return series
    proven = proofs(paths)
    return replace(
        series,
        outcomes=tuple(
            _told(each, proven.get((each.extension, each.commit or ""))) for each in series.outcomes
        ),
    )


def unconfirmed(paths: Paths, series: RebasedSeries) -> frozenset[str]:
    """Name the extensions with a patch in by a resolution that no kept run has proven."""
    remembered = [each for each in series.outcomes if each.state is PatchState.REMEMBERED]
    proven = proofs(paths) if remembered else {}
    return frozenset(
        each.extension for each in remembered if (each.extension, each.commit) not in proven
    )


def proofs(paths: Paths) -> dict[tuple[str, str], str]:
    """Say since when a commit is proven for an extension, of those that kept runs did prove."""
    proven: dict[tuple[str, str], str] = {}
    for report in _reports(paths):
        for trial in report.trials:
            # What -k chose may leave the very proof of a patch out.
            for cell in filter(_is_proven, () if trial.expression else trial.cells):
                for patch in trial.patches:
                    proven.setdefault((cell.extension, patch.commit), report.started)
    return proven


def _is_proven(cell: _Cell) -> bool:
    return (
        cell.state == CellState.GREEN
        and bool(cell.proofs)
        and all(proof.state == ProofState.RED for proof in cell.proofs)
    )


def _told(outcome: PatchOutcome, started: str | None) -> PatchOutcome:
    if outcome.state is not PatchState.REMEMBERED or started is None:
        return outcome
    how = outcome.detail.partition(";")[0]
    return replace(outcome, detail=f"{how}; proven {started}: {SAVED}")


def _reports(paths: Paths) -> Iterator[_Report]:
    """Read the reports, newest first; one that cannot be read says nothing."""
    for file in runs.reports(paths):
        try:
            yield msgspec.json.decode(file.read_bytes(), type=_Report)
        except (OSError, msgspec.MsgspecError):
            continue


def _is_of(trial: _Trial, series: RebasedSeries) -> bool:
    commits = [patch.commit for patch in trial.patches if patch.commit]
    same_patches = bool(commits) and commits[-1] == series.commit
    return same_patches and trial.commit == series.kernel.commit


def _weigh(results: dict[str, tuple[Weight, Tested]], started: str, trial: _Trial) -> None:
    """Take the results of a newer trial that outweigh what is known."""
    for cell in trial.cells:
        weight = Weight(
            green=cell.state == CellState.GREEN,
            whole=not trial.expression,
            decided=bool(cell.proofs) or cell.upstream,
        )
        known = results.get(cell.extension)
        if known is None or weight.outweighs(known[0]):
            results[cell.extension] = weight, _tested(started, trial.expression, cell)


def _tested(started: str, expression: str, cell: _Cell) -> Tested:
    outcomes = Counter(test.outcome for test in cell.tests)
    return Tested(
        extension=cell.extension,
        state=cell.state,
        started=started,
        passed=outcomes["passed"],
        failed=outcomes["failed"] + outcomes["error"],
        skipped=outcomes["skipped"],
        lost=len(cell.lost),
        proofs=[proof.state for proof in cell.proofs].count(ProofState.RED),
        expression=expression,
    )


def _told_of(
    series: RebasedSeries, key: tuple[str, str], results: dict[str, tuple[Weight, Tested]]
) -> TestedKernel:
    named = series.extensions
    return TestedKernel(
        series.kernel.name,
        *key,
        results=tuple(results[name][1] for name in named if name in results),
        missing=tuple(name for name in named if name not in results),
    )
