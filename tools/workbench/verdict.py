# SPDX-License-Identifier: GPL-2.0-only
"""The verdict: what a cell of the matrix can be, and what several of them come to.

The exit code of several findings is the largest of theirs: 5 crash > 4 build
> 3 conflict > 1 red > 0. The larger the number, the less is left to trust. A
guest that died leaves tests without an answer and may hurt whoever boots this
kernel; a build that failed left that kernel unjudged; a conflict left one
extension unjudged; a red test is a clear answer. What is raised ends the
command before any of these: the report has its exit code, and is never good.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from workbench.errors import ExitCode
from workbench.order import Red

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from workbench.image import GuestImage
    from workbench.model import (
        BuildFailure,
        BuiltKernel,
        Kernel,
        RebasedSeries,
        SelftestReport,
        SelftestResult,
    )
    from workbench.prove import Proof


class Verdict(StrEnum):
    """What a trial says to a bisection."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"


class CellState(StrEnum):
    """What is known of one extension on one kernel."""

    GREEN = "green"
    RED = "red"
    UNPROVEN = "unproven"
    CONFLICT = "conflict"
    BUILD = "build failed"
    CRASH = "crash"
    LOST = "not judged"

    @property
    def exit_code(self) -> ExitCode:
        """The exit code this state asks for."""
        return _EXIT[self]

    @property
    def verdict(self) -> Verdict:
        """Its meaning for a bisection: what could not be judged is skipped."""
        match self.exit_code:
            case ExitCode.GOOD:
                return Verdict.GOOD
            case ExitCode.CONFLICT | ExitCode.BUILD:
                return Verdict.SKIP
            case _:
                return Verdict.BAD


_EXIT: Final = {
    CellState.GREEN: ExitCode.GOOD,
    CellState.RED: ExitCode.RED,
    CellState.UNPROVEN: ExitCode.RED,
    CellState.CONFLICT: ExitCode.CONFLICT,
    CellState.BUILD: ExitCode.BUILD,
    CellState.CRASH: ExitCode.CRASH,
    # Its tests have no result because the guest died: what is behind it is a crash.
    CellState.LOST: ExitCode.CRASH,
}


@dataclass(frozen=True)
class Reason:
    """Why a cell is not green: what, in one line; where to look; what to do next.

    ``excerpt`` quotes console or build log, any number of lines. ``check``
    names the check of a test report that it explains; without one it is a
    check of its own there.
    """

    what: str
    where: str = ""
    next_step: str = ""
    excerpt: str = ""
    check: str = ""

    def __str__(self) -> str:
        """Return the one line."""
        return self.what + "".join(f"; {part}" for part in (self.where, self.next_step) if part)


@dataclass(frozen=True)
class Cell:
    """One extension on one kernel.

    ``tests`` are those of the patched kernel, ``lost`` its tests that were
    collected and have no result. ``remembered`` tells that the red is an
    earlier run's.
    """

    extension: str
    state: CellState
    reasons: tuple[Reason, ...] = ()
    tests: tuple[SelftestResult, ...] = ()
    proofs: tuple[Proof, ...] = ()
    upstream: bool = False
    lost: tuple[str, ...] = ()
    remembered: bool = False


@dataclass(frozen=True)
class Trial:
    """One kernel with one set of extensions, and what came of it.

    ``reports`` has one for each guest that ran the selftests on the patched
    kernel. ``notes`` are worth a line but do not change the verdict.
    ``folder`` keeps the consoles and results of the run. ``red`` tells how
    the red was had: a verdict without any is about the green alone. ``image``
    is what the guests ran, None when it came to none; ``expression`` the ``-k``
    that chose among the selftests, if one did.
    """

    kernel: Kernel
    flavour: str
    arch: str
    cells: tuple[Cell, ...]
    series: RebasedSeries | None = None
    build: BuiltKernel | BuildFailure | None = None
    reports: tuple[SelftestReport, ...] = ()
    notes: tuple[str, ...] = ()
    folder: Path | None = None
    seconds: float = 0.0
    red: Red = Red.NONE
    image: GuestImage | None = None
    expression: str = ""

    @property
    def verdict(self) -> Verdict:
        """GOOD, BAD or SKIP over all cells."""
        return verdict_of(cell.state for cell in self.cells)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code this trial alone asks for."""
        return exit_code(cell.state for cell in self.cells)


@dataclass(frozen=True)
class BrokenOff:
    """What ended a run before its end: why in one line, and the kernels it left without a trial."""

    why: str
    exit_code: ExitCode
    not_judged: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the one line for each of those kernels."""
        return f"the run was broken off: {self.why}"


@dataclass(frozen=True)
class RunReport:
    """All trials of one command, oldest kernel first; what the reports render.

    ``started`` is local time in ISO 8601, ``seconds`` wall time, ``folder``
    where consoles and results are kept.
    """

    trials: tuple[Trial, ...]
    started: str = ""
    seconds: float = 0.0
    folder: Path | None = None
    broken_off: BrokenOff | None = None

    @property
    def exit_code(self) -> ExitCode:
        """The largest of its trials' exit codes; what broke the run off has the last word."""
        if self.broken_off is not None:
            return self.broken_off.exit_code
        return max((trial.exit_code for trial in self.trials), default=ExitCode.GOOD)

    @property
    def verdict(self) -> Verdict:
        """GOOD, BAD or SKIP over all trials; what was not judged is skipped, not good."""
        found = verdict_of(cell.state for trial in self.trials for cell in trial.cells)
        if self.broken_off is not None and found is Verdict.GOOD:
            return Verdict.SKIP
        return found


def exit_code(states: Iterable[CellState]) -> ExitCode:
    """Return the exit code of several cells: the largest, as this module's text says."""
    return max((state.exit_code for state in states), default=ExitCode.GOOD)


def verdict_of(states: Iterable[CellState]) -> Verdict:
    """Return BAD if anything is bad, else SKIP if anything could not be judged."""
    said = {state.verdict for state in states}
    for verdict in (Verdict.BAD, Verdict.SKIP):
        if verdict in said:
            return verdict
    return Verdict.GOOD
