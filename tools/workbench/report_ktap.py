# SPDX-License-Identifier: GPL-2.0-only
"""The verdict as KTAP version 1: kernels, in them extensions, in them checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.checks import Check, CheckResult, checks, not_judged
from workbench.printable import safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.verdict import Cell, RunReport, Trial

_HEADER = "KTAP version 1"


def render(report: RunReport) -> str:
    """Return the whole document, with a line end."""
    trials = [_trial(trial) for trial in report.trials]
    lines = _document([*trials, *map(_check, not_judged(report))])
    return "\n".join(lines) + "\n"


# A result and the lines of its own document, which stand before it.
_Result = tuple[bool, str, list[str]]


def _document(
    results: Sequence[_Result], title: str = "", remarks: Sequence[str] = ()
) -> list[str]:
    lines = [_HEADER, *([f"# Subtest: {title}"] if title else []), f"1..{len(results)}"]
    lines += [f"# {_plain(remark)}" for remark in remarks]
    for number, (good, name, before) in enumerate(results, start=1):
        lines += [f"  {line}" for line in before]
        lines.append(f"{'ok' if good else 'not ok'} {number} {name}")
    return lines


def _trial(trial: Trial) -> _Result:
    cells = [_cell(cell) for cell in trial.cells]
    name = trial.kernel.name
    return all(good for good, *_ in cells), name, _document(cells, name)


def _cell(cell: Cell) -> _Result:
    good = cell.state.exit_code == 0
    results = [_check(check) for check in checks(cell)]
    remarks = [str(reason) for reason in cell.reasons]
    return good, cell.extension, _document(results, cell.extension, remarks)


def _check(check: Check) -> _Result:
    name = _plain(check.name)
    message = _plain(check.message)
    quoted = [f"# {safe(line)}" for line in check.excerpt.splitlines()]
    match check.result:
        case CheckResult.PASS:
            return True, name, []
        case CheckResult.SKIP:
            return True, f"{name} # SKIP {message}".rstrip(), []
        case CheckResult.FAIL:
            return False, name, [*([f"# {message}"] if message else []), *quoted]
        case CheckResult.ERROR:
            return False, f"{name} # ERROR {message}".rstrip(), quoted


def _plain(text: str) -> str:
    """Keep a text on one line, without the sign that starts a directive."""
    return safe(" ".join(text.replace("#", "\\#").split()))
