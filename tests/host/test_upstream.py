# SPDX-License-Identifier: GPL-2.0-only
"""What upstream did at a conflict: commits where there is a history, imported tags elsewhere."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from toy_kernel import Files, ToyKernels, makefile, numbered, offline, text

from workbench import clone, process, report_series
from workbench.carry import rebase_all
from workbench.errors import InfraError
from workbench.explained import UpstreamWork
from workbench.extensions import load_extensions
from workbench.gitstore import Store
from workbench.progress import Silent

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.model import Kernel, RebasedSeries

LINES = numbered("state", 60)
PATH = "net/state.c"
BASE: Files = {PATH: text(LINES)}
NAME = "e/0001-x.patch"


@pytest.fixture
def toys(tmp_path: Path) -> ToyKernels:
    """Give a base kernel, and an extension with one patch that changes line 30."""
    found = ToyKernels(tmp_path)
    found.kernel("v5.10.262", {**BASE})
    found.describe("e")
    found.patch(NAME, {**BASE}, {PATH: text(LINES, at30=b"patched\n")})
    return found


def work(series: RebasedSeries) -> UpstreamWork:
    """Return what is told of the only conflict."""
    (conflict,) = [each for outcome in series.outcomes for each in outcome.conflicts]
    assert conflict.work is not None
    return conflict.work


def subjects(series: RebasedSeries) -> list[str]:
    return [commit.subject for commit in work(series).commits]


# Imported tarballs


def test_tags_tell_between_which_the_lines_changed(toys: ToyKernels) -> None:
    toys.kernel("v6.1.187", {PATH: text(LINES, at10=b"elsewhere\n" * 4)})
    toys.kernel("v6.12.38", {PATH: b"top\n" + text(LINES, at10=b"elsewhere\n" * 4)})
    toys.kernel("v6.12.95", {PATH: text(LINES, at10=b"", at30=b"upstream\n")})
    toys.kernel("v7.1.8", {PATH: text(LINES, at10=b"", at30=b"not on the way\n")})
    kernel = toys.kernel("v6.18.15", {PATH: text(LINES, at30=b"upstream\n", at50=b"later\n")})
    assert work(toys.rebase(kernel)) == UpstreamWork(
        "v5.10.262", between=(("v6.12.38", "v6.12.95"),)
    )


def test_each_change_on_the_way_is_told_the_nearest_first(toys: ToyKernels) -> None:
    toys.kernel("v6.1.187", {PATH: text(LINES, at30=b"once\n")})
    toys.kernel("v6.12.38", {PATH: text(LINES, at30=b"once\n", at5=b"elsewhere\n")})
    kernel = toys.kernel("v6.12.107", {PATH: text(LINES, at30=b"twice\n")})
    assert work(toys.rebase(kernel)).between == (
        ("v6.12.38", "v6.12.107"),
        ("v5.10.262", "v6.1.187"),
    )


def test_lines_that_upstream_took_out_are_found_too(toys: ToyKernels) -> None:
    toys.kernel("v6.1.187", {PATH: text(LINES, at5=b"elsewhere\n")})
    kernel = toys.kernel("v6.12.107", {PATH: text(LINES, at5=b"elsewhere\n", at30=b"")})
    assert work(toys.rebase(kernel)).between == (("v6.1.187", "v6.12.107"),)


def test_on_the_way_to_an_older_kernel_the_older_is_still_named_first(toys: ToyKernels) -> None:
    toys.kernel("v6.12.38", {PATH: text(LINES, at30=b"older\n")})
    toys.kernel("v6.18.15", {**BASE})
    toys.describe("e", base="v6.18.15")
    kernel = toys.kernel("v6.1.187", {PATH: text(LINES, at30=b"older\n")})
    assert work(toys.rebase(kernel)).between == (("v6.12.38", "v6.18.15"),)


def test_our_own_earlier_patches_do_not_count_as_upstreams(toys: ToyKernels) -> None:
    """The conflict's lines are ours and upstream's: upstream's are looked up where it has them."""
    first = {PATH: text(LINES, at8=b"ours\n" * 9)}
    toys.patch(NAME, {**BASE}, {**first})
    toys.patch("e/0002-y.patch", {**first}, {PATH: text(LINES, at8=b"ours\n" * 9, at30=b"p\n")})
    toys.kernel("v6.1.187", {PATH: text(LINES, at39=b"at the place our numbers name\n")})
    kernel = toys.kernel(
        "v6.12.107",
        {PATH: text(LINES, at30=b"upstream\n", at39=b"at the place our numbers name\n")},
    )
    assert work(toys.rebase(kernel)).between == (("v6.1.187", "v6.12.107"),)


def test_a_file_that_went_names_the_tags_it_went_between(toys: ToyKernels) -> None:
    toys.kernel("v6.1.187", {PATH: text(LINES, at30=b"changed before\n")})
    toys.kernel("v6.12.38", {"net/other.c": b"x\n"})
    kernel = toys.kernel("v6.12.107", {"net/other.c": b"x\n"})
    assert work(toys.rebase(kernel)).between == (("v6.1.187", "v6.12.38"),)


def test_a_renamed_file_is_followed_by_its_old_name(toys: ToyKernels) -> None:
    toys.kernel("v6.1.187", {PATH: text(LINES, at30=b"upstream\n")})
    kernel = toys.kernel("v6.12.107", {"net/x/state.c": text(LINES, at30=b"upstream\n")})
    assert work(toys.rebase(kernel)).between == (("v5.10.262", "v6.1.187"),)


def test_a_restored_file_is_followed_where_upstream_had_it(toys: ToyKernels) -> None:
    toys.kernel("v6.1.187", {PATH: text(LINES, at30=b"upstream\n")})
    kernel = toys.kernel("v6.12.107", {"net/other.c": b"x\n"})
    table = f'[[restore]]\nsince = "v6.3"\nfrom = "v6.1.187"\npaths = ["{PATH}"]\n'
    toys.describe("e", table)
    assert work(toys.rebase(kernel)).between == (
        ("v6.1.187", "v6.12.107"),
        ("v5.10.262", "v6.1.187"),
    )


def test_a_series_that_fits_nowhere_is_not_looked_up_for_ever(toys: ToyKernels) -> None:
    files: Files = {f"net/{number}.c": text(LINES) for number in range(50)}
    toys.kernel("v5.10.262", files)
    toys.patch(NAME, files, {path: text(LINES, at30=b"patched\n") for path in files})
    theirs: Files = {path: text(LINES, at30=b"upstream\n") for path in files}
    (outcome,) = toys.rebase(toys.kernel("v6.12.107", theirs)).outcomes
    told = [conflict.work is not None for conflict in outcome.conflicts]
    assert told == [True] * 40 + [False] * 10


# A history


def history(toys: ToyKernels) -> str:
    """Commit some upstream work on top of the base; return the last commit."""
    here = toys.store.resolve("refs/tags/v5.10.262") or ""
    make = {"Makefile": makefile("v6.12.107")}
    states = (
        ("elsewhere in the file", {"at5": b"elsewhere\n" * 3}),
        ("change the state", {"at5": b"elsewhere\n" * 3, "at30": b"upstream\n"}),
        ("elsewhere again", {"at5": b"elsewhere\n", "at30": b"upstream\n"}),
    )
    for subject, changes in states:
        here = toys.commit({**make, PATH: text(LINES, **changes)}, subject, here)
    return here


def test_a_history_in_the_store_names_the_commits(toys: ToyKernels) -> None:
    files: Files = {PATH: text(LINES, at5=b"elsewhere\n", at30=b"upstream\n")}
    kernel = toys.kernel("v6.12.107", files, parent=history(toys))
    found = work(toys.rebase(kernel))
    (commit,) = found.commits
    assert (found.since, commit.subject, found.between) == ("v5.10.262", "change the state", ())
    wanted = toys.store.git("log", "--grep=change the state", "--format=%H", kernel.commit)
    assert wanted.startswith(commit.id)


def test_lines_taken_out_are_asked_for_by_their_neighbours(toys: ToyKernels) -> None:
    files: Files = {PATH: text(LINES, at5=b"elsewhere\n", at30=b"")}
    kernel = toys.kernel("v6.12.107", files, parent=history(toys))
    assert subjects(toys.rebase(kernel)) == ["v6.12.107", "change the state"]


def test_a_file_that_went_names_the_commit_that_took_it(toys: ToyKernels) -> None:
    kernel = toys.kernel("v6.12.107", {"net/other.c": b"x\n"}, parent=history(toys))
    assert subjects(toys.rebase(kernel))[0] == "v6.12.107"


@pytest.fixture
def repo(toys: ToyKernels) -> Path:
    """Give a clone as a user has one, with a history."""
    folder = toys.root / "linux"
    process.run(["git", "clone", "-q", "--bare", toys.store.path, folder])
    process.run(["git", "-C", folder, "fetch", "-q", toys.store.path, f"{history(toys)}:main"])
    return folder


def taken(toys: ToyKernels, repo: Path, name: str) -> Kernel:
    kernel = clone.take(toys.store, repo, name, Silent())
    assert kernel is not None
    return kernel


def test_the_users_clone_names_the_commits_though_one_alone_is_copied(
    toys: ToyKernels, repo: Path, tmp_path: Path
) -> None:
    other = ToyKernels(tmp_path / "shallow")
    other.kernel("v5.10.262", {**BASE})
    other.describe("e")
    other.patch(NAME, {**BASE}, {PATH: text(LINES, at30=b"patched\n")})
    kernel = taken(other, repo, "main")
    alone = other.rebase(kernel, repo)
    assert subjects(alone) == ["change the state"]
    loaded = load_extensions(other.paths)
    together = rebase_all(
        other.paths, other.store, [kernel], loaded, obtain_base=offline, repo=repo
    )
    assert together == [alone]
    # Without the clone the tags must do: the store has no more than the commit itself.
    assert work(other.rebase(kernel)).between == (("v5.10.262", kernel.name),)
    assert toys.store.path != other.store.path


def test_without_the_tag_the_first_release_of_its_series_bounds_the_history(
    toys: ToyKernels, repo: Path
) -> None:
    process.run(["git", "-C", repo, "tag", "v5.10", "v5.10.262"])
    process.run(["git", "-C", repo, "tag", "-d", "v5.10.262"])
    found = work(toys.rebase(taken(toys, repo, "main"), repo))
    assert found.since == "v5.10"
    assert [each.subject for each in found.commits] == ["change the state"]


def test_a_history_that_does_not_know_the_base_leaves_it_to_the_tags(
    toys: ToyKernels, repo: Path
) -> None:
    process.run(["git", "-C", repo, "tag", "-d", "v5.10.262"])
    kernel = taken(toys, repo, "main")
    assert work(toys.rebase(kernel, repo)).between == (("v5.10.262", kernel.name),)


def test_a_history_that_gives_no_answer_is_no_fault(
    toys: ToyKernels, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = taken(toys, repo, "main")

    def late(*_: object, **__: object) -> process.Completed:
        raise InfraError("no end after 30 s")

    with monkeypatch.context() as patched:
        patched.setattr("workbench.upstream.process.run", late)
        patched.setattr("workbench.series.write", lambda *_: ())
        assert work(toys.rebase(kernel, repo)).between == (("v5.10.262", kernel.name),)


def test_the_report_says_what_upstream_did(toys: ToyKernels, repo: Path) -> None:
    with_history = toys.rebase(taken(toys, repo, "main"), repo)
    by_tags = toys.rebase(toys.kernel("v6.12.95", {PATH: text(LINES, at30=b"up\n")}))
    stream = io.StringIO()
    report_series.show([with_history, by_tags], stream)
    told = stream.getvalue()
    commit = work(with_history).commits[0].id
    head = "  what upstream did there since v5.10.262:\n"
    assert f"{head}    {commit} change the state\n" in told
    assert "  what upstream did there: changed between v5.10.262 and v6.12.95\n" in told
    data = json.loads(json.dumps(report_series.as_data([with_history, by_tags], 3)))
    found = [each["patches"][0]["conflicts"][0]["upstream_work"] for each in data["kernels"]]
    assert found[0]["commits"] == [{"id": commit, "subject": "change the state"}]
    assert found[1]["between"] == [{"older": "v5.10.262", "newer": "v6.12.95"}]


def test_the_store_is_only_read(toys: ToyKernels, repo: Path) -> None:
    kernel = taken(toys, repo, "main")
    before = process.run(["git", "-C", repo, "for-each-ref"]).stdout
    toys.rebase(kernel, repo)
    assert process.run(["git", "-C", repo, "for-each-ref"]).stdout == before
    assert Store.open(toys.paths).tags().keys() == {"v5.10.262"}
