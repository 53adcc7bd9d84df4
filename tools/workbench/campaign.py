# SPDX-License-Identifier: GPL-2.0-only
"""Several trials, one report: what ``kpw run``, ``kpw test`` and ``kpw prove`` share."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import atomic, progress, report_json, report_junit, report_ktap, report_terminal
from workbench.errors import UsageError, WorkbenchError
from workbench.runs import REPORT, new_run
from workbench.suite import Suite
from workbench.verdict import RunReport, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workbench.declared import Extension
    from workbench.gitstore import Store
    from workbench.model import Kernel, SelftestResult
    from workbench.order import Order, Outputs
    from workbench.paths import Paths
    from workbench.progress import Progress
    from workbench.trial import Plan

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

    What was found before a fault is shown before the fault is raised.
    """
    from workbench.trial import Bench, run_trial

    since, started = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%S%z")
    trials: list[Trial] = []
    folder: Path | None = None
    fault: WorkbenchError | None = None
    with progress.shown() as display:
        chosen, known = _extensions(paths, order)
        store, kernels = _kernels(paths, order, display)
        folder = new_run(paths)

        def heard(result: SelftestResult) -> None:
            if on_result is not None:
                on_result(display, result)

        bench = Bench(paths, store, display, folder, heard)
        try:
            # Not a comprehension: what came before a fault must not be lost with it.
            suite = Suite.read(paths, known)
            for kernel in kernels:
                trials += [run_trial(bench, _plan(order, kernel, chosen, suite))]
        except WorkbenchError as error:
            fault = error
    report = RunReport(tuple(trials), started, time.monotonic() - since, folder)
    if trials:
        deliver(report, outputs)
    if fault is not None:
        raise fault
    return report


def deliver(report: RunReport, outputs: Outputs) -> None:
    """Print the matrix, write the files, and keep a copy of the JSON with the run."""
    if report.folder is not None:
        atomic.write(report.folder / REPORT, report_json.render(report).encode())
    report_terminal.show(report, sys.stderr if outputs.take_stdout else sys.stdout)
    for kind, name in outputs.files:
        text = _RENDER[kind](report)
        if name == "-":
            sys.stdout.write(text)
        else:
            atomic.write(Path(name), text.encode())


def _extensions(paths: Paths, order: Order) -> tuple[tuple[Extension, ...], tuple[str, ...]]:
    from workbench import extensions

    loaded = extensions.load_extensions(paths)
    chosen = extensions.select(loaded, order.only, order.without)
    if not chosen:
        raise UsageError("no extension is left to try", next_step="see --only and --without")
    return chosen, tuple(each.name for each in loaded)


def _kernels(paths: Paths, order: Order, display: Progress) -> tuple[Store, tuple[Kernel, ...]]:
    """Bring every kernel before the first trial: an unknown tag shall not cost an hour."""
    from workbench import source
    from workbench.gitstore import Store

    if order.all_tags and order.tags:
        raise UsageError("name tags or say --all, not both")
    names: Sequence[str] = order.tags
    if order.all_tags:
        names = tuple(str(each.tag) for each in source.supported(paths))
    if not names:
        names = (str(source.default_tag(paths)),)
    kernels = tuple(
        source.obtain(paths, name, repo=order.repo, progress=display)
        for name in dict.fromkeys(names)
    )
    return Store.open(paths), tuple(sorted(kernels, key=lambda kernel: kernel.tag))


def _plan(order: Order, kernel: Kernel, chosen: tuple[Extension, ...], suite: Suite) -> Plan:
    from workbench.trial import Plan

    return Plan(
        kernel,
        chosen,
        suite,
        order.flavour,
        order.arch,
        red=order.red,
        expression=order.expression,
        snapshot=order.snapshot,
        repo=order.repo,
    )
