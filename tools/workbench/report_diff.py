# SPDX-License-Identifier: GPL-2.0-only
"""What differs between two rebased series: for a person, and as JSON."""

from __future__ import annotations

from collections import Counter
from typing import IO, TYPE_CHECKING, Any, Final

from rich.text import Text

from workbench import judge
from workbench.printable import safe
from workbench.rangediff import PairState
from workbench.report_terminal import console_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from workbench.model import PatchOutcome, RebasedSeries
    from workbench.rangediff import Pair

# Raised when a name changes its meaning; a new name does not raise it.
VERSION: Final = 1
_SIGN: Final = {
    PairState.SAME: "=",
    PairState.CHANGED: "!",
    PairState.ONLY_A: "<",
    PairState.ONLY_B: ">",
    PairState.NEITHER: "-",
}
_STYLE: Final = {
    PairState.SAME: "default",
    PairState.CHANGED: "yellow",
    PairState.ONLY_A: "red",
    PairState.ONLY_B: "green",
    PairState.NEITHER: "magenta",
}
# A line's first sign says which series has it, the second what the patch does with it.
_LINE_STYLE: Final = {"-": "red", "+": "green", "@": "cyan"}


def as_data(
    series: tuple[RebasedSeries, RebasedSeries], pairs: Sequence[Pair], exit_code: int
) -> dict[str, Any]:
    """Return the document as plain lists and dictionaries."""
    a, b = (_series_data(each) for each in series)
    return {
        "kpw": VERSION,
        "exit_code": exit_code,
        "a": a,
        "b": b,
        "pairs": [_pair_data(pair) for pair in pairs],
    }


def show(
    series: tuple[RebasedSeries, RebasedSeries], pairs: Sequence[Pair], stream: IO[str]
) -> None:
    """Print a line a patch, below it what differs, and conflicts and the sum at the end."""
    console = console_for(stream)
    for pair in pairs:
        _show_pair(console, series, pair)
    for kernel, side in _sides(series, pairs):
        if not side.state.applies:
            why = safe(str(judge.conflict_reason(side)))
            console.print(Text(f"{kernel}: {why}", style="bold red"), soft_wrap=True)
    counts = Counter(str(pair.state) for pair in pairs)
    told = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no patch"
    names = " and ".join(f"{each.kernel.name} ({each.commit[:12]})" for each in series)
    console.print(f"{names}: {told}", soft_wrap=True)


def _sides(
    series: tuple[RebasedSeries, RebasedSeries], pairs: Sequence[Pair]
) -> Iterator[tuple[str, PatchOutcome]]:
    """Yield every patch of both sides with its kernel's name."""
    for pair in pairs:
        for each, side in zip(series, (pair.a, pair.b), strict=True):
            if side is not None:
                yield each.kernel.name, side


def _series_data(series: RebasedSeries) -> dict[str, Any]:
    return {
        "kernel": series.kernel.name,
        "tag": str(series.kernel.tag),
        "base": series.kernel.commit,
        "commit": series.commit,
        "tree": series.tree,
        "ref": series.ref,
    }


def _pair_data(pair: Pair) -> dict[str, Any]:
    return {
        "extension": pair.extension,
        "patch": pair.outcome.patch,
        "subject": pair.outcome.subject,
        "state": str(pair.state),
        "a": _side_data(pair.a),
        "b": _side_data(pair.b),
        "text": pair.text,
    }


def _side_data(side: PatchOutcome | None) -> dict[str, Any] | None:
    if side is None:
        return None
    return {
        "patch": side.patch,
        "state": str(side.state),
        "commit": side.commit or "",
        "detail": side.detail,
    }


def _show_pair(console: Console, series: tuple[RebasedSeries, RebasedSeries], pair: Pair) -> None:
    line = f"{_SIGN[pair.state]} {pair.extension}/{pair.outcome.patch}: {_told(series, pair)}"
    if pair.a and pair.b and pair.a.patch != pair.b.patch:
        line += f" ({pair.a.patch} on {series[0].kernel.name})"
    console.print(Text(safe(line), style=_STYLE[pair.state]), soft_wrap=True)
    for text in pair.text.split("\n") if pair.text else ():
        console.print(_line(text), soft_wrap=True)


def _told(series: tuple[RebasedSeries, RebasedSeries], pair: Pair) -> str:
    """Say how the sides are to each other; where a patch is not in, why."""
    a, b = (each.kernel.name for each in series)
    match pair.state:
        case PairState.SAME:
            return "same"
        case PairState.CHANGED:
            return "changed"
        case PairState.ONLY_A:
            return f"only on {a}; {_absent(pair.b, b)}"
        case PairState.ONLY_B:
            return f"only on {b}; {_absent(pair.a, a)}"
        case PairState.NEITHER:
            return f"on neither; {_absent(pair.a, a)}, {_absent(pair.b, b)}"


def _absent(side: PatchOutcome | None, kernel: str) -> str:
    return f"no patch for {kernel}" if side is None else f"{side.state} on {kernel}"


def _line(text: str) -> Text:
    """Colour a line of the difference; ``## file ##`` heads what follows."""
    shown = safe(text)
    if text[1:4] == "## ":
        return Text(f"    {shown}", style="bold")
    return Text(f"    {shown}", style=_LINE_STYLE.get(text[:1], "default"))
