# SPDX-License-Identifier: GPL-2.0-only
"""Where the series stands: one matrix for a person, plain lines for a pipe, and JSON."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from workbench.printable import safe
from workbench.report_terminal import console_for
from workbench.status import Applies, Builds, Proven

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from workbench.history import Judged
    from workbench.status import Build, KernelStatus, Standing

# Raised when a name changes its meaning; a new name does not raise it.
VERSION: Final = 1
_SHORT: Final = 12
_APPLIES_STYLE: Final = {
    Applies.REMEMBERED: "bold yellow",
    Applies.CONFLICT: "bold magenta",
    Applies.UNKNOWN: "dim",
}
_PROVEN_STYLE: Final = {
    Proven.PROVEN: "green",
    Proven.NOT_GREEN: "bold red",
    Proven.OLDER: "yellow",
    Proven.PART: "yellow",
    Proven.NEVER: "dim",
}
_BUILD_STYLE: Final = {Builds.BUILT: "green", Builds.FAILED: "bold red"}


def as_data(kernels: Sequence[KernelStatus], exit_code: int) -> dict[str, Any]:
    """Return the document as plain lists and dictionaries; times in ISO 8601."""
    return {
        "kpw": VERSION,
        "exit_code": exit_code,
        "kernels": [_kernel_data(each) for each in kernels],
    }


def show(kernels: Sequence[KernelStatus], stream: IO[str]) -> None:
    """Print the matrix, or a line a cell when nobody looks; then what is wrong, and the sum."""
    console = console_for(stream)
    if console.is_terminal:
        console.print(_table(kernels))
        for kernel in kernels:
            _show_notes(console, kernel)
    else:
        for kernel in kernels:
            for line in _lines(kernel):
                console.print(safe(line), soft_wrap=True)
    cells = [each for kernel in kernels for each in kernel.standings]
    proven = sum(each.proven is Proven.PROVEN for each in cells)
    console.print(f"{proven} of {len(cells)} proven on the present trees", soft_wrap=True)


def _kernel_data(status: KernelStatus) -> dict[str, Any]:
    series = status.series
    return {
        "kernel": status.name,
        "here": series is not None,
        "note": status.note,
        "ref": series.ref if series is not None else "",
        "commit": series.commit if series is not None else "",
        "tree": series.tree if series is not None else "",
        "build": {
            "state": str(status.build.state),
            "key": status.build.key,
            "when": status.build.when,
            "reason": status.build.reason,
        },
        "proven": status.is_proven,
        "extensions": [_standing_data(each) for each in status.standings],
    }


def _standing_data(standing: Standing) -> dict[str, Any]:
    judged = standing.judged
    return {
        "extension": standing.extension,
        "applies": str(standing.applies),
        "detail": standing.detail,
        "proven": str(standing.proven),
        "run": None if judged is None else _run_data(judged, same_build=standing.same_build),
    }


def _run_data(judged: Judged, *, same_build: bool) -> dict[str, Any]:
    return {
        "state": judged.state,
        "when": judged.when,
        "tree": judged.tree,
        "build": judged.key,
        "same_build": same_build,
        "folder": str(judged.folder),
    }


def _table(kernels: Sequence[KernelStatus]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for kernel in kernels:
        table.add_column(kernel.name, overflow="fold")
    trees = (Text(each.series.tree[:_SHORT] if each.series else "-") for each in kernels)
    table.add_row("tree", *trees)
    table.add_row("build", *(_build_text(each.build) for each in kernels), end_section=True)
    for row in zip(*(each.standings for each in kernels), strict=True):
        table.add_row(row[0].extension, *(_cell_text(each) for each in row))
    return table


def _build_text(build: Build) -> Text:
    return Text(f"{build.state}{_at(build.when)}", style=_BUILD_STYLE.get(build.state, "dim"))


def _cell_text(standing: Standing) -> Text:
    text = Text(str(standing.applies), style=_APPLIES_STYLE.get(standing.applies, "default"))
    if standing.applies is Applies.UNKNOWN:
        return text
    when = _at(standing.judged.when) if standing.judged is not None else ""
    style = f"not bold {_PROVEN_STYLE[standing.proven]}"
    return text.append(f"\n{_proven(standing)}{when}", style=style)


def _proven(standing: Standing) -> str:
    """Say how it is proven; where the newest word is not green, that word."""
    judged = standing.judged
    if standing.proven is Proven.NOT_GREEN and judged is not None:
        return judged.state
    if standing.proven is Proven.PROVEN and not standing.same_build:
        return "proven (other configuration)"
    return str(standing.proven)


def _other_tree(judged: Judged, tree: str) -> str:
    return f"tree {judged.tree}" if judged.tree not in {"", tree} else ""


def _at(when: str) -> str:
    """Shorten an ISO time to month, day, hour and minute."""
    return f" {when[5:16].replace('T', ' ')}" if when else ""


def _show_notes(console: Console, kernel: KernelStatus) -> None:
    notes = [kernel.note, f"build failed: {kernel.build.reason}" if kernel.build.reason else ""]
    notes += [f"{each.extension}: {each.detail}" for each in kernel.standings if each.detail]
    for note in filter(None, notes):
        console.print(f"{kernel.name}: {safe(note)}", soft_wrap=True)


def _lines(kernel: KernelStatus) -> Iterator[str]:
    if kernel.series is None:
        yield f"{kernel.name}: {kernel.note}"
        return
    build = kernel.build
    told = (f"tree {kernel.series.tree}", f"{build.state} {build.when}".rstrip(), build.reason)
    yield f"{kernel.name}: {' | '.join(filter(None, told))}"
    for each in kernel.standings:
        parts = [each.extension, str(each.applies), each.detail, _proven(each)]
        if each.judged is not None:
            parts[-1] += f" {each.judged.when}"
            parts += [_other_tree(each.judged, kernel.series.tree), str(each.judged.folder)]
        yield f"{kernel.name}: {' | '.join(filter(None, parts))}"
