# SPDX-License-Identifier: GPL-2.0-only
"""Hunk by hunk: what is there already, what applies, what conflicts."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from toy_kernel import Files, ToyKernels, numbered, text

from workbench import report_series
from workbench.explained import HunkState
from workbench.model import PatchState

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.model import PatchOutcome

THERE, APPLIES, CONFLICTS = HunkState
LINES = numbered("state", 120)
PATH = "net/state.c"
BASE: Files = {PATH: text(LINES)}
NAME = "e/0001-x.patch"
#: What the patch does, hunk by hunk.
DONE = {
    "at10": b"first\n",
    "at30": LINES[29] + b"second\n",
    "at50": b"",
    "at70": b"fourth\n",
    "at90": b"fifth\n",
}


@pytest.fixture
def toys(tmp_path: Path) -> ToyKernels:
    """Give a base kernel, and an extension with one patch of five hunks."""
    found = ToyKernels(tmp_path)
    found.kernel("v5.10.262", {**BASE})
    found.describe("e")
    found.patch(NAME, {**BASE}, {PATH: text(LINES, **DONE)})
    return found


def states(outcome: PatchOutcome) -> list[HunkState]:
    return [hunk.state for hunk in outcome.hunks]


def ported(toys: ToyKernels, **changes: bytes) -> PatchOutcome:
    return toys.outcome(toys.kernel("v6.12.107", {PATH: text(LINES, **changes)}))


def without_base(toys: ToyKernels) -> None:
    """Give the patch blobs nobody knows, made of a file it cannot be put back to."""
    before = text(LINES, at2=b"only the author has this line\n")
    after = text(LINES, **DONE, at2=b"and changes it\n")
    diff = toys.diff({PATH: before}, {PATH: after})
    toys.write(NAME, diff.replace("index ", "index dead"))


def test_a_conflicting_patch_is_told_hunk_by_hunk(toys: ToyKernels) -> None:
    outcome = ported(toys, at10=b"first\n", at50=b"", at70=b"upstream\n")
    assert outcome.state is PatchState.CONFLICT
    assert states(outcome) == [THERE, APPLIES, THERE, CONFLICTS, APPLIES]
    assert outcome.detail == "partly upstream: 2 of 5 hunks are there"
    patch = (toys.paths.patches / NAME).read_text().splitlines()
    assert all(patch[hunk.line - 1].startswith("@@ ") for hunk in outcome.hunks)
    assert {hunk.path for hunk in outcome.hunks} == {PATH}


def test_upstreams_lines_beside_a_hunk_do_not_hide_that_it_is_there(toys: ToyKernels) -> None:
    near = {"at8": b"upstream\n", "at12": b"upstream\n"}
    outcome = ported(toys, **near, at10=b"first\n", at70=b"upstream\n")
    assert states(outcome) == [THERE, APPLIES, APPLIES, CONFLICTS, APPLIES]
    assert outcome.detail == "partly upstream: 1 of 5 hunks is there"


def test_a_patch_that_merges_tells_what_is_there_too(toys: ToyKernels) -> None:
    outcome = ported(toys, at10=b"first\n", at50=b"")
    assert outcome.state is PatchState.THREE_WAY
    assert states(outcome) == [THERE, APPLIES, THERE, APPLIES, APPLIES]
    assert outcome.detail == "partly upstream: 2 of 5 hunks are there"


def test_nothing_there_is_not_partly(toys: ToyKernels) -> None:
    outcome = ported(toys, at70=b"upstream\n")
    assert states(outcome) == [APPLIES, APPLIES, APPLIES, CONFLICTS, APPLIES]
    assert outcome.detail == ""


def test_all_there_is_upstream(toys: ToyKernels) -> None:
    assert ported(toys, **DONE).state is PatchState.UPSTREAM
    near = {**DONE, "at12": b"upstream\n"}
    assert ported(toys, **near).state is PatchState.UPSTREAM


def test_a_patch_that_can_neither_be_merged_nor_taken_back_may_be_upstream(
    toys: ToyKernels,
) -> None:
    """One hunk is there by merging, the other moved: git has no word for both at once."""
    after = text(LINES, at10=b"first\n", at70=b"fourth\n")
    toys.patch(NAME, {**BASE}, {PATH: after})
    lines = text(LINES, at10=b"first\n", at12=b"upstream\n", at70=b"fourth\n").splitlines(
        keepends=True
    )
    kernel = toys.kernel("v6.12.107", {PATH: b"".join([*lines[:60], *lines[80:], *lines[60:80]])})
    series = toys.rebase(kernel)
    (outcome,) = series.outcomes
    assert states(outcome) == [THERE, THERE]
    assert (outcome.state, series.tree) == (PatchState.UPSTREAM, kernel.tree)
    assert outcome.detail == "each hunk of it is there"


def test_without_a_base_the_hunks_are_tried_as_they_stand(toys: ToyKernels) -> None:
    without_base(toys)
    outcome = ported(toys, at10=b"first\n", at50=b"", at70=b"upstream\n")
    assert outcome.state is PatchState.CONFLICT
    assert states(outcome) == [CONFLICTS, THERE, APPLIES, THERE, CONFLICTS, APPLIES]
    assert "partly upstream: 2 of 6 hunks are there" in outcome.detail


def test_the_nearer_place_decides_when_a_hunk_fits_both_ways(toys: ToyKernels) -> None:
    """The same lines stand twice in the file: with the hunk's change and without."""
    block = [b"{\n", b"one\n", b"two\n", b"three\n", b"five\n", b"six\n", b"seven\n", b"}\n"]
    done = [*block[:4], b"four\n", *block[4:]]
    only = [b"only the author has it\n", *LINES[:9]]
    old, new = [*only, *block, *LINES[9:60]], [b"changed\n", *LINES[:9], *done, *LINES[9:60]]
    diff = toys.diff({PATH: b"".join(old)}, {PATH: b"".join(new)})
    toys.write(NAME, diff.replace("index ", "index dead"))
    here = b"".join([*LINES[:10], *done, *LINES[10:60], *block])
    outcome = toys.outcome(toys.kernel("v6.12.107", {PATH: here}))
    assert states(outcome) == [CONFLICTS, THERE]
    here = b"".join([*LINES[:10], *block, *LINES[10:60], *done])
    outcome = toys.outcome(toys.kernel("v6.12.107", {PATH: here}))
    assert states(outcome) == [CONFLICTS, APPLIES]


def test_new_deleted_and_gone_files_are_hunks_too(toys: ToyKernels) -> None:
    before: Files = {**BASE, "old.c": b"old\n", "older.c": b"older\n", "gone.c": text(LINES[:9])}
    after: Files = {
        PATH: text(LINES, at70=b"fourth\n"),
        "gone.c": text(LINES[:9], at5=b"x\n"),
        "new.c": b"new\n",
        "newer.c": b"newer\n",
        "newest.c": b"newest\n",
    }
    toys.kernel("v5.10.262", before)
    toys.patch(NAME, before, after)
    theirs: Files = {
        PATH: text(LINES, at70=b"up\n"),
        "new.c": b"new\n",
        "newest.c": b"upstream's\n",
        "old.c": b"old\n",
    }
    outcome = toys.outcome(toys.kernel("v6.12.107", theirs))
    assert {hunk.path: hunk.state for hunk in outcome.hunks} == {
        "gone.c": CONFLICTS,
        PATH: CONFLICTS,
        "new.c": THERE,
        "newer.c": APPLIES,
        "newest.c": CONFLICTS,
        "old.c": APPLIES,
        "older.c": THERE,
    }


def test_the_report_tells_the_hunks(toys: ToyKernels) -> None:
    kernel = toys.kernel("v6.12.107", {PATH: text(LINES, at10=b"first\n", at70=b"upstream\n")})
    series = toys.rebase(kernel)
    stream = io.StringIO()
    report_series.show([series], stream)
    told = stream.getvalue()
    lines = [hunk.line for hunk in series.outcomes[0].hunks]
    assert f"hunks of {NAME}: 1 of 5 already there: {PATH} @{lines[0]}\n" in told
    assert f"1 of 5 conflicts: {PATH} @{lines[3]}\n" in told
    assert "conflict | partly upstream: 1 of 5 hunks is there\n" in told
    data = json.loads(json.dumps(report_series.as_data([series], 3)))
    hunks = data["kernels"][0]["patches"][0]["hunks"]
    assert hunks[0] == {"path": PATH, "patch_line": lines[0], "state": "already there"}
    assert len(hunks) == 5
