# SPDX-License-Identifier: GPL-2.0-only
"""Every patch gets its word: clean, offset, 3-way, already upstream, obsolete or conflict."""

from __future__ import annotations

import io
import json
import shutil
from typing import TYPE_CHECKING

import pytest
from toy_kernel import Files, ToyKernels, numbered, text

from workbench import report_series
from workbench.errors import ExitCode, InfraError, UsageError
from workbench.extensions import load_extensions
from workbench.model import PatchState
from workbench.rebase import rebase

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.model import Kernel, KernelTag

LINES = numbered("state", 60)
OTHER = numbered("other", 30)
NAME = "e/0001-x.patch"


BASE: Files = {"net/state.c": text(LINES), "net/other.c": text(OTHER)}
PATCHED: Files = {**BASE, "net/state.c": text(LINES, at30=b"patched\n")}


@pytest.fixture
def toys(tmp_path: Path) -> ToyKernels:
    """Give a base kernel, and an extension with one patch that changes line 30."""
    found = ToyKernels(tmp_path)
    found.kernel("v5.10.262", {**BASE})
    found.describe("e")
    found.patch(NAME, {**BASE}, {**PATCHED})
    return found


def test_clean(toys: ToyKernels) -> None:
    kernel = toys.kernel("v6.12.107", {**BASE, "net/third.c": b"x\n"})
    series = toys.rebase(kernel)
    (outcome,) = series.outcomes
    assert (outcome.state, outcome.offsets, outcome.subject) == (PatchState.CLEAN, (), "x")
    assert series.applies
    assert outcome.commit == series.commit == toys.store.resolve(series.ref)
    assert toys.content(series.tree, "net/state.c") == PATCHED["net/state.c"]
    assert toys.content(series.tree, "net/third.c") == b"x\n"


def test_offset(toys: ToyKernels) -> None:
    kernel = toys.kernel("v6.12.107", {**BASE, "net/state.c": b"new\nnew\n" + text(LINES)})
    outcome = toys.outcome(kernel)
    assert (outcome.state, outcome.offsets) == (PatchState.OFFSET, (2,))


def test_three_way(toys: ToyKernels) -> None:
    near = text(LINES, at28=b"upstream\n")
    kernel = toys.kernel("v6.12.107", {**BASE, "net/state.c": near})
    series = toys.rebase(kernel)
    assert series.outcomes[0].state is PatchState.THREE_WAY
    both = text(LINES, at28=b"upstream\n", at30=b"patched\n")
    assert toys.content(series.tree, "net/state.c") == both


def test_three_way_follows_a_rename(toys: ToyKernels) -> None:
    moved = text(LINES, at28=b"upstream\n")
    kernel = toys.kernel("v6.12.107", {"net/other.c": BASE["net/other.c"], "net/x/state.c": moved})
    series = toys.rebase(kernel)
    (outcome,) = series.outcomes
    assert outcome.state is PatchState.THREE_WAY
    assert outcome.detail == "net/state.c is net/x/state.c here"
    assert b"patched" in (toys.content(series.tree, "net/x/state.c") or b"")
    assert toys.content(series.tree, "net/state.c") is None


def test_already_upstream_as_it_stands(toys: ToyKernels) -> None:
    kernel = toys.kernel("v6.12.107", {**PATCHED})
    series = toys.rebase(kernel)
    assert series.outcomes[0].state is PatchState.UPSTREAM
    assert series.applies
    assert (series.commit, series.tree) == (kernel.commit, kernel.tree)


def test_already_upstream_by_merging(toys: ToyKernels) -> None:
    same = text(LINES, at28=b"upstream\n", at30=b"patched\n")
    kernel = toys.kernel("v6.12.107", {**BASE, "net/state.c": same})
    assert toys.outcome(kernel).state is PatchState.UPSTREAM


def test_obsolete(toys: ToyKernels) -> None:
    kernel = toys.kernel("v6.12.107", {"net/other.c": BASE["net/other.c"]})
    outcome = toys.outcome(kernel)
    assert outcome.state is PatchState.OBSOLETE
    assert outcome.detail == "not in v6.12.107: net/state.c"
    assert outcome.conflicts[0].kind == "gone in v6.12.107"


def test_conflict_shows_region_both_sides_and_what_to_do(toys: ToyKernels) -> None:
    kernel = toys.kernel(
        "v6.12.107", {**BASE, "net/state.c": b"new\n" + text(LINES, at30=b"upstream\n")}
    )
    series = toys.rebase(kernel)
    (outcome,) = series.outcomes
    (conflict,) = outcome.conflicts
    assert outcome.state is PatchState.CONFLICT
    assert not series.applies
    assert (conflict.path, conflict.line) == ("net/state.c", 31)
    assert (conflict.upstream, conflict.ours) == ("upstream\n", "patched\n")
    assert conflict.context.splitlines()[6] == "upstream"
    assert len(conflict.context.splitlines()) == 13
    assert "patches/e/since-v6.12/0001-x.patch" in conflict.next_step
    assert 'base = "v6.12.107"' in conflict.next_step
    # The command it names shows the place.
    blob = conflict.next_step.split("cat-file -p ")[1].split(" ")[0]
    assert toys.store.cat_file(blob).splitlines()[30] == b"upstream"


def test_two_conflicts_in_one_file_are_two_regions(toys: ToyKernels) -> None:
    after = text(LINES, at10=b"patch a\n", at50=b"patch b\n")
    toys.patch(NAME, {**BASE}, {**BASE, "net/state.c": after})
    theirs = text(LINES, at10=b"up a\n", at50=b"up b\n")
    outcome = toys.outcome(toys.kernel("v6.12.107", {**BASE, "net/state.c": theirs}))
    assert [each.line for each in outcome.conflicts] == [10, 50]


def test_the_next_patches_are_tried_without_the_one_that_conflicts(toys: ToyKernels) -> None:
    second = {**PATCHED, "net/other.c": text(OTHER, at5=b"second\n")}
    third = {**second, "net/state.c": text(LINES, at30=b"patched again\n")}
    toys.patch("e/0002-y.patch", {**PATCHED}, second)
    toys.patch("e/0003-z.patch", second, third)
    kernel = toys.kernel("v6.12.107", {**BASE, "net/state.c": text(LINES, at30=b"upstream\n")})
    series = toys.rebase(kernel)
    states = [outcome.state for outcome in series.outcomes]
    assert states == [PatchState.CONFLICT, PatchState.CLEAN, PatchState.CONFLICT]
    assert series.outcomes[2].detail == "stands on 0001-x.patch, left out"
    assert series.commit == series.outcomes[1].commit
    assert b"second" in (toys.content(series.tree, "net/other.c") or b"")


def test_a_partly_gone_patch_is_a_conflict_that_names_the_file(toys: ToyKernels) -> None:
    both = {**PATCHED, "net/other.c": text(OTHER, at5=b"second\n")}
    toys.patch(NAME, {**BASE}, both)
    kernel = toys.kernel("v6.12.107", {"net/other.c": BASE["net/other.c"]})
    series = toys.rebase(kernel)
    assert series.outcomes[0].state is PatchState.CONFLICT
    assert series.outcomes[0].detail == "not in v6.12.107: net/state.c"
    assert series.tree == kernel.tree


def test_new_deleted_renamed_empty_and_mode_changed_files(toys: ToyKernels) -> None:
    before: Files = {**BASE, "tool.sh": b"#!\n", "gone.c": b"no newline"}
    after: Files = {
        "net/moved.c": text(LINES, at30=b"patched\n"),
        "net/other.c": BASE["net/other.c"],
        "tool.sh": ("100755", b"#!\n"),
        "new/dir/file.c": b"new, no newline",
        "empty": b"",
        "link": ("120000", b"net/other.c"),
    }
    toys.patch(NAME, before, after)
    kernel = toys.kernel("v6.12.107", {**before, "net/third.c": b"x\n"})
    series = toys.rebase(kernel)
    assert series.outcomes[0].state is PatchState.CLEAN
    wanted = toys.kernel("v6.12.108", {**after, "net/third.c": b"x\n"})
    makefile = "Makefile"
    listed = toys.store.git("diff-tree", "-r", "--name-only", series.tree, wanted.tree)
    assert listed == makefile


def test_a_file_that_both_add_is_a_conflict(toys: ToyKernels) -> None:
    toys.patch(NAME, {**BASE}, {**BASE, "net/new.c": b"ours\n"})
    outcome = toys.outcome(toys.kernel("v6.12.107", {**BASE, "net/new.c": b"theirs\n"}))
    assert outcome.state is PatchState.CONFLICT
    assert outcome.conflicts[0].kind == "both add the file"


@pytest.mark.parametrize("there", [{"net/new.c/x": b"x\n"}, {"net": b"x\n"}])
def test_a_new_file_does_not_push_a_directory_aside(
    tmp_path: Path, there: dict[str, bytes]
) -> None:
    toys = ToyKernels(tmp_path)
    toys.describe("e")
    toys.patch(NAME, {"a": b"a\n"}, {"a": b"a\n", "net/new.c": b"new\n"})
    kernel = toys.kernel("v6.12.107", {"a": b"a\n", **there})
    outcome = toys.outcome(kernel)
    assert outcome.state is PatchState.CONFLICT
    assert outcome.conflicts[0].kind == "file meets directory"


def test_a_link_out_of_the_tree_is_refused_even_when_only_its_text_is_changed(
    toys: ToyKernels,
) -> None:
    link = ("120000", b"net/other.c")
    kernel = toys.kernel("v6.12.107", {**BASE, "link": link})
    diff = toys.diff({"link": link}, {"link": ("120000", b"../../etc")})
    toys.write(
        NAME, "".join(line for line in diff.splitlines(keepends=True) if line[:6] != "index ")
    )
    with pytest.raises(UsageError, match=r"'link' becomes a symbolic link to '\.\./\.\./etc'"):
        toys.rebase(kernel)


def test_a_later_patch_is_merged_from_what_the_earlier_ones_made(toys: ToyKernels) -> None:
    """The blobs of patch 2 are in no kernel: they are made on the base when asked for."""
    second = {**PATCHED, "net/state.c": text(LINES, at30=b"patched\n", at33=b"second\n")}
    diff = toys.diff({**PATCHED}, second).replace("index ", "index dead")
    toys.write("e/0002-y.patch", diff)
    near = text(LINES, at28=b"upstream\n", at35=b"upstream\n")
    series = toys.rebase(toys.kernel("v6.12.107", {**BASE, "net/state.c": near}))
    assert [outcome.state for outcome in series.outcomes] == [PatchState.THREE_WAY] * 2
    wanted = text(
        LINES, at28=b"upstream\n", at30=b"patched\n", at33=b"second\n", at35=b"upstream\n"
    )
    assert toys.content(series.tree, "net/state.c") == wanted


def test_a_patch_that_fits_nowhere_says_so(toys: ToyKernels) -> None:
    diff = toys.diff({"net/state.c": text(OTHER)}, {"net/state.c": text(OTHER, at9=b"x\n")})
    toys.write(NAME, diff.replace("index ", "index dead"))
    outcome = toys.outcome(toys.kernel("v6.12.107", {**BASE}))
    (conflict,) = outcome.conflicts
    assert "it does not apply to its base v5.10.262 either" in outcome.detail
    assert (conflict.line, conflict.kind) == (6, "the hunk finds no place")
    assert conflict.upstream == b"".join(LINES[5:12]).decode()


def test_a_base_is_asked_for_only_when_a_merge_needs_it(toys: ToyKernels, tmp_path: Path) -> None:
    other = ToyKernels(tmp_path / "without the base")
    shutil.copytree(toys.paths.patches, other.paths.patches, dirs_exist_ok=True)
    there = other.kernel("v6.12.107", {**PATCHED})
    assert other.outcome(there).state is PatchState.UPSTREAM
    near = other.kernel("v6.12.108", {"net/state.c": text(LINES, at28=b"upstream\n")})
    with pytest.raises(InfraError, match=r"v5\.10\.262 is not in the toy store"):
        other.outcome(near)
    asked = []

    def obtain(tag: KernelTag) -> Kernel:
        asked.append(str(tag))
        return other.kernel(str(tag), {**BASE})

    extensions = load_extensions(other.paths)
    series = rebase(other.paths, other.store, near, extensions, obtain_base=obtain)
    assert (series.outcomes[0].state, asked) == (PatchState.THREE_WAY, ["v5.10.262"])


def test_the_result_is_the_same_commits_each_time(toys: ToyKernels, tmp_path: Path) -> None:
    kernel = toys.kernel("v6.12.107", {**BASE})
    first = toys.rebase(kernel)
    assert toys.rebase(kernel) == first
    other = ToyKernels(tmp_path / "elsewhere")
    other.kernel("v5.10.262", {**BASE})
    other.describe("e")
    other.patch(NAME, {**BASE}, {**PATCHED})
    assert other.rebase(other.kernel("v6.12.107", {**BASE})).commit == first.commit


def test_a_malformed_patch_is_refused_before_anything_is_tried(toys: ToyKernels) -> None:
    kernel = toys.kernel("v6.12.107", {**BASE})
    path = toys.paths.patches / "e" / "0002-bad.patch"
    path.write_bytes((toys.paths.patches / NAME).read_bytes()[:-80])
    with pytest.raises(UsageError, match=r"0002-bad\.patch:\d+: ") as caught:
        toys.rebase(kernel)
    assert caught.value.exit_code is ExitCode.USAGE
    assert toys.store.git("for-each-ref", "refs/kpw") == ""


def test_a_broken_store_is_no_conflict(toys: ToyKernels) -> None:
    kernel = toys.kernel("v6.12.107", {**BASE})
    blob = toys.store.resolve("v6.12.107:net/state.c") or ""
    (toys.store.path / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(InfraError):
        toys.rebase(kernel)


def test_the_report_tells_people_and_programs_the_same(toys: ToyKernels) -> None:
    kernel = toys.kernel(
        "v6.12.107", {**BASE, "net/state.c": text(LINES, at30=b"up\x1b[2Jstream\n")}
    )
    series = toys.rebase(kernel)
    stream = io.StringIO()
    report_series.show([series], stream)
    told = stream.getvalue()
    assert "net/state.c:30: both change the same lines (e, 0001-x.patch on v6.12.107)" in told
    assert "\x1b" not in told
    assert "v6.12.107: not all apply (1 conflict)" in told
    data = json.loads(json.dumps(report_series.as_data([series], 3)))
    (patch,) = data["kernels"][0]["patches"]
    assert (patch["state"], patch["conflicts"][0]["ours"]) == ("conflict", "patched\n")
