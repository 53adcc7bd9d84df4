# SPDX-License-Identifier: GPL-2.0-only
"""What the kept runs say of one series on one kernel: nothing, unless it was exactly this one.

A series is named by its last commit, which is the same on every machine for
the same patches on the same kernel. A run of another tree proves nothing here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from workbench.model import PatchState
from workbench.prove import ProofState
from workbench.verdict import CellState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.model import PatchOutcome, RebasedSeries
    from workbench.paths import Paths


@dataclass(frozen=True)
class TestedRun:
    """One run of the series: ``states`` has a word for each extension (``green``, ``red``, ...).

    ``passed`` and ``failed`` count selftests on the patched kernel,
    ``proofs`` those that were seen to fail without their patch. ``started``
    is local time in ISO 8601.
    """

    __test__ = False
    kernel: str
    flavour: str
    arch: str
    started: str
    states: tuple[tuple[str, str], ...]
    passed: int
    failed: int
    proofs: int


class _Word(msgspec.Struct):
    """A test's outcome, or a proof's state."""

    outcome: str = ""
    state: str = ""


class _Cell(msgspec.Struct):
    extension: str
    state: str
    tests: list[_Word] = []
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


class _Report(msgspec.Struct):
    started: str
    trials: list[_Trial]


def runs_of(paths: Paths, series: RebasedSeries) -> tuple[TestedRun, ...]:
    """Return the newest kept run of this series for each flavour and architecture."""
    found: dict[tuple[str, str], TestedRun] = {}
    for report in _reports(paths):
        for trial in report.trials:
            if _is_of(trial, series):
                found.setdefault((trial.flavour, trial.arch), _summed(report, trial))
    return tuple(found[key] for key in sorted(found))


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
            for cell in filter(_is_proven, trial.cells):
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
    return replace(outcome, detail=f"{how}; proven {started}: 'kpw save' keeps it")


def _reports(paths: Paths) -> Iterator[_Report]:
    """Read the reports, newest first; one that cannot be read says nothing."""
    files = paths.runs.glob("*/report.json") if paths.runs.is_dir() else ()
    for file in sorted(files, reverse=True):
        try:
            yield msgspec.json.decode(file.read_bytes(), type=_Report)
        except (OSError, msgspec.MsgspecError):
            continue


def _is_of(trial: _Trial, series: RebasedSeries) -> bool:
    commits = [patch.commit for patch in trial.patches if patch.commit]
    same_patches = bool(commits) and commits[-1] == series.commit
    return same_patches and trial.commit == series.kernel.commit and bool(trial.cells)


def _summed(report: _Report, trial: _Trial) -> TestedRun:
    outcomes = Counter(test.outcome for cell in trial.cells for test in cell.tests)
    proofs = [proof.state for cell in trial.cells for proof in cell.proofs]
    return TestedRun(
        kernel=trial.kernel,
        flavour=trial.flavour,
        arch=trial.arch,
        started=report.started,
        states=tuple((cell.extension, cell.state) for cell in trial.cells),
        passed=outcomes["passed"],
        failed=outcomes["failed"] + outcomes["error"],
        proofs=proofs.count(ProofState.RED),
    )
