# SPDX-License-Identifier: GPL-2.0-only
"""What past runs said: one value for each extension on each kernel that was judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from workbench import runs
from workbench.order import Red
from workbench.verdict import CellState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from workbench.paths import Paths


@dataclass(frozen=True)
class Judged:
    """One cell of a past run.

    ``tree`` is empty in reports older than that name. ``key`` names the
    build, ``state`` is a :class:`workbench.verdict.CellState`. ``with_red``
    tells that the proofs were held against a kernel without the patches,
    ``expression`` is the ``-k`` that chose among the selftests.
    ``beside`` are all extensions of the trial, ``when`` its start in ISO 8601.
    """

    extension: str
    kernel: str
    tree: str
    key: str
    flavour: str
    arch: str
    state: str
    with_red: bool
    beside: frozenset[str]
    when: str
    folder: Path
    expression: str = ""

    @property
    def is_green(self) -> bool:
        """Tell that every selftest passed, and every red that was asked for was red."""
        return self.state == CellState.GREEN

    @property
    def proves(self) -> bool:
        """Tell that it was green, and not for want of asking for the red, or all selftests."""
        return self.with_red and not self.expression and self.is_green


class _Cell(msgspec.Struct, frozen=True):
    extension: str
    state: str
    proofs: tuple[msgspec.Raw, ...] = ()


class _Build(msgspec.Struct, frozen=True):
    key: str = ""


class _Trial(msgspec.Struct, frozen=True):
    kernel: str
    flavour: str
    arch: str
    cells: tuple[_Cell, ...]
    tree: str = ""
    red: str | None = None
    expression: str = ""
    build: _Build | None = None


class _Report(msgspec.Struct, frozen=True):
    started: str
    trials: tuple[_Trial, ...]


def read(paths: Paths) -> tuple[Judged, ...]:
    """Return all that past runs judged, newest first; a report that cannot be read says nothing."""
    return tuple(judged for file in runs.reports(paths) for judged in _read(file))


def _read(file: Path) -> Iterator[Judged]:
    try:
        report = msgspec.json.decode(file.read_bytes(), type=_Report)
    except (OSError, msgspec.MsgspecError):
        return
    for trial in report.trials:
        with_red = _with_red(trial)
        for cell in trial.cells:
            yield Judged(
                extension=cell.extension,
                kernel=trial.kernel,
                tree=trial.tree,
                key=trial.build.key if trial.build is not None else "",
                flavour=trial.flavour,
                arch=trial.arch,
                state=cell.state,
                with_red=with_red,
                beside=frozenset(each.extension for each in trial.cells),
                when=report.started,
                folder=file.parent,
                expression=trial.expression,
            )


def _with_red(trial: _Trial) -> bool:
    """Tell whether the red was asked for; reports older than that name show it by their proofs."""
    if trial.red is None:
        return any(cell.proofs for cell in trial.cells)
    return trial.red != Red.NONE
