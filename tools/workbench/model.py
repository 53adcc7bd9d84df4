# SPDX-License-Identifier: GPL-2.0-only
"""The frozen values that flow through the pipeline; parsed once, at the door."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import total_ordering
from typing import TYPE_CHECKING

from workbench.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.explained import Dependent, HunkOutcome, UpstreamWork

_TAG = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:-rc(\d+))?")


@total_ordering
@dataclass(frozen=True)
class KernelTag:
    """A kernel release: ``v6.12`` (the series' first release), ``v6.12.107``, ``v7.2-rc3``.

    The order is for display (oldest first). It says nothing about what a
    tree contains: v6.12.107 is younger than v6.18. Ask :meth:`includes`.
    """

    major: int
    minor: int
    patch: int = 0
    rc: int | None = None

    @classmethod
    def parse(cls, text: str) -> KernelTag:
        """Parse ``v6.12.107`` or ``6.12.107``; UsageError says what a tag looks like."""
        match = _TAG.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text!r} is not a kernel tag",
                next_step="write it like v6.12.107 or v7.2-rc3 ('kpw kernels' lists them)",
            )
        major, minor, patch, rc = match.groups()
        return cls(int(major), int(minor), int(patch or 0), None if rc is None else int(rc))

    def __str__(self) -> str:
        """Return the tag as kernel git trees spell it."""
        return (
            f"v{self.major}.{self.minor}"
            + (f".{self.patch}" if self.patch else "")
            + (f"-rc{self.rc}" if self.rc is not None else "")
        )

    def __lt__(self, other: KernelTag) -> bool:
        """Order by release number, a release candidate before its release."""
        return self._key < other._key

    @property
    def _key(self) -> tuple[int, int, int, float]:
        rc = float("inf") if self.rc is None else self.rc
        return (self.major, self.minor, self.patch, rc)

    @property
    def series(self) -> str:
        """The release series, as in ``v6.12``."""
        return f"v{self.major}.{self.minor}"

    def includes(self, since: KernelTag) -> bool:
        """Tell whether what is said *since* a tag is said of this one.

        ``v6.12`` speaks for everything from 6.12 on; ``v6.12.90`` only for
        later 6.12.y, since stable trees are branches.
        """
        if since.patch:
            return self.series == since.series and self._key >= since._key
        return self._key >= since._key


@dataclass(frozen=True)
class Kernel:
    """One upstream tree in the store: what a trial starts from.

    ``name`` is how the user and every path spell it: the tag, or
    ``<tree-ish>`` made safe for a file name when it came from ``--repo``.
    ``tag`` is the release its Makefile names. ``origin`` says in one phrase
    where it came from, for the report.
    """

    name: str
    tag: KernelTag
    commit: str
    tree: str
    origin: str = ""


class PatchState(StrEnum):
    """What became of one patch on one kernel; RESTORED and THERE are a ``[[restore]]``'s.

    REMEMBERED conflicts, and is in because that conflict was resolved before.
    """

    CLEAN = "clean"
    OFFSET = "offset"
    THREE_WAY = "3-way"
    REMEMBERED = "remembered"
    UPSTREAM = "already upstream"
    RESTORED = "restored"
    THERE = "already there"
    OBSOLETE = "obsolete"
    CONFLICT = "conflict"

    @property
    def applies(self) -> bool:
        """Tell whether the patch is in the result (or need not be)."""
        return self not in {PatchState.OBSOLETE, PatchState.CONFLICT}


@dataclass(frozen=True)
class Conflict:
    """One region that could not be merged.

    ``line`` is 1-based in the upstream file (0 when the file has none).
    ``upstream``, ``ours`` and ``base`` are the region's text in three versions,
    the last what the patch was made on, ``context`` the upstream text around
    it, ``next_step`` what to do about it. ``work`` is what upstream did there.
    """

    path: str
    line: int
    kind: str
    upstream: str
    ours: str
    context: str
    next_step: str
    base: str = ""
    work: UpstreamWork | None = None


@dataclass(frozen=True)
class PatchOutcome:
    """One patch on one kernel: ``commit`` is its place in the result, if it has one.

    ``hunks`` are told of a patch that is left out or merged, ``needed_by`` of
    one that is left out. ``inferred_base`` is the imported tag it was merged
    from, when the blobs it names are unknown.
    """

    extension: str
    patch: str
    subject: str
    state: PatchState
    commit: str | None = None
    offsets: tuple[int, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    detail: str = ""
    hunks: tuple[HunkOutcome, ...] = ()
    needed_by: tuple[Dependent, ...] = ()
    inferred_base: str = ""


@dataclass(frozen=True)
class RebasedSeries:
    """The series on one kernel: commits in the store under ``ref``.

    ``commit`` and ``tree`` hold all patches that apply; equal to the
    kernel's own when there was none. ``extensions`` are those asked for, in
    the order they were applied, upstream ones included.
    """

    kernel: Kernel
    extensions: tuple[str, ...]
    outcomes: tuple[PatchOutcome, ...]
    commit: str
    tree: str
    ref: str

    @property
    def applies(self) -> bool:
        """Tell whether every patch is in."""
        return all(outcome.state.applies for outcome in self.outcomes)


@dataclass(frozen=True)
class UnmetSymbol:
    """A requested symbol that did not come out as asked, and why.

    ``fragment`` and ``line`` (1-based) say where it was requested.
    """

    symbol: str
    wanted: str
    got: str
    fragment: str
    line: int
    reason: str


@dataclass(frozen=True)
class ResolvedConfig:
    """A whole .config: ``digest`` is the sha256 of ``text``."""

    text: str
    digest: str
    unmet: tuple[UnmetSymbol, ...] = ()


@dataclass(frozen=True)
class BuiltKernel:
    """A finished build in the cache; ``key`` names its folder.

    ``seconds`` is what the build took when it was made; ``cached`` tells
    that this call did not build. ``modules`` are the files that can be loaded.
    """

    key: str
    kernel: Kernel
    tree: str
    flavour: str
    vmlinux: Path
    config: Path
    log: Path
    release: str
    seconds: float
    cached: bool
    modules: tuple[Path, ...] = ()


@dataclass(frozen=True)
class BuildFailure:
    """A build that did not come about.

    ``reason`` is one line: the first compiler error, or the first unmet
    symbol. ``excerpt`` quotes the log around it, ``log`` has all of it.
    """

    kernel: Kernel
    tree: str
    flavour: str
    reason: str
    excerpt: str = ""
    log: Path | None = None
    unmet: tuple[UnmetSymbol, ...] = ()


class SplatKind(StrEnum):
    """What can go wrong with a guest, most specific first."""

    PANIC = "panic"
    OOPS = "oops"
    BUG = "BUG"
    WARN = "WARN"
    KASAN = "KASAN"
    LOCKDEP = "lockdep"
    RCU_STALL = "RCU stall"
    HUNG_TASK = "hung task"
    OOM = "guest OOM"
    HANG = "silent hang"
    QEMU_DEATH = "QEMU death"


@dataclass(frozen=True)
class Splat:
    """Something the console (or its silence) said; ``excerpt`` quotes it.

    ``at_seconds`` counts from the start of QEMU. ``test`` is the selftest
    that was under way, where that is known.
    """

    kind: SplatKind
    line: str
    excerpt: str
    at_seconds: float
    test: str = ""


class TestKind(StrEnum):
    """What a selftest claims: a proof must fail without its extension."""

    __test__ = False
    PROOF = "proof"
    CONTROL = "control"


@dataclass(frozen=True)
class SelftestResult:
    """One selftest on one kernel.

    ``outcome`` is pytest's: passed, failed, skipped, or ``error`` for a
    failure in set-up or tear-down. ``red`` is the regular expression a proof
    expects its failure message to match without the extension. ``message``
    is the failure's own (a report shows its first line), ``detail`` its traceback
    and output.
    """

    extension: str
    nodeid: str
    kind: TestKind
    outcome: str
    red: str = ""
    message: str = ""
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class SelftestReport:
    """What one guest run said.

    ``collected`` counts the tests the guest announced; fewer results than
    that means the run was cut short and is never a pass. ``finished`` is
    true only when the guest said the session ended and powered off itself.
    ``boot`` are the words its kernel was booted with besides the usual ones;
    ``elsewhere`` are the tests it left to guests booted with others.
    ``accelerator`` says in one line what it ran under, and why.
    """

    results: tuple[SelftestResult, ...]
    collected: int
    finished: bool
    exit_status: int | None
    splats: tuple[Splat, ...]
    boot_seconds: float
    seconds: float
    console: Path | None = None
    lost: tuple[str, ...] = field(default=())
    boot: str = ""
    elsewhere: tuple[tuple[str, tuple[str, ...]], ...] = ()
    accelerator: str = ""
