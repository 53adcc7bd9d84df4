# SPDX-License-Identifier: GPL-2.0-only
"""What a cell is, and what several come to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workbench.errors import ExitCode
from workbench.judge import build_reasons, conflict_reason, judge_cell
from workbench.model import (
    BuildFailure,
    Conflict,
    Kernel,
    KernelTag,
    PatchOutcome,
    PatchState,
    SelftestReport,
    SelftestResult,
    Splat,
    SplatKind,
    TestKind,
    UnmetSymbol,
)
from workbench.prove import Evidence, ProofState
from workbench.verdict import Cell, CellState, Verdict, exit_code, verdict_of

PROOF = SelftestResult("ext", "ext/test_x.py::test_p", TestKind.PROOF, "passed", red="old")
CONTROL = SelftestResult("ext", "ext/test_x.py::test_c", TestKind.CONTROL, "passed")
OTHER = SelftestResult("two", "two/test_y.py::test_y", TestKind.PROOF, "passed", red="x")
GOOD = SelftestReport((PROOF, CONTROL), 2, finished=True, exit_status=0, splats=(),
                      boot_seconds=1.0, seconds=9.0)  # fmt: skip
RED = replace(PROOF, outcome="failed", message="AssertionError: old\nmore")
EVIDENCE = Evidence((RED, CONTROL))


def judge(
    report: SelftestReport = GOOD,
    evidence: Evidence | None = EVIDENCE,
    *,
    name: str = "ext",
    upstream: bool = False,
    patched: bool = True,
) -> Cell:
    return judge_cell(name, report, evidence, upstream=upstream, patched=patched)


def reasons(cell: Cell) -> str:
    return "\n".join(str(reason) for reason in cell.reasons)


def splat(test: str, kind: SplatKind = SplatKind.WARN) -> Splat:
    return Splat(kind, "WARNING: CPU: 0", "…", 2.0, test=test)


def test_green_with_red_proven() -> None:
    cell = judge()
    assert cell.state is CellState.GREEN
    assert cell.reasons == ()


def test_green_from_memory_says_so() -> None:
    assert judge(evidence=replace(EVIDENCE, remembered=True)).remembered


def test_a_failed_test_is_red() -> None:
    failed = replace(CONTROL, outcome="failed", message="AssertionError: 3\nassert 3 == 4")
    cell = judge(replace(GOOD, results=(PROOF, failed)))
    assert cell.state is CellState.RED
    assert "test_x.py::test_c failed: AssertionError: 3" in reasons(cell)


def test_a_skip_proves_nothing() -> None:
    cell = judge(replace(GOOD, results=(replace(PROOF, outcome="skipped"), CONTROL)))
    assert cell.state.exit_code is ExitCode.RED
    assert "proves nothing" in reasons(cell)


def test_a_proof_that_passes_without_its_patch_is_an_error_of_the_series() -> None:
    cell = judge(evidence=Evidence((PROOF, CONTROL)))
    assert cell.state is CellState.UNPROVEN
    assert cell.state.exit_code is ExitCode.RED
    assert "passes without its patch: an error of the series" in reasons(cell)


def test_red_for_another_reason_is_not_proven_and_says_both() -> None:
    cell = judge(evidence=Evidence((replace(RED, message="OSError: x"), CONTROL)))
    assert cell.state is CellState.UNPROVEN
    assert "OSError: x" in reasons(cell)
    assert "/old/" in reasons(cell)


def test_a_proof_without_a_red_result_is_not_proven() -> None:
    found = Evidence((CONTROL,), splats=(splat(PROOF.nodeid, SplatKind.PANIC),), console="/c")
    cell = judge(evidence=found)
    assert cell.state is CellState.UNPROVEN
    assert "no result on the kernel without the patch: panic in test_x.py::test_p" in reasons(cell)
    assert "console: /c" in reasons(cell)


def test_a_control_must_hold_without_the_patch() -> None:
    broken = replace(CONTROL, outcome="failed", message="boo")
    cell = judge(evidence=Evidence((RED, broken)))
    assert cell.state is CellState.UNPROVEN
    assert "control test_x.py::test_c fails on the kernel without the patch: boo" in reasons(cell)


def test_a_control_that_the_unpatched_kernel_died_in_is_not_proven() -> None:
    panic = splat(CONTROL.nodeid, SplatKind.PANIC)
    found = Evidence((RED,), splats=(panic,), lost=(CONTROL.nodeid,), console="/c")
    cell = judge(evidence=found)
    assert [proof.state for proof in cell.proofs] == [ProofState.RED]
    assert cell.state is CellState.UNPROVEN
    said = "the control test_x.py::test_c has no result on the kernel without the patch"
    assert f"{said}: panic in test_x.py::test_c: WARNING: CPU: 0; console: /c" in reasons(cell)
    assert cell.reasons[0].excerpt == panic.excerpt


def test_a_control_that_the_unpatched_kernel_complains_in_is_not_proven() -> None:
    warned = splat(CONTROL.nodeid)
    cell = judge(evidence=replace(EVIDENCE, splats=(warned,), console="/c"))
    assert [proof.state for proof in cell.proofs] == [ProofState.RED]
    assert cell.state is CellState.UNPROVEN
    (why,) = cell.reasons
    assert str(why) == (
        "the control test_x.py::test_c passes on the kernel without the patch, but that complains: "
        "WARN in test_x.py::test_c: WARNING: CPU: 0; console: /c; is it a proof?"
    )
    assert why.excerpt == warned.excerpt


def test_a_splat_that_is_the_red_of_a_proof_or_no_test_s_spoils_nothing() -> None:
    for test in (PROOF.nodeid, "", OTHER.nodeid):
        assert judge(evidence=replace(EVIDENCE, splats=(splat(test),))).state is CellState.GREEN


def test_a_control_that_fails_and_is_complained_in_is_told_once() -> None:
    broken = replace(CONTROL, outcome="failed", message="boo")
    cell = judge(evidence=Evidence((RED, broken), splats=(splat(CONTROL.nodeid),)))
    assert [reason.what for reason in cell.reasons] == [
        "the control test_x.py::test_c fails on the kernel without the patch: boo"
    ]


def test_a_control_without_red_is_told_once_when_the_session_ended_without_a_word() -> None:
    cell = judge(evidence=Evidence((RED,), lost=(CONTROL.nodeid,)))
    assert cell.state is CellState.UNPROVEN
    assert reasons(cell).count("test_c") == 2
    assert "ended in test_x.py::test_c" in reasons(cell)


def test_controls_that_only_the_green_kernel_runs_need_no_red() -> None:
    """An upstream extension, one that nothing gives here, and a run without red."""
    assert judge(evidence=Evidence(()), upstream=True).state is CellState.GREEN
    assert judge(evidence=Evidence(()), patched=False).state is CellState.GREEN
    assert judge(evidence=None).state is CellState.GREEN


def test_a_red_of_more_tests_than_were_chosen_is_no_fault() -> None:
    chosen = replace(GOOD, results=(PROOF,), collected=1)
    assert judge(chosen).state is CellState.GREEN


def test_upstream_needs_no_red_but_a_proof() -> None:
    assert judge(evidence=Evidence(()), upstream=True).state is CellState.GREEN
    alone = replace(GOOD, results=(CONTROL,))
    assert judge(alone, Evidence(()), upstream=True).state is CellState.UNPROVEN


def test_without_a_question_for_red_the_tests_speak_alone() -> None:
    assert judge(evidence=None).state is CellState.GREEN


def test_no_test_at_all_is_not_green() -> None:
    cell = judge(name="three")
    assert cell.state is CellState.UNPROVEN
    assert "no selftest ran" in reasons(cell)


def test_a_splat_in_a_test_that_passed_is_a_crash_of_its_extension_only() -> None:
    report = replace(GOOD, results=(PROOF, CONTROL, OTHER), splats=(splat(PROOF.nodeid),))
    cell = judge(report)
    assert cell.state is CellState.CRASH
    assert "WARN in test_x.py::test_p" in reasons(cell)
    assert judge(report, None, name="two").state is CellState.GREEN


def test_a_splat_outside_any_test_is_everybodys() -> None:
    report = replace(GOOD, splats=(splat(""),))
    assert judge(report).state is CellState.CRASH
    assert judge(report, None, name="two").state is CellState.CRASH


def test_a_panic_names_its_test_and_leaves_others_unjudged() -> None:
    report = replace(
        GOOD,
        results=(CONTROL,),
        lost=(PROOF.nodeid, OTHER.nodeid),
        finished=False,
        splats=(splat(PROOF.nodeid, SplatKind.PANIC),),
    )
    cell = judge(report)
    assert cell.state is CellState.CRASH
    assert "panic in test_x.py::test_p" in reasons(cell)
    other = judge(report, None, name="two")
    assert other.state is CellState.LOST
    assert other.lost == (OTHER.nodeid,)
    assert PROOF.nodeid in reasons(other)


def test_a_session_cut_short_without_a_splat_is_never_a_pass() -> None:
    report = replace(GOOD, results=(CONTROL,), lost=(PROOF.nodeid,), finished=False)
    assert judge(report).state is CellState.CRASH


def test_all_results_but_no_end_is_never_a_pass() -> None:
    cell = judge(replace(GOOD, finished=False, exit_status=None))
    assert cell.state is CellState.CRASH
    assert "did not end" in reasons(cell)


@pytest.mark.parametrize(
    ("states", "code", "verdict"),
    [
        ((), ExitCode.GOOD, Verdict.GOOD),
        ((CellState.GREEN, CellState.GREEN), ExitCode.GOOD, Verdict.GOOD),
        ((CellState.GREEN, CellState.RED), ExitCode.RED, Verdict.BAD),
        ((CellState.UNPROVEN,), ExitCode.RED, Verdict.BAD),
        ((CellState.CONFLICT, CellState.GREEN), ExitCode.CONFLICT, Verdict.SKIP),
        ((CellState.CONFLICT, CellState.RED), ExitCode.CONFLICT, Verdict.BAD),
        ((CellState.BUILD, CellState.CONFLICT), ExitCode.BUILD, Verdict.SKIP),
        ((CellState.BUILD, CellState.CRASH), ExitCode.CRASH, Verdict.BAD),
        ((CellState.LOST,), ExitCode.CRASH, Verdict.BAD),
    ],
)
def test_the_largest_code_wins(
    states: tuple[CellState, ...], code: ExitCode, verdict: Verdict
) -> None:
    assert exit_code(states) is code
    assert verdict_of(states) is verdict


def test_a_conflict_says_where_and_what_next() -> None:
    region = Conflict("net/xfrm/xfrm_state.c", 1402, "content", "a", "b", "c", "edit it")
    outcome = PatchOutcome(
        "ext", "0001-x.patch", "x", PatchState.CONFLICT, conflicts=(region, region)
    )
    said = str(conflict_reason(outcome))
    assert "ext/0001-x.patch conflicts at net/xfrm/xfrm_state.c:1402 (content) and 1 more" in said
    assert said.endswith("edit it")


def test_an_obsolete_patch_says_so() -> None:
    outcome = PatchOutcome("ext", "p", "s", PatchState.OBSOLETE, detail="file x is gone")
    assert "obsolete: file x is gone" in str(conflict_reason(outcome))


def test_a_failed_build_quotes_its_error_or_every_unmet_symbol() -> None:
    kernel = Kernel("v6.12.1", KernelTag(6, 12, 1), "c", "t")
    failure = BuildFailure(kernel, "t", "plain", "a.c:1: error: x", "the log around it")
    (why,) = build_reasons(failure)
    assert str(why) == "build failed: a.c:1: error: x"
    assert why.excerpt == "the log around it"
    unmet = UnmetSymbol("XFRM_X", "y", "n", "kconfigs/base.config", 7, "depends on NET")
    (why,) = build_reasons(replace(failure, unmet=(unmet,)))
    assert str(why).startswith("XFRM_X=y came out as n: depends on NET; kconfigs/base.config:7")
