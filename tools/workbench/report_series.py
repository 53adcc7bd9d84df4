# SPDX-License-Identifier: GPL-2.0-only
"""What became of the patches: tables and conflicts for a person, JSON for a program."""

from __future__ import annotations

from collections import Counter
from typing import IO, TYPE_CHECKING, Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from workbench.explained import HunkState
from workbench.model import PatchState
from workbench.printable import safe
from workbench.report_terminal import console_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from workbench.explained import UpstreamWork
    from workbench.model import Conflict, PatchOutcome, RebasedSeries

# Raised when a name changes its meaning; a new name does not raise it.
VERSION: Final = 1
_STYLE: Final = {
    PatchState.CLEAN: "green",
    PatchState.OFFSET: "green",
    PatchState.THREE_WAY: "cyan",
    PatchState.REMEMBERED: "bold yellow",
    PatchState.UPSTREAM: "blue",
    PatchState.RESTORED: "green",
    PatchState.THERE: "blue",
    PatchState.OBSOLETE: "bold magenta",
    PatchState.CONFLICT: "bold red",
}
_MAX_LINES: Final = 40


def as_data(all_series: Sequence[RebasedSeries], exit_code: int) -> dict[str, Any]:
    """Return the document as plain lists and dictionaries."""
    kernels = [_series_data(series) for series in all_series]
    return {"kpw": VERSION, "exit_code": exit_code, "kernels": kernels}


def show(all_series: Sequence[RebasedSeries], stream: IO[str]) -> None:
    """Print a table per kernel, or plain lines when nobody looks; conflicts below."""
    console = console_for(stream)
    for series in all_series:
        if console.is_terminal:
            console.print(_table(series))
        else:
            for row in _rows(series):
                console.print(
                    f"{series.kernel.name}: {' | '.join(filter(None, row))}", soft_wrap=True
                )
        for outcome in series.outcomes:
            for conflict in outcome.conflicts:
                _show_conflict(console, series.kernel.name, outcome, conflict)
            _show_share(console, outcome)
        console.print(_summary(series), soft_wrap=True)


def _series_data(series: RebasedSeries) -> dict[str, Any]:
    return {
        "kernel": series.kernel.name,
        "tag": str(series.kernel.tag),
        "origin": series.kernel.origin,
        "base": series.kernel.commit,
        "extensions": list(series.extensions),
        "upstream": list(_upstream(series)),
        "applies": series.applies,
        "ref": series.ref,
        "commit": series.commit,
        "tree": series.tree,
        "patches": [outcome_data(outcome) for outcome in series.outcomes],
    }


def outcome_data(outcome: PatchOutcome) -> dict[str, Any]:
    """Return what became of one patch, whole."""
    return {
        "extension": outcome.extension,
        "patch": outcome.patch,
        "subject": outcome.subject,
        "state": str(outcome.state),
        "commit": outcome.commit or "",
        "offsets": list(outcome.offsets),
        "detail": outcome.detail,
        "conflicts": [conflict_data(conflict) for conflict in outcome.conflicts],
        "hunks": [
            {"path": hunk.path, "patch_line": hunk.line, "state": str(hunk.state)}
            for hunk in outcome.hunks
        ],
        "needed_by": [
            {
                "extension": each.extension,
                "patch": each.patch,
                "how": each.how,
                "paths": list(each.paths),
            }
            for each in outcome.needed_by
        ],
        "inferred_base": outcome.inferred_base,
    }


def conflict_data(conflict: Conflict) -> dict[str, Any]:
    """Return one conflict, whole."""
    return {
        "path": conflict.path,
        "line": conflict.line,
        "kind": conflict.kind,
        "upstream": conflict.upstream,
        "ours": conflict.ours,
        "context": conflict.context,
        "next_step": conflict.next_step,
        "base": conflict.base,
        "upstream_work": conflict.work and _work_data(conflict.work),
    }


def _work_data(work: UpstreamWork) -> dict[str, Any]:
    return {
        "since": work.since,
        "commits": [{"id": each.id, "subject": each.subject} for each in work.commits],
        "between": [{"older": older, "newer": newer} for older, newer in work.between],
    }


def _upstream(series: RebasedSeries) -> Iterator[str]:
    """Name the extensions nothing was applied for."""
    patched = {outcome.extension for outcome in series.outcomes}
    return (name for name in series.extensions if name not in patched)


def _rows(series: RebasedSeries) -> Iterator[tuple[str, str, str, str]]:
    for outcome in series.outcomes:
        yield outcome.extension, outcome.patch, str(outcome.state), _detail(outcome)
    for name in _upstream(series):
        yield name, "no patch", "upstream", ""


def _detail(outcome: PatchOutcome) -> str:
    if outcome.offsets:
        return "lines moved by " + ", ".join(f"{offset:+d}" for offset in outcome.offsets)
    return safe(outcome.detail)


def _table(series: RebasedSeries) -> Table:
    title = f"{series.kernel.name} ({series.kernel.origin})"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("extension", "patch", "state", ""):
        table.add_column(heading, overflow="fold")
    styles = [_STYLE[outcome.state] for outcome in series.outcomes]
    for number, (extension, patch, state, detail) in enumerate(_rows(series)):
        style = styles[number] if number < len(styles) else "blue"
        table.add_row(extension, patch, Text(state, style=style), detail)
    return table


def _show_conflict(console: Console, kernel: str, outcome: PatchOutcome, found: Conflict) -> None:
    place = f"{found.path}:{found.line}" if found.line else found.path
    head = f"\n{place}: {found.kind} ({outcome.extension}, {outcome.patch} on {kernel})"
    console.print(Text(head, style="bold"), soft_wrap=True)
    console.print(f"  intent: {safe(outcome.subject)}", soft_wrap=True, markup=False)
    versions = (
        ("what the patch was made on", found.base, "magenta"),
        ("upstream", found.upstream, "blue"),
        ("the patch", found.ours, "yellow"),
    )
    if any(text for _, text, _ in versions):
        for version in versions:
            _show_text(console, *version)
    if found.context:
        _show_text(console, "upstream, with what is around it", found.context, "default")
    for line in _work(found.work):
        console.print(f"  {safe(line)}", soft_wrap=True, markup=False)
    console.print(f"  next: {safe(found.next_step)}", soft_wrap=True)


def _show_text(console: Console, title: str, text: str, style: str) -> None:
    console.print(f"  {title}:{'' if text else ' (nothing)'}", soft_wrap=True)
    for line in _shortened(text):
        console.print(Text(f"    | {safe(line)}", style=style), soft_wrap=True)


def _work(work: UpstreamWork | None) -> Iterator[str]:
    """Say in a line each what upstream did at a place."""
    if work is None:
        return
    if work.commits:
        yield f"what upstream did there since {work.since}:"
    for commit in work.commits:
        yield f"  {commit.id} {commit.subject}"
    for older, newer in work.between:
        yield f"what upstream did there: changed between {older} and {newer}"


def _show_share(console: Console, outcome: PatchOutcome) -> None:
    """Print what concerns a patch that is left out as a whole."""
    if outcome.state.applies:
        return
    name = f"{outcome.extension}/{outcome.patch}"
    told = [f"hunks of {name}: {each}" for each in _by_state(outcome)]
    whys: dict[str, list[str]] = {}
    for each in outcome.needed_by:
        whys.setdefault(each.how, []).append(f"{each.extension}/{each.patch}")
    told += [f"depends on {name}: {', '.join(names)} ({how})" for how, names in whys.items()]
    for line in told:
        console.print(f"  {safe(line)}", soft_wrap=True, markup=False)


def _by_state(outcome: PatchOutcome) -> Iterator[str]:
    """Say which hunks are in a state, by their lines in the patch file."""
    for state in HunkState:
        files: dict[str, list[int]] = {}
        for hunk in outcome.hunks:
            if hunk.state is state:
                files.setdefault(hunk.path, []).append(hunk.line)
        where = (f"{path} @{',@'.join(map(str, lines))}" for path, lines in files.items())
        count = sum(map(len, files.values()))
        if count:
            yield f"{count} of {len(outcome.hunks)} {state}: {'; '.join(where)}"


def _shortened(text: str) -> list[str]:
    lines = text.split("\n")
    lines = lines[:-1] if not lines[-1] else lines
    if len(lines) <= _MAX_LINES:
        return lines
    return [*lines[:_MAX_LINES], f"... {len(lines) - _MAX_LINES} more lines (--json has them all)"]


def _summary(series: RebasedSeries) -> Text:
    counts = Counter(str(outcome.state) for outcome in series.outcomes)
    told = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no patch needed"
    text = Text(f"{series.kernel.name}: ")
    text.append("all apply" if series.applies else "not all apply", _style(series))
    text.append(f" ({told}); {series.ref} is {series.commit[:12]}")
    return text


def _style(series: RebasedSeries) -> str:
    return "bold green" if series.applies else "bold red"
