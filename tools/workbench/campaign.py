# SPDX-License-Identifier: GPL-2.0-only
"""Several trials, one report: what ``kpw run``, ``kpw test`` and ``kpw prove`` share."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench import (
    atomic,
    ending,
    progress,
    report_json,
    report_junit,
    report_ktap,
    report_terminal,
    source,
)
from workbench.ending import Ending
from workbench.errors import ExitCode, UsageError
from workbench.runs import REPORT, new_run
from workbench.suite import Suite
from workbench.verdict import BrokenOff, RunReport, Trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.declared import Extension
    from workbench.gitstore import Store
    from workbench.model import Kernel, SelftestResult
    from workbench.order import Order, Outputs
    from workbench.paths import Paths
    from workbench.progress import Progress
    from workbench.trial import Plan

# What a report says that was written between two trials, whoever reads it when.
_NO_END: Final = Ending(
    "it was killed, or is still at work: its end is not on record", ExitCode.TERMINATED
)
_RENDER = {
    "json": report_json.render,
    "junit": report_junit.render,
    "ktap": report_ktap.render,
    "svg": report_terminal.render_svg,
}


def run(
    paths: Paths,
    order: Order,
    outputs: Outputs,
    on_result: Callable[[Progress, SelftestResult], None] | None = None,
) -> RunReport:
    """Run the trials of an order, oldest kernel first, and write every report.

    Whatever ends it before its time, what was found is shown and written, and
    the ending goes on.
    """
    chosen, names = _at_the_door(paths, order)
    so_far = _SoFar(names)
    try:
        with progress.shown() as display:
            hear = on_result or (lambda _display, _result: None)
            lab = _Lab(paths, order, chosen, display, lambda result: hear(display, result))
            _try_all(lab, so_far)
    except BaseException as error:
        _deliver_broken(so_far, error, outputs)
        raise
    report = so_far.report()
    deliver(report, outputs)
    return report


@dataclass
class _SoFar:
    """How far a run is: filled as it goes, so that nothing that ends it loses what was found.

    ``names`` are the kernels, at first as the user calls them.
    """

    names: tuple[str, ...]
    trials: list[Trial] = field(default_factory=list)
    folder: Path | None = None
    since: float = field(default_factory=time.monotonic)
    started: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%S%z"))

    def report(self, ended: Ending | None = None) -> RunReport:
        """Return what there is; with ``ended``, as what was left when that ended it."""
        broken_off = None
        if ended is not None:
            left = self.names[len(self.trials) :]
            broken_off = BrokenOff(ended.line, ended.exit_code, left)
        seconds = time.monotonic() - self.since
        return RunReport(tuple(self.trials), self.started, seconds, self.folder, broken_off)

    def keep(self) -> None:
        """Keep the report of what there is: nothing else is left of a run that is killed.

        What cannot be kept is tried again at the end, and told then.
        """
        with contextlib.suppress(OSError):
            _keep(self.report(_NO_END))


@dataclass(frozen=True)
class _Lab:
    """What is tried, and who is told."""

    paths: Paths
    order: Order
    chosen: _Chosen
    display: Progress
    on_result: Callable[[SelftestResult], None]


def _try_all(lab: _Lab, so_far: _SoFar) -> None:
    from workbench import accel
    from workbench.trial import Bench, run_trial

    lab.display.note(f"accelerator: {accel.choose(lab.paths, lab.order.arch).reason}")
    store, kernels = _kernels(lab.paths, lab.order, so_far.names, lab.display)
    so_far.names = tuple(kernel.name for kernel in kernels)
    so_far.folder = new_run(lab.paths)
    loaded = lab.chosen.loaded
    bench = Bench(lab.paths, store, loaded, lab.display, so_far.folder, lab.on_result)
    suite = Suite.read(lab.paths, (each.name for each in loaded))
    for kernel in kernels:
        so_far.trials.append(run_trial(bench, _plan(lab.order, kernel, lab.chosen, suite)))
        so_far.keep()


def _deliver_broken(so_far: _SoFar, error: BaseException, outputs: Outputs) -> None:
    """Deliver what there was when ``error`` ended the run; a report that fails does not hide it.

    A UsageError with nothing found refuses the user's words: no run was begun.
    """
    if isinstance(error, UsageError) and not so_far.trials:
        return
    try:
        deliver(so_far.report(ending.of(error)), outputs)
    except OSError as fault:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"not every report could be written: {fault}\n")


def deliver(report: RunReport, outputs: Outputs) -> None:
    """Print the matrix, then write the files and keep a copy of the JSON with the run.

    What cannot be written keeps nothing else back; its OSError comes at the end.
    """
    stream = sys.stderr if outputs.take_stdout else sys.stdout
    steps = [partial(report_terminal.show, report, stream)]
    steps += [partial(_write, report, *file) for file in outputs.files]
    steps.append(partial(_keep, report))
    faults = [fault for step in steps if (fault := _fault_of(step)) is not None]
    if faults:
        raise faults[0]


def _keep(report: RunReport) -> None:
    if report.folder is not None and report.trials:
        _write(report, "json", str(report.folder / REPORT))


def _write(report: RunReport, kind: str, name: str) -> None:
    text = _RENDER[kind](report)
    if name == "-":
        sys.stdout.write(text)
    else:
        atomic.write(Path(name), text.encode())


def _fault_of(step: Callable[[], None]) -> OSError | None:
    try:
        step()
    except OSError as fault:
        return fault
    return None


@dataclass(frozen=True)
class _Chosen:
    """The extensions of an order, and all there are."""

    extensions: tuple[Extension, ...]
    loaded: tuple[Extension, ...]


def _at_the_door(paths: Paths, order: Order) -> tuple[_Chosen, tuple[str, ...]]:
    """Refuse what cannot be meant before any work is begun; return extensions and kernels."""
    from workbench import extensions, fragments

    loaded = extensions.load_extensions(paths)
    chosen = extensions.select(loaded, order.only, order.without)
    if not chosen:
        raise UsageError("no extension is left to try", next_step="see --only and --without")
    asked = tuple(each.name for each in chosen)
    fragments.files(paths, arch=order.arch, extensions=asked, flavour=order.flavour)
    names = source.names(paths, order.tags, all_tags=order.all_tags)
    if order.repo is None:
        source.refuse_unnamed(paths, names)
    return _Chosen(chosen, loaded), names


def _kernels(
    paths: Paths, order: Order, names: tuple[str, ...], display: Progress
) -> tuple[Store, tuple[Kernel, ...]]:
    """Bring every kernel before the first trial, each once: a tag can be spelt in several ways."""
    from workbench.gitstore import Store

    found = source.obtain_all(paths, names, repo=order.repo, progress=display)
    kernels = {kernel.name: kernel for kernel in found}.values()
    return Store.open(paths), tuple(sorted(kernels, key=lambda kernel: kernel.tag))


def _plan(order: Order, kernel: Kernel, chosen: _Chosen, suite: Suite) -> Plan:
    from workbench.trial import Plan

    return Plan(
        kernel,
        chosen.extensions,
        suite,
        order.flavour,
        order.arch,
        red=order.red,
        expression=order.expression,
        snapshot=order.snapshot,
        repo=order.repo,
    )
