# SPDX-License-Identifier: GPL-2.0-only
"""One trial: a kernel, a set of extensions, a flavour, an architecture.

It runs through a visible tuple of steps over a frozen value. What a step
finds flows on: a conflict takes its extension (and those that require it)
out and the rest is judged; a build that failed leaves nothing to boot. What a
step raises is a fault of the machine or of the user's files, and ends it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from workbench import build, fitting, image, judge, rebase, selftest
from workbench import evidence as memory
from workbench.beside import Beside
from workbench.build import BuildRequest
from workbench.errors import UsageError
from workbench.model import BuildFailure, BuiltKernel, PatchState
from workbench.order import Red
from workbench.prove import Evidence
from workbench.reportlog import extension_of
from workbench.selection import Whole
from workbench.selftest import Lab, Selection
from workbench.verdict import Cell, CellState, Reason, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from workbench.declared import Extension
    from workbench.gitstore import Store
    from workbench.image import GuestImage
    from workbench.model import Kernel, RebasedSeries, SelftestReport, SelftestResult
    from workbench.paths import Paths
    from workbench.progress import Progress
    from workbench.suite import Suite

_Found = Mapping[str, Evidence]
# Of what an image has otherwise than its lock; --json has them all.
_CHANGES_TOLD: Final = 3


@dataclass(frozen=True)
class Plan:
    """What is to be tried, and the selftests as they were when it began."""

    kernel: Kernel
    extensions: tuple[Extension, ...]
    suite: Suite
    flavour: str
    arch: str
    red: Red = Red.REMEMBERED
    expression: str = ""
    snapshot: bool = False
    repo: Path | None = None


@dataclass(frozen=True)
class Bench:
    """What trials work with: ``loaded`` are all the extensions there are.

    ``on_result`` hears of every test on a patched kernel.
    """

    paths: Paths
    store: Store
    loaded: tuple[Extension, ...]
    progress: Progress
    folder: Path
    on_result: Callable[[SelftestResult], None]


@dataclass(frozen=True)
class Course:
    """How far a trial is: ``kept`` are the extensions still in it, ``refused`` the others.

    ``reddening`` becomes ``evidence`` when the guest without patches, which
    runs beside the patched build and its guest, is done.
    """

    plan: Plan
    beside: Beside
    kept: tuple[Extension, ...]
    refused: tuple[Cell, ...] = ()
    series: RebasedSeries | None = None
    image: GuestImage | None = None
    evidence: _Found = field(default_factory=dict)
    reddening: Future[_Found] | None = None
    built: BuiltKernel | BuildFailure | None = None
    reports: tuple[SelftestReport, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the extensions still in."""
        return tuple(extension.name for extension in self.kept)

    @property
    def lost(self) -> bool:
        """Tell that there is nothing left to judge."""
        return not self.kept or isinstance(self.built, BuildFailure)


def run_trial(bench: Bench, plan: Plan) -> Trial:
    """Run all steps and return what came of it; faults are raised."""
    since = time.monotonic()
    with Beside() as beside:
        course = Course(plan, beside, plan.extensions)
        for step in STEPS:
            if not course.lost:
                course = step(bench, course)
    return replace(_conclude(bench, course), seconds=time.monotonic() - since)


def rebased(bench: Bench, course: Course) -> Course:
    """Port the series; what does not apply goes, with all that requires it, and the rest stays."""
    kernel, repo = course.plan.kernel, course.plan.repo
    whole = Whole(bench.paths, bench.store, bench.loaded, bench.progress, repo)

    def port(kept: Sequence[Extension]) -> RebasedSeries:
        bench.progress.step(f"{kernel.name}: rebase")
        series = rebase.rebase(bench.paths, bench.store, kernel, kept, bench.progress, repo=repo)
        return whole.told(series)

    fit = fitting.fit(course.kept, port)
    notes = tuple(
        f"{each.extension}/{each.patch} is in {each.detail}"
        for each in fit.series.outcomes
        if each.state is PatchState.REMEMBERED
    )
    return replace(
        course,
        kept=fit.kept,
        refused=fit.refused,
        series=fit.series,
        notes=course.notes + notes,
    )


def imaged(bench: Bench, course: Course) -> Course:
    """Get the guest image."""
    arch = course.plan.arch
    found = image.ensure_image(bench.paths, bench.progress, arch)
    if not found.changes:
        return replace(course, image=found)
    more = len(found.changes) - _CHANGES_TOLD
    told = ", ".join(found.changes[:_CHANGES_TOLD]) + (f" and {more} more" if more > 0 else "")
    next_step = f"'kpw image --relock --arch {arch}' takes today's packages"
    note = f"the guest image is not of its lock: {told}; {next_step}"
    return replace(course, image=found, notes=(*course.notes, note))


def reddened(bench: Bench, course: Course) -> Course:
    """Begin the red: what the proofs say on this kernel without any patch.

    Its build comes before the patched one, so that the tree is switched once.
    """
    plan = course.plan
    names = tuple(each.name for each in course.kept if each.has_patches_for(plan.kernel.tag))
    if plan.red is Red.NONE or not names:
        return course
    request = _request(course, plan.kernel.tree)
    key = build.kernel_key(bench.paths, request)
    keys = {name: _evidence_key(bench, course, name, key) for name in names}
    found: dict[str, Evidence] = {}
    if plan.red is Red.REMEMBERED:
        recalled = {name: memory.recall(bench.paths, keys[name]) for name in names}
        found = {name: each for name, each in recalled.items() if each is not None}
    missing = tuple(name for name in names if name not in found)
    if not missing:
        return replace(course, evidence=found)
    bench.progress.step(f"{plan.kernel.name}: build without patches")
    built = build.build(bench.paths, bench.store, request, bench.progress)
    if isinstance(built, BuildFailure):
        note = "the build that failed is the one without any patch"
        return replace(course, built=built, notes=(*course.notes, note))
    place = bench.folder / f"{plan.kernel.name}-red"
    go_on = course.beside.go_on
    lab = Lab(bench.paths, _image(course), plan.arch, lambda _result: None, go_on=go_on)

    def ask_unpatched() -> _Found:
        reports = selftest.run_selftests(lab, built, Selection(plan.suite, missing), place)
        for name in missing:
            found[name] = _evidence_of(name, reports)
            memory.remember(bench.paths, keys[name], name, found[name])
        return found

    bench.progress.note(f"{plan.kernel.name}: selftests without patches (red) run from here on")
    return replace(course, reddening=course.beside.start(ask_unpatched))


def built(bench: Bench, course: Course) -> Course:
    """Build the patched kernel."""
    tree = course.plan.kernel.tree if course.series is None else course.series.tree
    bench.progress.step(f"{course.plan.kernel.name}: build")
    made = build.build(bench.paths, bench.store, _request(course, tree), bench.progress)
    return replace(course, built=made)


def tested(bench: Bench, course: Course) -> Course:
    """Run the selftests on the patched kernel."""
    plan = course.plan
    if not isinstance(course.built, BuiltKernel):
        return course
    bench.progress.step(f"{plan.kernel.name}: selftests")
    place = bench.folder / plan.kernel.name
    lab = Lab(bench.paths, _image(course), plan.arch, bench.on_result, plan.snapshot)
    selection = Selection(plan.suite, course.names, plan.expression)
    reports = selftest.run_selftests(lab, course.built, selection, place)
    return replace(course, reports=reports)


def compared(bench: Bench, course: Course) -> Course:
    """Wait for the red, so that the green can be held against it."""
    if course.reddening is None:
        return course
    bench.progress.step(f"{course.plan.kernel.name}: selftests without patches (red)")
    return replace(course, evidence=course.reddening.result())


STEPS = (rebased, imaged, reddened, built, tested, compared)


def _request(course: Course, tree: str) -> BuildRequest:
    plan = course.plan
    return BuildRequest(plan.kernel, tree, course.names, plan.flavour, plan.arch)


def _image(course: Course) -> GuestImage:
    if course.image is None:
        raise AssertionError("the image is a step before")
    return course.image


def _evidence_key(bench: Bench, course: Course, extension: str, kernel_key: str) -> str:
    paths, plan = bench.paths, course.plan
    machine = hashlib.sha256((paths.qemu / f"{plan.arch}.toml").read_bytes()).hexdigest()
    image_digest = _image(course).digest
    return memory.key_of(extension, kernel_key, image_digest, machine, plan.suite.digest(extension))


def _evidence_of(extension: str, reports: tuple[SelftestReport, ...]) -> Evidence:
    report = selftest.report_for(reports, extension)
    if report is None:
        return Evidence(())
    return Evidence(
        tuple(result for result in report.results if result.extension == extension),
        # One outside any test is everybody's.
        splats=tuple(s for s in report.splats if extension_of(s.test) in {"", extension}),
        lost=tuple(nodeid for nodeid in report.lost if extension_of(nodeid) == extension),
        console=str(report.console or ""),
    )


def _conclude(bench: Bench, course: Course) -> Trial:
    """Judge every extension asked for, in the order of the series."""
    plan = course.plan
    refused = {cell.extension: cell for cell in course.refused}
    cells = tuple(
        refused.get(extension.name) or _judge(course, extension)
        for extension in plan.extensions
        if not _deselected(course, extension.name)
    )
    if not cells:
        raise UsageError(
            f"no selftest matches -k {plan.expression!r}",
            next_step="'kpw test' without -k lists those of this flavour by name",
        )
    return Trial(
        plan.kernel,
        plan.flavour,
        plan.arch,
        cells,
        series=course.series,
        build=course.built,
        reports=course.reports,
        notes=course.notes,
        folder=bench.folder,
        red=plan.red,
        image=course.image,
        expression=plan.expression,
    )


def _deselected(course: Course, extension: str) -> bool:
    """Tell that the user's -k left an extension out: the guests ended well, and ran none of its."""
    if not course.plan.expression or not course.reports:
        return False
    if not course.reports[0].finished:
        return False
    named = [
        nodeid
        for report in course.reports
        for nodeid in (*report.lost, *(result.nodeid for result in report.results))
    ]
    return all(extension_of(nodeid) != extension for nodeid in named)


def _judge(course: Course, extension: Extension) -> Cell:
    tag = course.plan.kernel.tag
    upstream = extension.is_upstream(tag)
    if isinstance(course.built, BuildFailure):
        return Cell(
            extension.name, CellState.BUILD, judge.build_reasons(course.built), upstream=upstream
        )
    report = selftest.report_for(course.reports, extension.name)
    if report is None:
        why = Reason("no selftest ran", next_step=f"add tests/guest/{extension.name}/test_*.py")
        return Cell(extension.name, CellState.UNPROVEN, (why,), upstream=upstream)
    found = course.evidence.get(extension.name)
    if found is None and course.plan.red is not Red.NONE:
        # Nothing to hold it against (it is upstream): green alone, but a proof there must be.
        found = Evidence(())
    return judge.judge_cell(
        extension.name,
        report,
        found,
        upstream=upstream,
        patched=extension.has_patches_for(tag),
    )
