# SPDX-License-Identifier: GPL-2.0-only
"""Where the series stands on each kernel: does it apply, is it built, is it proven.

Only what is recorded is told. The series is rebased (in the store); nothing
is built, booted or brought.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from workbench import build, fitting, history, kernelcache, kernelnames, rebase, tested
from workbench.errors import UsageError
from workbench.gitstore import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.declared import Extension
    from workbench.fitting import Fit
    from workbench.history import Judged
    from workbench.model import Kernel, KernelTag, RebasedSeries
    from workbench.paths import Paths
    from workbench.progress import Progress


class Applies(StrEnum):
    """Whether an extension is in the tree.

    REMEMBERED is so by a resolution that no selftest has confirmed yet.
    """

    APPLIES = "applies"
    REMEMBERED = "applies (remembered)"
    UPSTREAM = "upstream"
    NO_PATCH = "no patch"
    CONFLICT = "conflict"
    UNKNOWN = "unknown"


class Proven(StrEnum):
    """What past runs say of an extension on a kernel.

    PROVEN: of this tree. NOT_GREEN: the newest word on this tree is another.
    OLDER: the newest proof is of another tree of the same extensions. PART:
    it is of another set of extensions.
    """

    PROVEN = "proven"
    NOT_GREEN = "not green"
    OLDER = "older tree"
    PART = "other extensions"
    NEVER = "not proven"


class Builds(StrEnum):
    """Whether the kernel of a tree and its configuration is there."""

    BUILT = "built"
    FAILED = "build failed"
    NOT_BUILT = "not built"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Build:
    """The build of the present tree: ``when`` is ISO 8601, ``reason`` says why it failed."""

    state: Builds
    key: str = ""
    when: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Standing:
    """One extension on one kernel; ``judged`` is the past run that ``proven`` rests on.

    ``same_build`` tells that run had the present configuration and compiler too.
    """

    extension: str
    applies: Applies
    detail: str = ""
    proven: Proven = Proven.NEVER
    judged: Judged | None = None
    same_build: bool = False


@dataclass(frozen=True)
class KernelStatus:
    """One kernel: ``series`` None when it cannot be told without bringing a kernel.

    ``note`` then says which, and how.
    """

    name: str
    standings: tuple[Standing, ...]
    build: Build = Build(Builds.UNKNOWN)
    series: RebasedSeries | None = None
    note: str = ""

    @property
    def is_proven(self) -> bool:
        """Tell whether every extension is proven on the present tree."""
        return all(each.proven is Proven.PROVEN for each in self.standings)


@dataclass(frozen=True)
class Question:
    """What is asked about each kernel: which extensions, in which configuration."""

    extensions: tuple[Extension, ...]
    flavour: str
    arch: str


class _NotHereError(UsageError):
    """The rebase needs a kernel that is not in the store."""


def look(
    paths: Paths, names: Sequence[str], question: Question, progress: Progress
) -> tuple[KernelStatus, ...]:
    """Tell where the series stands on kernels, in their order.

    UsageError for a name that no source could know, a malformed patch, an
    unknown flavour or architecture.
    """
    kernels = [(name, kernelnames.here(paths, name)) for name in names]
    looking = _Look(paths, question, history.read(paths), progress)
    return tuple(
        looking.at(kernel) if kernel is not None else looking.away(name) for name, kernel in kernels
    )


@dataclass(frozen=True)
class _Look:
    """One look at several kernels; ``past`` is newest first."""

    paths: Paths
    question: Question
    past: tuple[Judged, ...]
    progress: Progress

    def away(self, name: str) -> KernelStatus:
        """Tell of a kernel that is not in the store."""
        name = str(kernelnames.parse(self.paths, name))
        return self._unknown(name, f"not here; 'kpw fetch {name}' brings it")

    def at(self, kernel: Kernel) -> KernelStatus:
        """Tell of a kernel in the store."""
        self.progress.step(f"{kernel.name}: rebase")
        try:
            fit = fitting.fit(self.question.extensions, lambda kept: self._ported(kernel, kept))
        except _NotHereError as fault:
            return self._unknown(kernel.name, str(fault))
        built = self._build(kernel, fit)
        standings = tuple(
            self._proven(self._applies(fit, each, kernel), kernel, fit, built)
            for each in self.question.extensions
        )
        return KernelStatus(kernel.name, standings, built, fit.series)

    def _unknown(self, name: str, note: str) -> KernelStatus:
        standings = (Standing(each.name, Applies.UNKNOWN) for each in self.question.extensions)
        return KernelStatus(name, tuple(standings), note=note)

    def _ported(self, kernel: Kernel, kept: Sequence[Extension]) -> RebasedSeries:
        def only_here(tag: KernelTag) -> Kernel:
            base = kernelnames.here(self.paths, str(tag))
            if base is None:
                raise _NotHereError(
                    f"the rebase needs {tag}, which is not here",
                    next_step=f"'kpw rebase {kernel.name}' brings it",
                )
            return base

        store = Store.open(self.paths)
        return rebase.rebase(self.paths, store, kernel, kept, obtain_base=only_here)

    def _build(self, kernel: Kernel, fit: Fit) -> Build:
        names = tuple(each.name for each in fit.kept)
        flavour, arch = self.question.flavour, self.question.arch
        request = build.BuildRequest(kernel, fit.series.tree, names, flavour, arch)
        key = build.kernel_key(self.paths, request)
        built = kernelcache.find(self.paths, key, kernel)
        if built is not None:
            return Build(Builds.BUILT, key, _iso(kernelcache.built_at(built)))
        failed = kernelcache.last_failure(self.paths, key)
        if failed is None:
            return Build(Builds.NOT_BUILT, key)
        failure, when = failed
        return Build(Builds.FAILED, key, _iso(when), failure.reason)

    def _proven(self, standing: Standing, kernel: Kernel, fit: Fit, built: Build) -> Standing:
        """Add what past runs say.

        A run without any red or of a few selftests proves nothing, but one that
        was not green takes an older proof back.
        """
        past = self._past(standing.extension, kernel)
        for judged in past if standing.applies is not Applies.CONFLICT else ():
            # A build's key holds the tree: reports that do not name the tree have the key.
            same_build = judged.key == built.key
            is_this = same_build or judged.tree == fit.series.tree
            if is_this and (judged.proves or not judged.is_green):
                proven = Proven.PROVEN if judged.proves else Proven.NOT_GREEN
                return replace(standing, proven=proven, judged=judged, same_build=same_build)
        older = next((each for each in past if each.proves), None)
        if older is None:
            return standing
        asked = {each.name for each in self.question.extensions}
        proven = Proven.OLDER if older.beside == asked else Proven.PART
        return replace(standing, proven=proven, judged=older)

    def _applies(self, fit: Fit, extension: Extension, kernel: Kernel) -> Standing:
        for cell in fit.refused:
            if cell.extension == extension.name:
                return Standing(extension.name, Applies.CONFLICT, str(cell.reasons[0]))
        if extension.is_upstream(kernel.tag):
            return Standing(extension.name, Applies.UPSTREAM)
        if all(each.extension != extension.name for each in fit.series.outcomes):
            return Standing(extension.name, Applies.NO_PATCH)
        is_open = extension.name in tested.unconfirmed(self.paths, fit.series)
        return Standing(extension.name, Applies.REMEMBERED if is_open else Applies.APPLIES)

    def _past(self, extension: str, kernel: Kernel) -> list[Judged]:
        wanted = (extension, kernel.name, self.question.flavour, self.question.arch)
        return [
            each
            for each in self.past
            if (each.extension, each.kernel, each.flavour, each.arch) == wanted
        ]


def _iso(seconds: float) -> str:
    """Write a time as reports of runs do: local, with the offset."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%dT%H:%M:%S%z")
