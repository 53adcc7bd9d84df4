# SPDX-License-Identifier: GPL-2.0-only
"""Trials as one HTML page that needs nothing but itself: no network, no script, no font.

It is made from the documents of :mod:`workbench.report_json`, so a run of last
week and the one that has just ended give the same page. What came out of a
guest or a patch is text: the template escapes all of it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import UsageError
from workbench.explained import HunkState
from workbench.model import KernelTag, PatchState
from workbench.options import DEFAULT_ARCH, DEFAULT_FLAVOUR
from workbench.prove import ProofState
from workbench.tested import Weight
from workbench.verdict import CellState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import jinja2

_TEMPLATE: Final = Path(__file__).with_name("report.html.j2")
_CONSOLE_TAIL: Final = 64 << 10
_Key = tuple[KernelTag, str, str, str]
_USUAL: Final = (DEFAULT_FLAVOUR, DEFAULT_ARCH)


@dataclass(frozen=True)
class KeptTrial:
    """A trial as report_json tells it; ``started`` is when its run began (ISO 8601).

    ``broken_off`` says what ended its run before its end, if something did.
    """

    started: str
    data: Mapping[str, Any]
    broken_off: str = ""

    @property
    def column(self) -> tuple[KernelTag, str, str, str]:
        """What it is a trial of: release, kernel, flavour, architecture; in display order."""
        data = self.data
        return KernelTag.parse(data["tag"]), data["kernel"], data["flavour"], data["arch"]

    @property
    def anchor(self) -> str:
        """The name of its part of the page."""
        digits = "".join(char for char in self.started if char.isalnum())
        return "-".join((*self.column[1:], digits))

    @property
    def tree(self) -> str:
        """The tree that was tried, or what stands for it in reports older than that name."""
        commits = [patch["commit"] for patch in self.data["patches"] if patch["commit"]]
        return str(self.data.get("tree") or (commits[-1] if commits else ""))

    @property
    def expression(self) -> str:
        """The ``-k`` that chose among its selftests; reports older than that name had none."""
        return str(self.data.get("expression", ""))

    @property
    def beside(self) -> frozenset[str]:
        """All extensions that were tried together."""
        named = {patch["extension"] for patch in self.data["patches"]}
        return frozenset(named | {cell["extension"] for cell in self.data["cells"]})

    def patches_of(self, cell: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the patches of a cell's extension that there is something to tell of."""
        return [
            patch
            for patch in self.data["patches"]
            if patch["extension"] == cell["extension"]
            and (patch["conflicts"] or not PatchState(patch["state"]).applies)
        ]

    @property
    def guests(self) -> Iterator[tuple[Mapping[str, Any], str]]:
        """Every guest with the end of what its console said, "" when that is not kept."""
        for guest in self.data["guests"]:
            yield guest, _tail(guest["console"])


@dataclass(frozen=True)
class KeptCell:
    """A cell of the matrix, and the trial it is from.

    ``is_older`` tells that the same extensions were tried since in another tree.
    """

    trial: KeptTrial
    data: Mapping[str, Any]
    is_older: bool = False

    @property
    def anchor(self) -> str:
        """The name of its part of the page."""
        return f"{self.trial.anchor}-{self.data['extension']}"

    @property
    def weight(self) -> Weight:
        """What makes it count for more than another."""
        return Weight(
            green=self.data["state"] == CellState.GREEN,
            whole=not self.trial.expression,
            decided=bool(self.data["proofs"]) or self.data["upstream"],
        )


@dataclass(frozen=True)
class Column:
    """A kernel in one flavour: its cells by extension."""

    title: str
    cells: Mapping[str, KeptCell]

    @property
    def trials(self) -> tuple[KeptTrial, ...]:
        """The trials its cells are from, newest first."""
        found = {cell.trial.anchor: cell.trial for cell in self.cells.values()}
        return tuple(sorted(found.values(), key=lambda trial: trial.started, reverse=True))


def columns(reports: Iterable[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Return every kernel and flavour that was tried, oldest kernel first.

    Of an extension there the newest cell that proves or refutes it counts, else
    the newest: a few tests run by hand do not hide what was proven before.
    """
    found: dict[_Key, dict[str, KeptCell]] = {}
    newest: dict[tuple[_Key, frozenset[str]], str] = {}
    for report in sorted(reports, key=lambda each: str(each["started"])):
        for data in report["trials"]:
            trial = KeptTrial(report["started"], data, _broken_off(report))
            cells = found.setdefault(trial.column, {})
            newest[trial.column, trial.beside] = trial.tree
            for cell in (KeptCell(trial, each) for each in data["cells"]):
                known = cells.get(cell.data["extension"])
                if known is None or cell.weight.outweighs(known.weight):
                    cells[cell.data["extension"]] = cell
    for key, cells in found.items():
        for name, cell in cells.items():
            tree = newest[key, cell.trial.beside]
            cells[name] = replace(cell, is_older=cell.trial.tree != tree)
    return tuple(Column(_title(key), found[key]) for key in sorted(found))


def _broken_off(report: Mapping[str, Any]) -> str:
    """Say why a run was broken off and which kernels it left; reports may be older than that."""
    found = report.get("broken_off")
    if not found:
        return ""
    left = ", ".join(found["not_judged"])
    why = f"{found['why']} (exit code {report['exit_code']})."
    return f"{why} Not judged: {left}." if left else why


def fault(report: Mapping[str, Any]) -> str:
    """Say why a report cannot be shown; empty when it can."""
    import jinja2

    try:
        render(columns([report]))
    except (LookupError, TypeError, ValueError, AttributeError, jinja2.TemplateError) as error:
        return f"{type(error).__name__}: {error}"
    except UsageError as error:
        return error.what
    return ""


def render(found: Sequence[Column]) -> str:
    """Return the page: the matrix, and what each of its cells rests on."""
    # The series' order is that of a trial of all of it.
    trials = [trial.data for column in found for trial in column.trials]
    trials.sort(key=lambda data: len(data["cells"]), reverse=True)
    names = dict.fromkeys(cell["extension"] for data in trials for cell in data["cells"])
    made = time.strftime("%Y-%m-%d %H:%M")
    return _template().render(columns=found, extensions=tuple(names), made=made)


def _title(key: _Key) -> str:
    _, kernel, flavour, arch = key
    beside = (name for name in (flavour, arch) if name not in _USUAL)
    return " ".join((kernel, *beside))


def in_short(cell: Mapping[str, Any]) -> str:
    """Return what stands in a cell of the matrix below its state."""
    tests = cell["tests"]
    total = len(tests) + len(cell["lost"])
    passed = sum(test["outcome"] == "passed" for test in tests)
    parts = [f"{passed}/{total}"] if total else []
    if cell["upstream"] and tests:
        parts.append("upstream")
    elif cell["proofs"]:
        proven = sum(proof["state"] == ProofState.RED for proof in cell["proofs"])
        parts.append(f"red {proven}/{len(cell['proofs'])}")
    return ", ".join(parts)


@cache
def _template() -> jinja2.Template:
    # It takes 0.1 s to import, which no other verb shall pay.
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["in_short"] = in_short
    environment.filters["printable"] = _printable
    environment.filters["proofs"] = _proofs
    environment.filters["hunks"] = _hunks
    environment.filters["dependents"] = _dependents
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def _proofs(cell: Mapping[str, Any]) -> Mapping[str, Any]:
    return {proof["nodeid"]: proof for proof in cell["proofs"]}


def _hunks(patch: Mapping[str, Any]) -> list[str]:
    """Say which hunks of a patch are in a state, by their lines in the patch file."""
    # Reports older than that name do not tell.
    hunks = patch.get("hunks", [])
    told = []
    for state in HunkState:
        own = [hunk for hunk in hunks if hunk["state"] == state]
        lines = ", ".join(f"{hunk['path']} @{hunk['patch_line']}" for hunk in own)
        told += [f"{len(own)} of {len(hunks)} {state}: {lines}"] if own else []
    return told


def _dependents(patch: Mapping[str, Any]) -> list[str]:
    return [
        f"{each['extension']}/{each['patch']} ({each['how']})"
        for each in patch.get("needed_by", [])
    ]


def _printable(text: str) -> str:
    """Show control characters, which HTML has no way to say, as what they are not."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def _tail(name: str) -> str:
    if not name:
        return ""
    try:
        with Path(name).open("rb") as file:
            file.seek(max(0, Path(name).stat().st_size - _CONSOLE_TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
