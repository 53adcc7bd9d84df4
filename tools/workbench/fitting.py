# SPDX-License-Identifier: GPL-2.0-only
"""As much of the series as fits a kernel: what does not apply goes, and what requires it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench import judge
from workbench.verdict import Cell, CellState, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workbench.declared import Extension
    from workbench.model import PatchOutcome, RebasedSeries


@dataclass(frozen=True)
class Fit:
    """What is left: ``series`` holds ``kept`` alone, but has the outcomes of all patches.

    ``refused`` has a cell with the reasons for each extension that went.
    """

    series: RebasedSeries
    kept: tuple[Extension, ...]
    refused: tuple[Cell, ...] = ()


def fit(
    extensions: Sequence[Extension], port: Callable[[Sequence[Extension]], RebasedSeries]
) -> Fit:
    """Port the series, and again without what did not apply, until all of it does."""
    kept, refused = tuple(extensions), tuple[Cell, ...]()
    outcomes: tuple[PatchOutcome, ...] = ()
    while True:
        series = port(kept)
        failed = tuple(outcome for outcome in series.outcomes if not outcome.state.applies)
        if not failed:
            return Fit(replace(series, outcomes=outcomes + series.outcomes), kept, refused)
        out = _refusals(kept, failed)
        refused += tuple(out.values())
        outcomes += tuple(each for each in series.outcomes if each.extension in out)
        kept = tuple(extension for extension in kept if extension.name not in out)


def _refusals(kept: Sequence[Extension], failed: Sequence[PatchOutcome]) -> dict[str, Cell]:
    """Return a cell for each extension that cannot stay, by name, in the series' order."""
    out: dict[str, Cell] = {}
    for extension in kept:
        reasons = tuple(
            judge.conflict_reason(outcome)
            for outcome in failed
            if outcome.extension == extension.name
        )
        if not reasons:
            reasons = tuple(
                Reason(f"it requires {name}, which does not apply")
                for name in extension.requires
                if name in out
            )
        if reasons:
            out[extension.name] = Cell(extension.name, CellState.CONFLICT, reasons)
    return out
