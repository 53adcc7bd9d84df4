# SPDX-License-Identifier: GPL-2.0-only
"""A cell as the flat list of checks that test reports (JUnit, KTAP) know."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from workbench.prove import ProofState, red_check
from workbench.reportlog import first_line, short

if TYPE_CHECKING:
    from workbench.model import SelftestResult
    from workbench.prove import Proof
    from workbench.verdict import Cell, Reason, RunReport


class CheckResult(StrEnum):
    """How a check ended: a failure is an answer, an error means that there is none."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    ERROR = "error"
    SKIP = "skip"


@dataclass(frozen=True)
class Check:
    """One line of a report: ``message`` is one line, ``detail`` any number, seconds wall time.

    ``excerpt`` quotes the console or the build log.
    """

    name: str
    result: CheckResult
    message: str = ""
    detail: str = ""
    excerpt: str = ""
    seconds: float = 0.0


_OUTCOME: Final = {
    "passed": CheckResult.PASS,
    "failed": CheckResult.FAIL,
    "skipped": CheckResult.SKIP,
}
_PROOF: Final = {
    ProofState.RED: CheckResult.PASS,
    ProofState.NOT_RED: CheckResult.FAIL,
    ProofState.OTHER: CheckResult.ERROR,
    ProofState.MISSING: CheckResult.ERROR,
}


def checks(cell: Cell) -> tuple[Check, ...]:
    """Return every check of a cell; one that is not green always has one that did not pass.

    A reason that no test's or proof's own check tells is an error of its own.
    """
    explained = {reason.check: reason for reason in cell.reasons if reason.check}
    found = [_of_test(test) for test in cell.tests]
    found += [
        Check(short(nodeid), CheckResult.ERROR, "has no result: the guest's session was cut short")
        for nodeid in cell.lost
    ]
    found += [_of_proof(proof, explained.get(red_check(proof.nodeid))) for proof in cell.proofs]
    others = (reason for reason in cell.reasons if not reason.check)
    for number, reason in enumerate(others, start=1):
        name = f"{cell.state} {number}" if number > 1 else str(cell.state)
        found.append(Check(name, CheckResult.ERROR, reason.what, str(reason), reason.excerpt))
    return tuple(found)


def not_judged(report: RunReport) -> tuple[Check, ...]:
    """Return an error for each kernel that a broken-off run left without a trial."""
    found = report.broken_off
    if found is None:
        return ()
    return tuple(
        Check(name, CheckResult.ERROR, str(found)) for name in found.not_judged or ("run",)
    )


def _of_test(test: SelftestResult) -> Check:
    result = _OUTCOME.get(test.outcome, CheckResult.ERROR)
    return Check(
        short(test.nodeid), result, first_line(test.message), test.detail, seconds=test.seconds
    )


def _of_proof(proof: Proof, why: Reason | None) -> Check:
    name, result = red_check(proof.nodeid), _PROOF[proof.state]
    detail = f"stated pattern: {proof.expected}"
    if why is None:
        said = f"{proof.state}: {proof.message}" if proof.message else str(proof.state)
        return Check(name, result, said, detail)
    return Check(name, result, why.what, f"{why}\n{detail}", why.excerpt)
