# SPDX-License-Identifier: GPL-2.0-only
"""The verdict as JUnit XML: a suite per extension and kernel.

A *failure* is a test that said no. An *error* is a question without an
answer: a conflict, a build that failed, a guest that died, a red for another
reason.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import junitparser

from workbench.checks import Check, CheckResult, checks, not_judged

if TYPE_CHECKING:
    from workbench.verdict import Cell, RunReport, Trial

# XML 1.0 has no place for control characters, and consoles are full of them.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: RunReport) -> str:
    """Return the whole document."""
    document = junitparser.JUnitXml("kpw")
    for trial in report.trials:
        for cell in trial.cells:
            document.add_testsuite(_suite(trial, cell))
    for check in not_judged(report):
        suite = junitparser.TestSuite(check.name)
        suite.add_testcase(_case(check, suite.name))
        document.add_testsuite(suite)
    document.update_statistics()
    data = document.tostring()
    text = data.decode() if isinstance(data, bytes) else str(data)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _suite(trial: Trial, cell: Cell) -> junitparser.TestSuite:
    suite = junitparser.TestSuite(f"{trial.kernel.name}.{cell.extension}")
    for name, value in (
        ("kernel", trial.kernel.name),
        ("commit", trial.kernel.commit),
        ("flavour", trial.flavour),
        ("arch", trial.arch),
        ("state", cell.state),
    ):
        suite.add_property(name, value)
    suite.add_testcases([_case(check, suite.name) for check in checks(cell)])
    return suite


def _case(check: Check, suite: str) -> junitparser.TestCase:
    case = junitparser.TestCase(_xml(check.name), classname=suite, time=round(check.seconds, 3))
    message = _xml(check.message)
    kind: type[junitparser.Failure | junitparser.Error | junitparser.Skipped]
    match check.result:
        case CheckResult.PASS:
            return case
        case CheckResult.FAIL:
            kind = junitparser.Failure
        case CheckResult.ERROR:
            kind = junitparser.Error
        case CheckResult.SKIP:
            kind = junitparser.Skipped
    found = kind(message, check.result)
    found.text = _xml("\n".join(filter(None, (check.detail, check.excerpt))))
    case.result = [found]
    return case


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
