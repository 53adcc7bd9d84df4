# SPDX-License-Identifier: GPL-2.0-only
"""The verdict for a person: one matrix, and below it why a cell is not green."""

from __future__ import annotations

import io
import re
from typing import IO, TYPE_CHECKING, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workbench.order import Red
from workbench.printable import safe
from workbench.prove import ProofState
from workbench.verdict import CellState

if TYPE_CHECKING:
    from workbench.verdict import Cell, Reason, RunReport, Trial

# A pipe has no width: nothing is folded there, so that a line can be searched for.
_PIPE_WIDTH: Final = 240
_QUOTED: Final = 16
_PICTURE_WIDTH: Final = 100
_VERB: Final = {Red.NONE: "test", Red.REMEMBERED: "run", Red.ANEW: "prove"}
_STYLE: Final = {
    CellState.GREEN: "green",
    CellState.RED: "bold red",
    CellState.UNPROVEN: "bold yellow",
    CellState.CONFLICT: "bold magenta",
    CellState.BUILD: "bold magenta",
    CellState.CRASH: "bold white on red",
    CellState.LOST: "yellow",
}


def show(report: RunReport, stream: IO[str]) -> None:
    """Print matrix, reasons and the verdict; colours only on a terminal that wants them."""
    _print(console_for(stream), report)


def render_svg(report: RunReport) -> str:
    """Return the same as a picture; it loads nothing from anywhere, fonts included."""
    console = Console(
        file=io.StringIO(), record=True, width=_PICTURE_WIDTH, highlight=False, force_terminal=True
    )
    _print(console, report)
    # A run that was broken off before its first trial has none to ask.
    red = report.trials[0].red if report.trials else Red.REMEMBERED
    picture = console.export_svg(title=f"tools/kpw {_VERB[red]}", unique_id="kpw")
    return re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)


def _print(console: Console, report: RunReport) -> None:
    if report.trials:
        console.print(matrix(report))
    for trial in report.trials:
        _show_reasons(console, trial)
    for trial in report.trials:
        for note in trial.notes:
            line = f"note: {trial.kernel.name}: {safe(note)}"
            console.print(line, soft_wrap=True, markup=False)
    if report.broken_off is not None:
        names = ", ".join(report.broken_off.not_judged)
        head = f"not judged: {names}: " if names else ""
        console.print(Text(head + safe(str(report.broken_off)), style="bold red"), soft_wrap=True)
    console.print(_summary(report), soft_wrap=True)


def console_for(stream: IO[str]) -> Console:
    """Return a console that does not fold lines when nobody looks; it respects NO_COLOR."""
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, emoji=False, markup=False)


def matrix(report: RunReport) -> Table:
    """Return extension x kernel, in the order of the series."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("extension")
    rows: dict[str, dict[int, Cell]] = {}
    for column, trial in enumerate(report.trials):
        flavour = "" if trial.flavour == "plain" else f" {trial.flavour}"
        table.add_column(trial.kernel.name + flavour)
        for cell in trial.cells:
            rows.setdefault(cell.extension, {})[column] = cell
    for extension, cells in rows.items():
        texts = (_cell_text(cells.get(column)) for column in range(len(report.trials)))
        table.add_row(extension, *texts)
    return table


def _cell_text(cell: Cell | None) -> Text:
    if cell is None:
        return Text("-")
    passed = sum(test.outcome == "passed" for test in cell.tests)
    total = len(cell.tests) + len(cell.lost)
    count = f" {passed}/{total}" if total else ""
    text = Text(f"{cell.state}{count}", style=_STYLE[cell.state])
    if detail := _red_text(cell):
        text.append(f"\n{detail}", style="not bold dim default on default")
    return text


def _red_text(cell: Cell) -> str:
    if cell.upstream and cell.tests:
        return "upstream"
    if not cell.proofs:
        return ""
    proven = sum(proof.state is ProofState.RED for proof in cell.proofs)
    remembered = " (remembered)" if cell.remembered else ""
    return f"red {proven}/{len(cell.proofs)}{remembered}"


def _show_reasons(console: Console, trial: Trial) -> None:
    # A kernel-wide reason stands in every cell, and is told once.
    told: dict[Reason, list[Cell]] = {}
    for cell in trial.cells:
        for reason in cell.reasons:
            told.setdefault(reason, []).append(cell)
    quoted: set[str] = set()
    for reason, cells in told.items():
        everywhere = len(cells) == len(trial.cells) > 1
        who = "every extension" if everywhere else ", ".join(cell.extension for cell in cells)
        line = Text(f"{who} on {trial.kernel.name}: ", style=_STYLE[cells[0].state])
        line.append(safe(str(reason)), style="not bold default on default")
        console.print(line, soft_wrap=True)
        if reason.excerpt not in quoted:
            quoted.add(reason.excerpt)
            for quote in reason.excerpt.splitlines()[:_QUOTED]:
                console.print(Text(f"    | {safe(quote)}", style="dim"), soft_wrap=True)


def _summary(report: RunReport) -> Text:
    code = report.exit_code
    text = Text("verdict: ")
    text.append(report.verdict.upper(), style="bold green" if code == 0 else "bold red")
    text.append(f" (exit code {int(code)}), {report.seconds:.1f} s")
    if report.folder is not None:
        text.append(f", kept in {report.folder}")
    return text
