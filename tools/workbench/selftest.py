# SPDX-License-Identifier: GPL-2.0-only
"""Run selftests in a guest and say what each of them said.

A guest that dies takes the tests after it along. Those of other extensions
get another guest, so that one extension's panic does not leave the rest
without an answer.

A test may want a kernel booted with words of its own (fips=1). The first
guest names such tests and leaves them alone; for each set of words there is
another guest, and a test that it does not hear of is lost, not passed.

A test may belong to a flavour of the kernel. The guest is told which flavour
it runs, and leaves out, before it announces its tests, those of any other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from workbench import boot, fragments
from workbench.model import SelftestReport
from workbench.payload import Payload, modules
from workbench.reportlog import ReportLog, extension_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from workbench.boot import GuestRun
    from workbench.image import GuestImage
    from workbench.model import BuiltKernel, SelftestResult, Splat
    from workbench.paths import Paths
    from workbench.suite import Suite

# The guest ends a test that overstays by itself; a guest that does not come
# round to it this much later is dead. Between tests, and while pytest loads on
# a busy machine, the boot's own patience holds.
GRACE: Final = 30.0
_MARK: Final = re.compile(r"kpw: test (\S.*\S)\s*$")
# Under TCG importing pytest takes seconds: nothing that the imports make is
# garbage, and what a selftest has no use for need not be loaded. The guest marks
# its kernel log with each test's name; by default the kernel takes ten such
# lines in five seconds and drops the rest.
_START: Final = """\
import gc
gc.disable()
import os
import sys
import pytest
with open("/proc/sys/kernel/printk_devkmsg", "w") as log:
    log.write("on\\n")
os.chdir("/payload/tests")
os.environ.update({environment!r})
sys.path.insert(0, "/payload/tests")
sys.argv = {words!r}
gc.freeze()
gc.enable()
raise SystemExit(pytest.console_main())
"""
_NEEDLESS: Final = (
    "cacheprovider",
    "debugging",
    "doctest",
    "junitxml",
    "legacypath",
    "nose",
    "pastebin",
    "setuponly",
    "setupplan",
    "stepwise",
    "unittest",
)
_COMMAND: Final = "#!/bin/sh\nexec python3 -B /payload/start.py\n"


@dataclass(frozen=True)
class Selection:
    """Which tests: those of ``extensions`` that match pytest's ``-k`` expression.

    ``suite`` is the whole of them, as they were read. ``boot`` are the words
    for the kernel that they want, ``expected`` the tests known to want them.
    """

    suite: Suite
    extensions: tuple[str, ...]
    expression: str = ""
    boot: str = ""
    expected: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lab:
    """Where selftests run: the image, and what is told of each result.

    With ``snapshot`` a guest that has booted before is restored. ``go_on`` is
    called all the while and ends the guests by raising.
    """

    paths: Paths
    image: GuestImage
    arch: str
    on_result: Callable[[SelftestResult], None]
    snapshot: bool = False
    go_on: Callable[[], object] | None = None


def run_selftests(
    lab: Lab, kernel: BuiltKernel, selection: Selection, folder: Path
) -> tuple[SelftestReport, ...]:
    """Run the tests until every extension's were run or met a guest's death.

    ``folder`` keeps console and results of every guest. One report a guest;
    there is none when the selection has no tests.
    """
    reports: list[SelftestReport] = []

    def until_judged(selection: Selection) -> None:
        waiting = tuple(name for name in selection.extensions if selection.suite.has_tests(name))
        while waiting:
            place = folder if not reports else folder.with_name(f"{folder.name}-{len(reports) + 1}")
            report = _run_guest(lab, kernel, _part(selection, waiting), place)
            reports.append(report)
            waiting = _unjudged(report, waiting)

    until_judged(selection)
    for boot_words, nodeids in _elsewhere(reports).items():
        names = tuple(dict.fromkeys(extension_of(nodeid) for nodeid in nodeids))
        part = replace(selection, extensions=names, boot=boot_words, expected=nodeids)
        until_judged(part)
    return tuple(reports)


def report_for(reports: Sequence[SelftestReport], extension: str) -> SelftestReport | None:
    """Return what the guests said of an extension as one report.

    Of the guests booted alike it is the last that speaks of it. The first
    guest's report when none does.
    """
    speaking: dict[str, SelftestReport] = {}
    for report in reports:
        named = (*(result.nodeid for result in report.results), *report.lost)
        if any(extension_of(nodeid) == extension for nodeid in named):
            speaking[report.boot] = report
    if speaking:
        return _joined(tuple(speaking.values()))
    return reports[0] if reports else None


def start(words: Sequence[str], **environment: str) -> Payload:
    """Return a payload that starts pytest with these words in /payload/tests; no files yet."""
    needless = [word for name in _NEEDLESS for word in ("-p", f"no:{name}")]
    line = ["pytest", "-p", "pytest_reportlog.plugin", "--rootdir=.", "-q", *needless, *words]
    script = _START.format(environment=environment, words=line)
    return Payload(_COMMAND, (("start.py", script.encode()),))


def _joined(reports: tuple[SelftestReport, ...]) -> SelftestReport:
    """Return several reports as one; its console is the first that has something to tell."""
    if len(reports) == 1:
        return reports[0]
    telling = (each for each in reports if each.splats or each.lost or not each.finished)
    worst = next(telling, reports[0])
    return replace(
        worst,
        results=tuple(result for each in reports for result in each.results),
        collected=sum(each.collected for each in reports),
        finished=all(each.finished for each in reports),
        splats=tuple(splat for each in reports for splat in each.splats),
        boot_seconds=sum(each.boot_seconds for each in reports),
        seconds=sum(each.seconds for each in reports),
        lost=tuple(nodeid for each in reports for nodeid in each.lost),
    )


def _elsewhere(reports: Sequence[SelftestReport]) -> dict[str, tuple[str, ...]]:
    """Return the tests that want another boot, by its words, each once."""
    found: dict[str, dict[str, None]] = {}
    for report in reports:
        for boot_words, nodeids in report.elsewhere:
            found.setdefault(boot_words, {}).update(dict.fromkeys(nodeids))
    return {boot_words: tuple(nodeids) for boot_words, nodeids in found.items()}


def _part(selection: Selection, extensions: tuple[str, ...]) -> Selection:
    expected = tuple(each for each in selection.expected if extension_of(each) in extensions)
    return replace(selection, extensions=extensions, expected=expected)


def payload(selection: Selection, **environment: str) -> Payload:
    """Return what the guest gets: the shared code, the extensions' tests, the command.

    ``environment`` is what pytest is told besides the words of the boot.
    """
    words = ["--report-log=/dev/virtio-ports/kpw.results", "-c", "pytest.ini"]
    words += ["--continue-on-collection-errors", "--color=no"]
    if selection.expression:
        words += ["-k", selection.expression]
    words += selection.extensions
    begun = start(words, KPW_MARK_CONSOLE="1", KPW_BOOT=selection.boot, **environment)
    files = selection.suite.part(selection.extensions)
    tests = tuple((f"tests/{name}", data) for name, data in files)
    return replace(begun, files=begun.files + tests)


def read_report(
    run: GuestRun, *, boot_words: str = "", expected: tuple[str, ...] = ()
) -> SelftestReport:
    """Read what the guest left; nothing counts as passed that did not say so."""
    log = ReportLog(expected)
    log.feed_all(run.results.read_bytes().splitlines() if run.results.exists() else ())
    console = run.console.read_text(errors="replace") if run.console.exists() else ""
    return SelftestReport(
        results=log.results,
        collected=len(log.collected),
        finished=log.complete and log.exit_status is not None and run.finished,
        exit_status=log.exit_status if log.exit_status is not None else log.session_status,
        splats=attribute(run.splats, console, log.running),
        boot_seconds=run.boot_seconds or 0.0,
        seconds=run.seconds,
        console=run.console,
        lost=log.lost,
        boot=boot_words,
        elsewhere=tuple(log.elsewhere.items()),
        accelerator=run.accelerator.reason,
    )


def attribute(splats: Sequence[Splat], console: str, running: str) -> tuple[Splat, ...]:
    """Say under which test each splat came, by the marks the guest leaves in its console.

    Without a mark before it, it was the test that was ``running`` at the end.
    """
    lines = console.splitlines()
    at = 0
    told: list[Splat] = []
    for splat in splats:
        where = next((n for n in range(at, len(lines)) if splat.line in lines[n]), None)
        test = running
        if where is not None:
            marks = (_MARK.search(line) for line in reversed(lines[: where + 1]))
            test = next((mark[1] for mark in marks if mark is not None), running)
            at = where + 1
        told.append(splat if splat.test else replace(splat, test=test))
    return tuple(told)


def _run_guest(lab: Lab, kernel: BuiltKernel, selection: Selection, folder: Path) -> SelftestReport:
    log = ReportLog(selection.expected)

    def on_line(line: str) -> float | None:
        result = log.feed(line)
        if result is not None:
            lab.on_result(result)
        return log.deadline() + GRACE if log.running else None

    append = tuple(selection.boot.split())
    options = boot.BootOptions(
        where=folder, arch=lab.arch, append=append, snapshot=lab.snapshot, go_on=lab.go_on
    )
    flavours = " ".join(fragments.flavours(lab.paths))
    work = payload(selection, KPW_FLAVOUR=kernel.flavour, KPW_FLAVOURS=flavours)
    work = replace(work, files=work.files + modules(kernel.modules))
    run = boot.boot(lab.paths, kernel, lab.image, work, options, on_line)
    return read_report(run, boot_words=selection.boot, expected=selection.expected)


def _unjudged(report: SelftestReport, ran: Sequence[str]) -> tuple[str, ...]:
    """Return the extensions worth another guest: those another one's test took along."""
    if not report.lost:
        return ()
    guilty = extension_of(report.lost[0])
    took = {extension_of(nodeid) for nodeid in report.lost} - {guilty}
    return tuple(name for name in ran if name in took)
