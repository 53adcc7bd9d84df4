# SPDX-License-Identifier: GPL-2.0-only
"""A resolution is used again where the conflict is the same, and nowhere else."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from test_resolving import BASE, BOTH, LINES, NAME, PATCHED, TAG, UPSTREAM, opened, resolve, text
from test_resolving import desk as desk_of
from test_resolving import toys as toys  # noqa: PLC0414 - a fixture

from workbench import report_series, tested
from workbench.errors import UsageError
from workbench.filechange import Hunk
from workbench.model import PatchState
from workbench.progress import Silent
from workbench.prove import ProofState
from workbench.standoff import sides

if TYPE_CHECKING:
    from pathlib import Path

    from toy_kernel import ToyKernels


@pytest.fixture
def known(toys: ToyKernels) -> ToyKernels:
    """Give the toys with their conflict resolved on 6.12.107."""
    kernel = toys.kernel(TAG, {**UPSTREAM})
    found = opened(toys, kernel)
    resolve(found)
    assert desk_of(toys).settle(found, kernel, Silent()).missing == ()
    return toys


def resolution(toys: ToyKernels) -> Path:
    (file,) = (toys.paths.patches / "e" / "resolutions").iterdir()
    return file


def test_it_is_used_on_the_next_tag_where_the_rest_of_the_file_moved(known: ToyKernels) -> None:
    moved = b"new\nnew\n" + text(LINES, at30=b"upstream\n", at50=b"elsewhere\n")
    kernel = known.kernel("v7.1.13", {**BASE, "net/state.c": moved})
    series = known.rebase(kernel)
    (outcome,) = series.outcomes
    assert (outcome.state, outcome.state.applies) == (PatchState.REMEMBERED, True)
    assert f"as resolved on {TAG} ({resolution(known).name})" in outcome.detail
    assert outcome.commit == series.commit
    wanted = b"new\nnew\n" + text(LINES, at30=b"upstream, patched\n", at50=b"elsewhere\n")
    assert known.content(series.tree, "net/state.c") == wanted


@pytest.mark.parametrize(
    "there",
    [
        text(LINES, at30=b"upstream, otherwise\n"),
        text(LINES, at30=b"upstream\n", at32=b"something near\n"),
    ],
    ids=["another conflict", "another context"],
)
def test_it_is_used_only_for_the_same_conflict_in_the_same_place(
    known: ToyKernels, there: bytes
) -> None:
    kernel = known.kernel("v7.1.13", {**BASE, "net/state.c": there})
    assert known.outcome(kernel).state is PatchState.CONFLICT


def test_what_the_resolution_keeps_is_part_of_the_conflict_too(toys: ToyKernels) -> None:
    """The diff alone would apply: it shows three lines around what it changes, not the rest."""

    def upstream(middle: bytes) -> bytes:
        lines = [b"long %d\n" % number for number in range(20)]
        lines[10] = middle
        return text(LINES, at30=b"".join(lines))

    kernel = toys.kernel(TAG, {**BASE, "net/state.c": upstream(b"middle\n")})
    found = opened(toys, kernel)
    resolve(found, upstream(b"middle\n"))
    assert desk_of(toys).settle(found, kernel, Silent()).missing == ()
    assert toys.outcome(kernel).state is PatchState.REMEMBERED
    other = {**BASE, "net/state.c": upstream(b"another\n")}
    assert toys.outcome(toys.kernel("v7.1.13", other)).state is PatchState.CONFLICT


def test_it_is_not_used_for_another_patch(known: ToyKernels) -> None:
    kernel = known.kernel("v7.1.13", {**UPSTREAM})
    known.patch(NAME, {**BASE}, {**PATCHED, "net/far.c": b"near\n"})
    assert known.outcome(kernel).state is PatchState.CONFLICT


def test_it_is_not_used_where_one_more_file_conflicts(known: ToyKernels) -> None:
    more = {**UPSTREAM, "net/other.c": b"nothing of it left\n"}
    assert known.outcome(known.kernel("v7.1.13", more)).state is PatchState.CONFLICT


def test_it_does_not_matter_where_a_patch_merges_by_itself(known: ToyKernels) -> None:
    assert known.outcome(known.kernel("v7.1.13", {**BASE})).state is PatchState.CLEAN
    assert known.outcome(known.kernel("v7.1.14", {**PATCHED})).state is PatchState.UPSTREAM


def test_the_same_resolution_is_the_same_file_for_everyone(
    known: ToyKernels, tmp_path: Path
) -> None:
    other = type(known)(tmp_path / "elsewhere")
    other.kernel("v5.10.262", {**BASE})
    other.describe("e")
    other.patch(NAME, {**BASE}, {**PATCHED})
    kernel = other.kernel(TAG, {**UPSTREAM})
    found = opened(other, kernel)
    resolve(found)
    desk_of(other).settle(found, kernel, Silent())
    assert resolution(other).name == resolution(known).name
    assert resolution(other).read_bytes() == resolution(known).read_bytes()


def test_it_is_made_anew_when_the_file_is_removed(known: ToyKernels) -> None:
    kernel = known.kernel(TAG, {**UPSTREAM})
    with pytest.raises(UsageError, match=r"is resolved already, .* remove that file"):
        opened(known, kernel)
    resolution(known).unlink()
    found = opened(known, kernel)
    resolve(found, text(LINES, at30=b"better\n"))
    desk_of(known).settle(found, kernel, Silent())
    assert b"better\n" in (known.content(known.rebase(kernel).tree, "net/state.c") or b"")


def test_one_that_was_tampered_with_leads_nowhere(known: ToyKernels) -> None:
    kernel = known.kernel(TAG, {**UPSTREAM})
    file = resolution(known)
    whole = file.read_text()
    file.write_text(whole.replace("net/state.c", "net/../../state.c"))
    with pytest.raises(UsageError, match=r"\.resolution:\d+: .* leaves the tree"):
        known.rebase(kernel)
    file.write_text(whole.replace("+upstream, patched", "+<<<<<<< upstream"))
    assert known.outcome(kernel).state is PatchState.CONFLICT
    file.write_text(whole[:-30])
    with pytest.raises(UsageError, match=r"\.resolution:\d+: "):
        known.rebase(kernel)
    file.write_text(whole)
    file.rename(file.with_suffix(".patch"))
    with pytest.raises(UsageError, match=r"is no resolution; they are named \*\.resolution"):
        known.rebase(kernel)


def test_the_reports_say_that_it_was_remembered(known: ToyKernels) -> None:
    series = known.rebase(known.kernel(TAG, {**UPSTREAM}))
    stream = io.StringIO()
    report_series.show([series], stream)
    told = stream.getvalue()
    assert "e | 0001-x.patch | remembered | as resolved on v6.12.107" in told
    assert "'kpw prove' confirms it" in told
    assert "v6.12.107: all apply (1 remembered)" in told
    data = json.loads(json.dumps(report_series.as_data([series], 0)))
    assert data["kernels"][0]["patches"][0]["state"] == "remembered"
    assert known.content(series.tree, "net/state.c") == BOTH


@pytest.mark.parametrize(
    ("extension", "state", "proofs", "told"),
    [
        ("e", "green", [ProofState.RED, ProofState.RED], "; proven today: 'kpw save' "),
        ("e", "green", [ProofState.RED, "passes"], "; 'kpw prove' confirms it"),
        ("e", "green", [], "; 'kpw prove' confirms it"),
        ("e", "red", [ProofState.RED], "; 'kpw prove' confirms it"),
        ("f", "green", [ProofState.RED], "; 'kpw prove' confirms it"),
    ],
)
def test_a_run_that_proved_the_patch_confirms_its_resolution(
    known: ToyKernels, extension: str, state: str, proofs: list[str], told: str
) -> None:
    series = known.rebase(known.kernel(TAG, {**UPSTREAM}))
    trial = {
        "kernel": TAG,
        "commit": series.kernel.commit,
        "flavour": "plain",
        "arch": "x86_64",
        "patches": [{"commit": series.outcomes[0].commit}, {"commit": "later"}],
        "cells": [
            {
                "extension": extension,
                "state": state,
                "proofs": [{"state": proof} for proof in proofs],
            }
        ],
    }
    kept = known.paths.runs / "20261123-000000-1" / "report.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"started": "today", "trials": [trial]}))
    (outcome,) = tested.confirmed(known.paths, series).outcomes
    assert outcome.detail.startswith(f"as resolved on {TAG} ({resolution(known).name}){told}")


def test_a_run_of_a_few_tests_confirms_no_resolution(known: ToyKernels) -> None:
    series = known.rebase(known.kernel(TAG, {**UPSTREAM}))
    proof = {"state": ProofState.RED}
    trial: dict[str, object] = {
        "kernel": TAG,
        "commit": series.kernel.commit,
        "flavour": "plain",
        "arch": "x86_64",
        "patches": [{"commit": series.outcomes[0].commit}],
        "cells": [{"extension": "e", "state": "green", "proofs": [proof]}],
    }
    kept = known.paths.runs / "20261123-000000-1" / "report.json"
    kept.parent.mkdir(parents=True)
    for expression, unconfirmed in (("one", {"e"}), ("", set())):
        report = {"started": "today", "trials": [trial | {"expression": expression}]}
        kept.write_text(json.dumps(report))
        assert tested.unconfirmed(known.paths, series) == unconfirmed


def hunk(start: int, before: bytes, after: bytes) -> Hunk:
    body = [b"-" + line for line in before.splitlines(keepends=True)]
    body += [b"+" + line for line in after.splitlines(keepends=True)]
    return Hunk(1, start, before.count(b"\n"), start, after.count(b"\n"), tuple(body))


@pytest.mark.parametrize(
    ("text_now", "hunks", "wanted"),
    [
        (b"a\nb\nc\n", [hunk(2, b"b\n", b"B\n")], (b"a\nb\nc\n", b"a\nB\nc\n")),
        (b"x\na\nb\nc\n", [hunk(2, b"b\n", b"B\n")], (b"x\na\nb\nc\n", b"x\na\nB\nc\n")),
        (b"a\nx\nc\n", [hunk(2, b"b\n", b"B\n")], (b"a\nb\nc\n", b"a\nB\nc\n")),
        (b"b\na\nb\n", [hunk(3, b"b\n", b"B\n")], (b"b\na\nb\n", b"b\na\nB\n")),
        (
            b"a\nb\nb\n",
            [hunk(2, b"b\n", b"1\n"), hunk(3, b"b\n", b"2\n")],
            (b"a\nb\nb\n", b"a\n1\n2\n"),
        ),
        (
            b"x\nx\na\nb\nb\nb\n",
            [hunk(1, b"a\n", b"A\n"), hunk(4, b"b\n", b"B\n")],
            (b"x\nx\na\nb\nb\nb\n", b"x\nx\nA\nb\nb\nB\n"),
        ),
        (b"", [hunk(0, b"", b"new\n")], (b"", b"new\n")),
        (b"a\n", [hunk(9, b"z\n", b"Z\n")], (b"a\nz\n", b"a\nZ\n")),
    ],
    ids=[
        "in place",
        "moved",
        "not found",
        "the nearest",
        "in order",
        "as moved as the last",
        "new file",
        "past the end",
    ],
)
def test_sides_are_the_text_as_the_hunks_expect_and_leave_it(
    text_now: bytes, hunks: list[Hunk], wanted: tuple[bytes, bytes]
) -> None:
    assert sides(text_now, hunks) == wanted


def test_what_a_killed_run_left_beside_them_is_no_resolution(known: ToyKernels) -> None:
    kernel = known.kernel(TAG, {**UPSTREAM})
    file = resolution(known)
    file.with_name(f".{file.name}.12-abcd").write_bytes(b"half of it")
    assert known.outcome(kernel).state is PatchState.REMEMBERED
