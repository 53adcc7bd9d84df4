# SPDX-License-Identifier: GPL-2.0-only
"""What the gates found: a matrix or plain lines for a person, JSON for a program."""

from __future__ import annotations

from collections import Counter
from typing import IO, TYPE_CHECKING, Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from workbench.gates import GateState
from workbench.printable import safe
from workbench.report_terminal import console_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from workbench.gates import GateResult, KernelLint, PatchLint

# Raised when a name changes its meaning; a new name does not raise it.
VERSION: Final = 1
_STYLE: Final = {
    GateState.OK: "green",
    GateState.FOUND: "bold red",
    GateState.BROKEN: "bold magenta",
    GateState.CONFLICT: "bold magenta",
    GateState.EXEMPT: "blue",
    GateState.NOTHING: "dim",
}
_BAD: Final = (GateState.FOUND, GateState.BROKEN)
_QUOTED: Final = 16
_SHOWN: Final = 30


def as_data(kernels: Sequence[KernelLint], exit_code: int) -> dict[str, Any]:
    """Return the document as plain lists and dictionaries; times in seconds."""
    return {"kpw": VERSION, "exit_code": exit_code, "kernels": [_kernel(each) for each in kernels]}


def show(kernels: Sequence[KernelLint], stream: IO[str]) -> None:
    """Print a table a kernel, or a line for each patch and gate when nobody looks; then why."""
    console = console_for(stream)
    for kernel in kernels:
        if console.is_terminal:
            console.print(_table(kernel))
        else:
            _show_lines(console, kernel)
        for patch in kernel.patches:
            _show_reasons(console, kernel, patch)
        for note in kernel.notes:
            console.print(f"note: {kernel.kernel.name}: {note}", soft_wrap=True)
        console.print(_summary(kernel), soft_wrap=True)


def _kernel(lint: KernelLint) -> dict[str, Any]:
    return {
        "kernel": lint.kernel.name,
        "tag": str(lint.kernel.tag),
        "exit_code": int(lint.exit_code),
        "seconds": round(lint.seconds, 2),
        "cached": lint.cached,
        "upstream": list(lint.upstream),
        "notes": list(lint.notes),
        "patches": [
            {
                "extension": patch.extension,
                "patch": patch.patch,
                "gates": [_result(result) for result in patch.results],
            }
            for patch in lint.patches
        ],
    }


def _result(result: GateResult) -> dict[str, Any]:
    return {
        "gate": result.gate,
        "state": str(result.state),
        "detail": result.detail,
        "findings": [
            {"path": each.path, "line": each.line, "text": each.text} for each in result.findings
        ],
        "excerpt": result.excerpt,
    }


def _table(lint: KernelLint) -> Table:
    title = f"{lint.kernel.name} ({lint.kernel.origin})"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("extension", "patch", *lint.gates):
        table.add_column(heading, overflow="fold")
    for patch in lint.patches:
        cells = (Text(result.state, style=_STYLE[result.state]) for result in patch.results)
        table.add_row(patch.extension, _number(patch.patch), *cells)
    for name in lint.upstream:
        table.add_row(name, "no patch")
    return table


def _number(patch: str) -> str:
    """Return ``since-v6.1/0001`` of a patch's name: enough beside so many columns."""
    folder, slash, name = patch.rpartition("/")
    return f"{folder}{slash}{name.partition('-')[0]}"


def _show_lines(console: Console, lint: KernelLint) -> None:
    for patch in lint.patches:
        for result in patch.results:
            parts = (patch.extension, patch.patch, result.gate, result.state, result.detail)
            line = " | ".join(part for part in map(safe, parts) if part)
            console.print(f"{lint.kernel.name}: {line}", soft_wrap=True)
    for name in lint.upstream:
        console.print(f"{lint.kernel.name}: {name} | no patch", soft_wrap=True)


def _show_reasons(console: Console, lint: KernelLint, patch: PatchLint) -> None:
    place = f"{patch.extension}/{patch.patch} on {lint.kernel.name}"
    for result in patch.results:
        if result.state in _BAD:
            head = Text(f"\n{place}, {result.gate}: ", style=_STYLE[result.state])
            head.append(safe(result.detail), style="not bold default on default")
            console.print(head, soft_wrap=True)
            for finding in result.findings[:_SHOWN]:
                console.print(f"  {safe(str(finding))}", soft_wrap=True)
            if (more := len(result.findings) - _SHOWN) > 0:
                console.print(f"  ... {more} more (--json has them all)", soft_wrap=True)
            for quote in result.excerpt.splitlines()[:_QUOTED]:
                console.print(Text(f"    | {safe(quote)}", style="dim"), soft_wrap=True)
    states = Counter(result.state for result in patch.results)
    if states[GateState.CONFLICT]:
        console.print(f"\n{place}: {safe(patch.results[0].detail)}", soft_wrap=True)
    elif console.is_terminal:
        for result in patch.results:
            if result.state is GateState.EXEMPT:
                reason = f"{place}: {result.gate} is not applicable: {safe(result.detail)}"
                console.print(reason, soft_wrap=True)


def _summary(lint: KernelLint) -> Text:
    counts = Counter(str(result.state) for patch in lint.patches for result in patch.results)
    told = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no patch needed"
    known = f", {lint.cached} known before" if lint.cached else ""
    text = Text(f"{lint.kernel.name}: ")
    code = lint.exit_code
    word, style = ("clean", "bold green") if code == 0 else ("not clean", "bold red")
    text.append(word, style=style)
    text.append(f" ({told}{known}), {lint.seconds:.1f} s")
    return text
