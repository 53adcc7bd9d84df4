# SPDX-License-Identifier: GPL-2.0-only
"""A patch of unknown origin is merged from the imported kernel it applies to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from toy_kernel import Files, ToyKernels, numbered, text

from workbench import apt, process, report_series
from workbench.carry import rebase_all
from workbench.errors import InfraError
from workbench.extensions import load_extensions
from workbench.model import PatchState
from workbench.progress import Silent
from workbench.rebase import rebase

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.model import Kernel, KernelTag

LINES = numbered("state", 60)
PATH = "net/state.c"
NAME = "e/0001-x.patch"
#: As the kernels before and after 6.1 have it.
OLD: Files = {PATH: text(LINES)}
NEW: Files = {PATH: text(LINES, at29=b"since 6.1\n")}
NEWER: Files = {PATH: text(LINES, at29=b"since 6.1\n", at33=b"since 6.12\n")}


@pytest.fixture
def toys(tmp_path: Path) -> ToyKernels:
    """Give kernels, and a patch made on 6.1's text with blobs nobody knows."""
    found = ToyKernels(tmp_path)
    found.kernel("v5.10.262", {**OLD})
    found.kernel("v6.1.187", {**NEW, "net/other.c": b"x\n"})
    found.describe("e")
    unknown(found, NAME, {**NEW}, {PATH: text(LINES, at29=b"since 6.1\n", at30=b"patched\n")})
    return found


def unknown(toys: ToyKernels, name: str, before: Files, after: Files) -> None:
    """Write a patch whose index lines name blobs that are nowhere."""
    toys.write(name, toys.diff(before, after).replace("index ", "index dead"))


def test_the_tag_it_applies_to_is_found_and_merged_from(toys: ToyKernels) -> None:
    series = toys.rebase(toys.kernel("v6.12.107", {**NEWER}))
    (outcome,) = series.outcomes
    assert (outcome.state, outcome.inferred_base) == (PatchState.THREE_WAY, "v6.1.187")
    assert outcome.detail == "its base is unknown, v6.1.187 taken"
    wanted = text(LINES, at29=b"since 6.1\n", at30=b"patched\n", at33=b"since 6.12\n")
    assert toys.content(series.tree, PATH) == wanted


def test_the_tree_is_the_one_git_am_makes_of_a_patch_that_knows_its_blobs(
    toys: ToyKernels,
) -> None:
    kernel = toys.kernel("v6.12.107", {**NEWER})
    tree = toys.rebase(kernel).tree
    work = toys.work_tree(kernel)
    assert not work.am(toys.paths.patches / NAME)
    after = {PATH: text(LINES, at29=b"since 6.1\n", at30=b"patched\n")}
    assert work.am(toys.patch(NAME, {**NEW}, {**after}))
    assert work.tree == tree


def test_the_declared_base_is_tried_first(toys: ToyKernels) -> None:
    toys.describe("e", base="v6.1.187")
    toys.kernel("v6.1.100", {**NEW})
    outcome = toys.outcome(toys.kernel("v6.12.107", {**NEWER}))
    assert outcome.inferred_base == "v6.1.187"


def test_the_nearest_to_the_declared_base_is_tried_next(toys: ToyKernels) -> None:
    toys.kernel("v5.15.200", {**NEW})
    toys.kernel("v5.10.100", {**OLD})
    outcome = toys.outcome(toys.kernel("v6.12.107", {**NEWER}))
    assert outcome.inferred_base == "v5.15.200"


def test_a_later_patch_is_found_on_what_the_earlier_ones_make_there(toys: ToyKernels) -> None:
    first: Files = {PATH: text(LINES, at29=b"since 6.1\n", at30=b"patched\n")}
    second: Files = {PATH: text(LINES, at29=b"since 6.1\n", at30=b"patched\n", at31=b"again\n")}
    unknown(toys, "e/0002-y.patch", first, second)
    series = toys.rebase(toys.kernel("v6.12.107", {**NEWER}))
    assert [each.state for each in series.outcomes] == [PatchState.THREE_WAY] * 2
    assert [each.inferred_base for each in series.outcomes] == ["v6.1.187"] * 2
    wanted = text(
        LINES, at29=b"since 6.1\n", at30=b"patched\n", at31=b"again\n", at33=b"since 6.12\n"
    )
    assert toys.content(series.tree, PATH) == wanted


def test_a_kernel_that_has_a_variant_is_tried_with_the_patch_itself(toys: ToyKernels) -> None:
    toys.describe("e", '[variants."v6.1"]\nbase = "v6.1.187"\n')
    toys.patch("e/since-v6.1/0001-x.patch", {**NEW}, {**NEW, "net/new.c": b"x\n"})
    outcome = toys.outcome(toys.kernel("v5.15.200", {**NEWER}))
    assert (outcome.state, outcome.inferred_base) == (PatchState.THREE_WAY, "v6.1.187")


def test_a_conflict_is_a_true_one_with_the_base_that_was_found(toys: ToyKernels) -> None:
    theirs = text(LINES, at29=b"since 6.1\n", at30=b"upstream\n")
    series = toys.rebase(toys.kernel("v6.12.107", {PATH: theirs}))
    (outcome,) = series.outcomes
    (conflict,) = outcome.conflicts
    assert (outcome.state, outcome.inferred_base) == (PatchState.CONFLICT, "v6.1.187")
    assert (conflict.kind, conflict.line) == ("both change the same lines", 30)
    assert (conflict.base, conflict.ours) == (LINES[29].decode(), "patched\n")
    assert conflict.work is not None
    assert (conflict.work.since, conflict.work.between) == (
        "v6.1.187",
        (("v6.1.187", "v6.12.107"),),
    )
    data = json.loads(json.dumps(report_series.as_data([series], 3)))
    assert data["kernels"][0]["patches"][0]["inferred_base"] == "v6.1.187"


def test_known_blobs_are_not_guessed_at(toys: ToyKernels) -> None:
    toys.patch(NAME, {**NEW}, {PATH: text(LINES, at29=b"since 6.1\n", at30=b"patched\n")})
    outcome = toys.outcome(toys.kernel("v6.12.107", {**NEWER}))
    assert (outcome.state, outcome.inferred_base) == (PatchState.THREE_WAY, "")
    assert outcome.detail == ""


def test_no_kernel_is_brought_in_to_try_it(toys: ToyKernels) -> None:
    """The toy store has no 6.6, which a restore names: there the patch is tried without."""
    table = '[[restore]]\nsince = "v6.18"\nfrom = "v6.6.1"\npaths = ["net/gone.c"]\n'
    toys.describe("e", table)
    toys.kernel("v6.18.15", {"net/other.c": b"x\n"})
    series = toys.rebase(toys.kernel("v6.12.107", {**NEWER}))
    assert series.outcomes[-1].inferred_base == "v6.1.187"
    unknown(toys, NAME, {"net/no.c": text(LINES)}, {"net/no.c": text(LINES, at9=b"x\n")})
    (outcome,) = toys.rebase(toys.kernel("v6.12.107", {**NEWER})).outcomes
    assert outcome.inferred_base == ""
    assert "nor to another tag here" in outcome.detail


def without_its_base(toys: ToyKernels) -> None:
    """Take away the kernel the patch says it was made on."""
    toys.store.git("update-ref", "-d", "refs/tags/v5.10.262")


def test_the_nearest_that_fits_stands_in_for_a_base_that_cannot_be_had(toys: ToyKernels) -> None:
    without_its_base(toys)
    outcome = toys.outcome(toys.kernel("v6.12.107", {**NEWER}))
    assert (outcome.state, outcome.inferred_base) == (PatchState.THREE_WAY, "v6.1.187")
    assert outcome.detail == (
        "its base v5.10.262 cannot be had (v5.10.262 is not in the toy store), v6.1.187 taken"
    )


def test_a_base_that_cannot_be_had_is_asked_for_once(toys: ToyKernels) -> None:
    without_its_base(toys)
    first: Files = {PATH: text(LINES, at29=b"since 6.1\n", at30=b"patched\n")}
    second: Files = {PATH: text(LINES, at29=b"since 6.1\n", at30=b"patched\n", at31=b"again\n")}
    unknown(toys, "e/0002-y.patch", first, second)
    asked = []

    def obtain(tag: KernelTag) -> Kernel:
        asked.append(str(tag))
        raise InfraError("no network")

    kernels = [toys.kernel(name, {**NEWER}) for name in ("v6.12.107", "v6.18.15")]
    loaded = load_extensions(toys.paths)
    done = rebase_all(toys.paths, toys.store, kernels, loaded, obtain_base=obtain)
    assert asked == ["v5.10.262"]
    assert {each.inferred_base for series in done for each in series.outcomes} == {"v6.1.187"}


def test_a_base_that_cannot_be_had_is_a_fault_when_nothing_fits(toys: ToyKernels) -> None:
    without_its_base(toys)
    kernel = toys.kernel("v6.12.107", {PATH: b"all else\n"})
    toys.store.git("update-ref", "-d", "refs/tags/v6.1.187")
    with pytest.raises(InfraError, match="no imported kernel can stand in for it") as caught:
        toys.rebase(kernel)
    assert caught.value.where == f"patches/{NAME}"
    assert "v5.10.262 is not in the toy store" in caught.value.what
    assert "kpw fetch v5.10.262" in caught.value.next_step


def test_a_renamed_file_is_found_without_the_base(toys: ToyKernels) -> None:
    toys.patch(NAME, {**NEW}, {PATH: text(LINES, at29=b"since 6.1\n", at30=b"patched\n")})
    without_its_base(toys)
    outcome = toys.outcome(toys.kernel("v6.12.107", {"net/new/state.c": NEWER[PATH]}))
    assert outcome.state is PatchState.THREE_WAY
    assert "net/state.c is net/new/state.c here" in outcome.detail
    assert "its base v5.10.262 cannot be had" in outcome.detail


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no source but a repository be asked."""
    monkeypatch.delenv("KPW_KERNEL_KEYRING", raising=False)
    monkeypatch.setattr(apt, "bases", tuple)


@pytest.mark.usefixtures("no_network")
def test_a_base_comes_out_of_the_users_repository(toys: ToyKernels) -> None:
    repo = toys.root / "linux"
    process.run(["git", "clone", "-q", "--bare", toys.store.path, repo])
    toys.describe("e", base="v6.1.187")
    kernel = toys.kernel("v6.12.107", {**NEWER})
    for name in ("v5.10.262", "v6.1.187"):
        toys.store.git("update-ref", "-d", f"refs/tags/{name}")
    loaded = load_extensions(toys.paths)
    (alone,) = rebase(toys.paths, toys.store, kernel, loaded, Silent(), repo=repo).outcomes
    assert (alone.state, alone.inferred_base) == (PatchState.THREE_WAY, "v6.1.187")
    (series,) = rebase_all(toys.paths, toys.store, [kernel], loaded, repo=repo)
    assert series.outcomes == (alone,)
