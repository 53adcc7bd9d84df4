# SPDX-License-Identifier: GPL-2.0-only
"""A conflict is laid out in three versions, at its place in the upstream file."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from toy_kernel import Files, ToyKernels, numbered, text

from workbench import report_series
from workbench.model import PatchState

if TYPE_CHECKING:
    from pathlib import Path

LINES = numbered("state", 60)
BASE: Files = {"net/state.c": text(LINES)}
NAME = "e/0001-keep-the-state.patch"


@pytest.fixture
def toys(tmp_path: Path) -> ToyKernels:
    """Give a base kernel, and an extension with one patch that changes lines 30 and 31."""
    found = ToyKernels(tmp_path)
    found.kernel("v5.10.262", {**BASE})
    found.describe("e")
    after = text(LINES, at30=b"patched\n", at31=b"patched too\n")
    found.patch(NAME, {**BASE}, {"net/state.c": after})
    return found


def test_a_region_has_three_versions_of_the_same_lines(toys: ToyKernels) -> None:
    theirs = text(LINES, at30=b"patched\n", at31=b"upstream\n")
    (conflict,) = toys.outcome(toys.kernel("v6.12.107", {"net/state.c": theirs})).conflicts
    # Line 30 became the same on both sides, and is shown: it says where the patch went.
    assert conflict.base == b"".join(LINES[29:31]).decode()
    assert conflict.upstream == "patched\nupstream\n"
    assert conflict.ours == "patched\npatched too\n"
    assert conflict.line == 30


def test_what_merged_above_does_not_move_a_region(toys: ToyKernels) -> None:
    """The line is upstream's, whatever other hunks of the patch put in or take out."""
    after = text(LINES, at5=b"more\n" * 7, at12=b"", at40=b"patched\n", at50=b"", at55=b"x\n")
    toys.patch(NAME, {**BASE}, {"net/state.c": after})
    theirs = b"new\n" + text(LINES, at9=b"", at40=b"upstream\n", at55=b"y\n")
    outcome = toys.outcome(toys.kernel("v6.12.107", {"net/state.c": theirs}))
    found = theirs.splitlines()
    assert [each.line for each in outcome.conflicts] == [
        found.index(b"upstream") + 1,
        found.index(b"y") + 1,
    ]
    assert outcome.conflicts[0].context.splitlines()[6] == "upstream"


def test_lines_that_are_alike_do_not_mislead(toys: ToyKernels) -> None:
    """Where equal lines repeat, a diff has a choice: the text decides."""
    block = [b"}\n", b"\n"]
    old = b"".join([*LINES[:20], *block * 3, *LINES[20:]])
    toys.kernel("v5.10.262", {"net/state.c": old})
    ours = b"".join([*LINES[:20], *block * 2, b"ours\n", *LINES[21:]])
    toys.patch(NAME, {"net/state.c": old}, {"net/state.c": ours})
    theirs = b"".join([*LINES[:20], *block * 3, b"upstream\n", *LINES[21:]])
    outcome = toys.outcome(toys.kernel("v6.12.107", {"net/state.c": theirs}))
    for conflict in outcome.conflicts:
        lines = theirs.splitlines(keepends=True)[conflict.line - 1 :]
        assert b"".join(lines).startswith(conflict.upstream.encode())
    assert "upstream" in outcome.conflicts[0].upstream


def test_a_hunk_without_a_base_shows_what_it_expects(toys: ToyKernels) -> None:
    other = numbered("other", 30)
    diff = toys.diff({"net/state.c": text(other)}, {"net/state.c": text(other, at9=b"x\n")})
    toys.write(NAME, diff.replace("index ", "index dead"))
    (conflict,) = toys.outcome(toys.kernel("v6.12.107", {**BASE})).conflicts
    assert conflict.base == b"".join(other[5:12]).decode()


def test_a_file_that_is_gone_shows_what_the_patch_was_made_on(toys: ToyKernels) -> None:
    outcome = toys.outcome(toys.kernel("v6.12.107", {"net/other.c": b"x\n"}))
    (conflict,) = outcome.conflicts
    assert outcome.state is PatchState.OBSOLETE
    assert conflict.base == b"".join(LINES[26:34]).decode()


def test_the_report_has_intent_and_three_versions(toys: ToyKernels) -> None:
    theirs = text(LINES, at30=b"", at31=b"")
    series = toys.rebase(toys.kernel("v6.12.107", {"net/state.c": theirs}))
    stream = io.StringIO()
    report_series.show([series], stream)
    told = [line.strip() for line in stream.getvalue().splitlines()]
    assert "intent: keep-the-state" in told
    start = told.index("what the patch was made on:")
    assert told[start + 1 : start + 7] == [
        "| state state 0030 state",
        "| state state 0031 state",
        "upstream: (nothing)",
        "the patch:",
        "| patched",
        "| patched too",
    ]
    data = json.loads(json.dumps(report_series.as_data([series], 3)))
    (found,) = data["kernels"][0]["patches"][0]["conflicts"]
    assert found["base"] == b"".join(LINES[29:31]).decode()
