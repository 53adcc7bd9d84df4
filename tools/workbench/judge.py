# SPDX-License-Identifier: GPL-2.0-only
"""From what was found to the state of a cell: pure functions over frozen values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from workbench.model import PatchState, TestKind
from workbench.prove import Evidence, Proof, ProofState, judge_proof, red_check
from workbench.reportlog import extension_of, first_line, short
from workbench.verdict import Cell, CellState, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from workbench.model import BuildFailure, PatchOutcome, SelftestReport, SelftestResult, Splat

Found = tuple[CellState, Reason]


def judge_cell(
    extension: str,
    report: SelftestReport,
    evidence: Evidence | None,
    *,
    upstream: bool,
    patched: bool = True,
) -> Cell:
    """Judge one extension by its tests on the patched kernel and the red without.

    ``evidence`` None judges the tests alone. An ``upstream`` extension needs
    no red: every kernel at hand has it. ``patched`` False means that neither
    a patch nor the kernel gives the feature; its tests then speak alone.
    """
    tests = tuple(result for result in report.results if result.extension == extension)
    lost = tuple(nodeid for nodeid in report.lost if extension_of(nodeid) == extension)
    proofs: tuple[Proof, ...] = ()
    against = evidence if patched and not upstream else None
    if against is not None:
        by_name = {result.nodeid: result for result in against.results}
        wanted = (test for test in tests if test.kind is TestKind.PROOF)
        proofs = tuple(judge_proof(test, by_name.get(test.nodeid)) for test in wanted)
    found = [*_crashes(extension, report, lost), *_reds(tests)]
    if not found and not tests:
        why = Reason(
            "no selftest ran", next_step=f"add tests/guest/{extension}/test_*.py, or see -k"
        )
        found = [(CellState.UNPROVEN, why)]
    if evidence is not None and (patched or upstream):
        found += _without_proof(tests)
    if against is not None:
        found += [*_proofs(proofs, against), *_controls(tests, against)]
    states = [state for state, _ in found]
    return Cell(
        extension,
        max(states, key=lambda state: state.exit_code, default=CellState.GREEN),
        tuple(reason for _, reason in found),
        tests,
        proofs,
        upstream=upstream,
        lost=lost,
        remembered=evidence is not None and evidence.remembered,
    )


def _crashes(extension: str, report: SelftestReport, lost: Sequence[str]) -> list[Found]:
    """Tell what the guest's death or a splat means for this extension.

    The extension whose test was under way is the one that crashed; others
    whose tests are missing were not judged, and those with all results keep
    what they said.
    """
    where = f"console: {report.console}" if report.console else ""
    found: list[Found] = []
    guilty = report.lost[0] if report.lost else ""
    for splat in report.splats:
        test = splat.test or guilty
        if test and extension_of(test) != extension:
            continue
        why = Reason(_told(splat, test), where, "read the console around it", splat.excerpt)
        found.append((CellState.CRASH, why))
    if lost and not found:
        state, what = _cutshort(extension, guilty, lost, report)
        found.append((state, Reason(what, where, "mend that first, then run again")))
    elif not report.finished and not report.lost and not report.splats:
        what = f"the guest's session did not end as it should (status {report.exit_status})"
        found.append((CellState.CRASH, Reason(what, where, "read the end of the console")))
    return found


def _cutshort(
    extension: str, guilty: str, lost: Sequence[str], report: SelftestReport
) -> tuple[CellState, str]:
    count = f"{len(lost)} of its tests {'has' if len(lost) == 1 else 'have'} no result"
    if extension_of(guilty) == extension and not report.splats:
        return CellState.CRASH, f"the guest's session ended in {short(guilty)}: {count}"
    return CellState.LOST, f"{count}: the guest's session ended in {guilty}"


def _reds(tests: Iterable[SelftestResult]) -> list[Found]:
    """Tell of every test that did not pass; a skip proves nothing, so it is not green."""
    found: list[Found] = []
    for test in tests:
        match test.outcome:
            case "passed":
                continue
            case "skipped":
                # For a test report a skip is no fault, so its reason is told beside it.
                state, verb, check = CellState.UNPROVEN, "was skipped and proves nothing", ""
            case "error":
                state, verb, check = CellState.RED, "could not be run", short(test.nodeid)
            case _:
                state, verb, check = CellState.RED, "failed", short(test.nodeid)
        what = f"{short(test.nodeid)} {verb}: {first_line(test.message)}"
        found.append((state, Reason(what, check=check)))
    return found


def _without_proof(tests: Sequence[SelftestResult]) -> list[Found]:
    if not tests or any(test.kind is TestKind.PROOF for test in tests):
        return []
    why = Reason("none of its tests is a proof", next_step="mark one with @pytest.mark.proof")
    return [(CellState.UNPROVEN, why)]


def _proofs(proofs: Iterable[Proof], evidence: Evidence) -> list[Found]:
    not_red = (proof for proof in proofs if proof.state is not ProofState.RED)
    return [
        (CellState.UNPROVEN, replace(_proof_reason(proof, evidence), check=red_check(proof.nodeid)))
        for proof in not_red
    ]


def _controls(tests: Iterable[SelftestResult], evidence: Evidence) -> list[Found]:
    """Tell of the controls that the kernel without the patch did not pass.

    One without a result there is as bad as one that failed: what ended the
    guest may be what the control is to rule out. So is one that passed while
    that kernel complained: with the patch this would be a crash. In a proof
    the complaint may be the very red.
    """
    found: list[Found] = []
    by_name = {result.nodeid: result for result in evidence.results}
    complaints = {splat.test: splat for splat in reversed(evidence.splats)}
    for test in tests:
        if test.kind is not TestKind.CONTROL:
            continue
        red = by_name.get(test.nodeid)
        if red is None:
            found.append((CellState.UNPROVEN, _no_red(f"control {short(test.nodeid)}", evidence)))
        elif red.outcome != "passed":
            what = f"the control {short(red.nodeid)} fails on the kernel without the patch"
            why = Reason(f"{what}: {first_line(red.message)}", next_step="is it a proof?")
            found.append((CellState.UNPROVEN, why))
        elif splat := complaints.get(test.nodeid):
            found.append((CellState.UNPROVEN, _complained(splat, evidence)))
    return found


def _complained(splat: Splat, evidence: Evidence) -> Reason:
    name = f"the control {short(splat.test)}"
    return Reason(
        f"{name} passes on the kernel without the patch, but that complains: "
        f"{_told(splat, splat.test)}",
        f"console: {evidence.console}" if evidence.console else "",
        "is it a proof?",
        splat.excerpt,
    )


def _no_red(name: str, evidence: Evidence) -> Reason:
    """Say that a test has no result without the patch, and what ended the guest."""
    happened, excerpt = "", ""
    if evidence.splats:
        last = evidence.splats[-1]
        happened, excerpt = f": {_told(last, last.test)}", last.excerpt
    elif evidence.lost:
        happened = f": the guest's session ended in {short(evidence.lost[0])}"
    return Reason(
        f"the {name} has no result on the kernel without the patch{happened}",
        f"console: {evidence.console}" if evidence.console else "",
        "mend what ended that guest, then run 'kpw prove' again",
        excerpt,
    )


def _told(splat: Splat, test: str) -> str:
    place = f"in {short(test)}" if test else "outside any test"
    return f"{splat.kind} {place}: {splat.line}"


def _proof_reason(proof: Proof, evidence: Evidence) -> Reason:
    name = short(proof.nodeid)
    match proof.state:
        case ProofState.RED:
            return Reason(f"the proof {name} is {proof.state}")
        case ProofState.NOT_RED:
            return Reason(
                f"the proof {name} passes without its patch: an error of the series",
                next_step="mend the test, or declare the extension upstream on this kernel",
            )
        case ProofState.OTHER:
            what = f"the proof {name} is red for another reason: {proof.message}"
            return Reason(what, f"stated was /{proof.expected}/", "mend the test or its pattern")
        case ProofState.MISSING:
            return _no_red(f"proof {name}", evidence)
        case _:
            assert_never(proof.state)


def conflict_reason(outcome: PatchOutcome) -> Reason:
    """Tell in one line why a patch is not in the result."""
    name = f"{outcome.extension}/{outcome.patch}"
    if outcome.state is PatchState.OBSOLETE:
        gone = outcome.detail or "what it patches is gone"
        return Reason(f"{name} is obsolete: {gone}", next_step="declare it in extension.toml")
    if not outcome.conflicts:
        return Reason(f"{name}: {outcome.state}: {outcome.detail}")
    first = outcome.conflicts[0]
    more = len(outcome.conflicts) - 1
    place = f"{first.path}:{first.line}" if first.line else first.path
    what = f"{name} conflicts at {place} ({first.kind})"
    return Reason(what + (f" and {more} more" if more else ""), "", first.next_step)


def build_reasons(failure: BuildFailure) -> tuple[Reason, ...]:
    """Tell in a line each why there is no kernel."""
    where = f"log: {failure.log}" if failure.log is not None else ""
    if not failure.unmet:
        return (Reason(f"build failed: {failure.reason}", where, excerpt=failure.excerpt),)
    return tuple(
        Reason(
            f"{unmet.symbol}={unmet.wanted} came out as {unmet.got or 'nothing'}: {unmet.reason}",
            f"{unmet.fragment}:{unmet.line}",
            "mend the fragment",
        )
        for unmet in failure.unmet
    )
