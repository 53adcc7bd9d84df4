# SPDX-License-Identifier: GPL-2.0-only
"""What 'kpw lint' has to say of one patch on one kernel: a result for each gate."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from workbench.errors import ExitCode

if TYPE_CHECKING:
    from workbench.model import Kernel

CHECKPATCH: Final = "checkpatch"
BUILDS: Final = "builds"
WARNINGS: Final = "W=1"
SPARSE: Final = "sparse"
COMPILED: Final = (BUILDS, WARNINGS, SPARSE)
"""The gates that need each patch compiled by itself; a variant's gate has its file's name."""


class GateState(StrEnum):
    """How a patch came through a gate."""

    OK = "ok"
    FOUND = "found"
    BROKEN = "broken"
    CONFLICT = "conflict"
    EXEMPT = "not applicable"
    NOTHING = "-"


_CODES: Final = {
    GateState.FOUND: ExitCode.RED,
    GateState.BROKEN: ExitCode.BUILD,
    GateState.CONFLICT: ExitCode.CONFLICT,
}


@dataclass(frozen=True)
class Finding:
    """One thing a gate found; ``line`` is 1-based, 0 when it has none."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        """Return it as compilers write it."""
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {self.text}" if place else self.text


@dataclass(frozen=True)
class GateResult:
    """One gate for one patch: ``detail`` is one line, ``excerpt`` quotes what make said."""

    gate: str
    state: GateState
    detail: str = ""
    findings: tuple[Finding, ...] = ()
    excerpt: str = ""


@dataclass(frozen=True)
class PatchLint:
    """One patch: ``patch`` is its name in its extension, one result for each gate."""

    extension: str
    patch: str
    results: tuple[GateResult, ...]


@dataclass(frozen=True)
class KernelLint:
    """All patches on one kernel, in the order of the series.

    ``gates`` are the columns; ``upstream`` the extensions that need no patch
    here. ``cached`` counts the results that were known before.
    """

    kernel: Kernel
    gates: tuple[str, ...]
    patches: tuple[PatchLint, ...]
    upstream: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    cached: int = 0
    seconds: float = 0.0

    @property
    def exit_code(self) -> ExitCode:
        """The most severe of all results."""
        results = (result for patch in self.patches for result in patch.results)
        return max((_CODES.get(result.state, ExitCode.GOOD) for result in results), default=_GOOD)


_GOOD: Final = ExitCode.GOOD
