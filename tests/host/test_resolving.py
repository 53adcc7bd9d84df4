# SPDX-License-Identifier: GPL-2.0-only
"""A conflict is opened, taken up again, settled, remembered and saved; the drill is on top."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from toy_kernel import Files, ToyKernels, WorkTree, numbered

from workbench import cli, resolving, saving, smalltree
from workbench.errors import ExitCode, InfraError, UsageError
from workbench.extensions import load_extensions
from workbench.gitstore import Store
from workbench.model import PatchState
from workbench.paths import Paths
from workbench.progress import Silent
from workbench.resolving import Desk

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.model import Kernel
    from workbench.opened import Open

LINES = numbered("state", 60)
OTHER = numbered("other", 30)
NAME = "e/0001-x.patch"
REPO = Path(__file__).resolve().parents[2]


def text(lines: list[bytes], **changes: bytes) -> bytes:
    """Return the lines, some replaced: ``at20=b"..."`` is line 20 (1-based)."""
    lines = list(lines)
    for key, new in changes.items():
        lines[int(key.removeprefix("at")) - 1] = new
    return b"".join(lines)


BASE: Files = {"net/state.c": text(LINES), "net/other.c": text(OTHER), "net/far.c": b"far\n"}
PATCHED: Files = {
    **BASE,
    "net/state.c": text(LINES, at30=b"patched\n"),
    "net/other.c": text(OTHER, at9=b"patched\n"),
}
UPSTREAM: Files = {**BASE, "net/state.c": text(LINES, at30=b"upstream\n")}
BOTH = text(LINES, at30=b"upstream, patched\n")
TAG = "v6.12.107"


@pytest.fixture
def toys(tmp_path: Path) -> ToyKernels:
    """Give a base kernel, and an extension whose patch changes two files."""
    found = ToyKernels(tmp_path)
    found.kernel("v5.10.262", {**BASE})
    found.describe("e", "\n# Why there is a variant, in a person's words.\n")
    found.patch(NAME, {**BASE}, {**PATCHED})
    return found


def desk(toys: ToyKernels) -> Desk:
    return Desk(toys.paths, toys.store, load_extensions(toys.paths))


def opened(toys: ToyKernels, kernel: Kernel, word: str = "e/0001") -> Open:
    extension, file = desk(toys).find(word, kernel)
    return desk(toys).open(kernel, extension, file, Silent())


def work(found: Open) -> WorkTree:
    """Return the work tree as the user's own git sees it."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return WorkTree(found.tree.folder, env)


def resolve(found: Open, data: bytes = BOTH, path: str = "net/state.c") -> None:
    """Do what the user does."""
    (found.tree.folder / path).write_bytes(data)
    work(found).git("add", path)


def save(toys: ToyKernels, kernel: Kernel, *, merged: bool = False) -> saving.Saved:
    extensions = load_extensions(toys.paths)
    bench = saving.Bench(toys.paths, toys.store, Silent(), merged)
    return saving.save(bench, kernel, extensions, extensions[-1])


def killed_at(
    toys: ToyKernels, place: str, owner: object, then: Callable[[], object], nth: int = 1
) -> None:
    """Run something in a process that SIGKILL ends when it calls ``place`` the nth time."""
    child = os.fork()
    if child == 0:
        # The parent's lock and its 'git cat-file' are not ours: neither to be used nor ended.
        _kept, toys.store = toys.store, Store.open(toys.paths)
        called, whole = itertools.count(1), getattr(owner, place)

        def calling(*words: object, **named: object) -> object:
            if next(called) == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(*words, **named)

        setattr(owner, place, calling)
        try:
            then()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_the_drill_conflict_resolve_continue_save_and_clean_from_a_fresh_copy(
    toys: ToyKernels, tmp_path: Path
) -> None:
    kernel = toys.kernel(TAG, {**UPSTREAM})
    assert toys.outcome(kernel).state is PatchState.CONFLICT
    found = opened(toys, kernel)
    resolve(found)
    done = desk(toys).settle(found, kernel, Silent())
    assert done.missing == ()
    assert not found.folder.exists()
    series = toys.rebase(kernel)
    assert series.applies
    assert series.outcomes[0].state is PatchState.REMEMBERED
    assert f"as resolved on {TAG}" in series.outcomes[0].detail
    assert toys.content(series.tree, "net/state.c") == BOTH
    assert toys.content(series.tree, "net/other.c") == PATCHED["net/other.c"]

    saved = save(toys, kernel)
    assert saved.files == (toys.paths.patches / "e" / "since-v6.12" / "0001-x.patch",)
    fresh = ToyKernels(tmp_path / "fresh")
    shutil.rmtree(fresh.paths.patches)
    shutil.copytree(toys.paths.patches, fresh.paths.patches)
    again = fresh.rebase(fresh.kernel(TAG, {**UPSTREAM}))
    assert [(each.patch, each.state) for each in again.outcomes] == [
        ("since-v6.12/0001-x.patch", PatchState.CLEAN)
    ]
    assert again.tree == series.tree
    work_tree = fresh.work_tree(again.kernel)
    assert work_tree.am(fresh.paths.patches / "e" / "since-v6.12" / "0001-x.patch")
    assert work_tree.tree == series.tree


def test_the_work_tree_is_git_s_usual_conflict_with_just_the_files_in_it(toys: ToyKernels) -> None:
    found = opened(toys, toys.kernel(TAG, {**UPSTREAM}))
    tree = work(found)
    files = {path for path in found.tree.folder.rglob("*") if path.is_file()}
    assert {path.name for path in files if ".git" not in path.parts} == {"state.c"}
    status = tree.git("status", "--porcelain").splitlines()
    assert sorted(line.strip() for line in status) == ["M  net/other.c", "UU net/state.c"]
    for stage, wanted in ((1, BASE), (2, UPSTREAM), (3, PATCHED)):
        blob = tree.git("rev-parse", f":{stage}:net/state.c")
        assert toys.store.cat_file(blob) == wanted["net/state.c"]
    shown = (found.tree.folder / "net/state.c").read_bytes().split(b"\n")
    assert shown[29:36] == [
        b"<<<<<<< upstream",
        b"upstream",
        b"||||||| base",
        LINES[29].rstrip(),
        b"=======",
        b"patched",
        b">>>>>>> patch",
    ]
    message = (found.tree.folder / ".git" / "MERGE_MSG").read_text()
    assert message.startswith("x\n\nWhy it is needed.\n")
    assert "++<<<<<<< upstream" in tree.git("diff")


def test_the_work_tree_s_own_git_never_writes_into_the_store(toys: ToyKernels) -> None:
    kernel = toys.kernel(TAG, {**UPSTREAM})
    found = opened(toys, kernel)
    resolve(found)
    blob = work(found).git("rev-parse", ":net/state.c")
    assert toys.store.resolve(f"{blob}^{{blob}}") is None
    desk(toys).settle(found, kernel, Silent())
    assert toys.store.cat_file(blob) == BOTH


def test_a_file_beside_the_conflict_can_be_fetched_and_is_remembered_too(toys: ToyKernels) -> None:
    kernel = toys.kernel(TAG, {**UPSTREAM})
    found = opened(toys, kernel)
    resolve(found)
    tree = work(found)
    tree.git("sparse-checkout", "add", "/net/far.c")
    (found.tree.folder / "net" / "far.c").write_bytes(b"far, adapted\n")
    (found.tree.folder / "net" / "new.c").write_bytes(b"new\n")
    tree.git("add", "--sparse", "net/far.c", "net/new.c")
    desk(toys).settle(found, kernel, Silent())
    series = toys.rebase(kernel)
    assert series.outcomes[0].state is PatchState.REMEMBERED
    assert toys.content(series.tree, "net/far.c") == b"far, adapted\n"
    assert toys.content(series.tree, "net/new.c") == b"new\n"


def test_what_is_not_settled_is_told_and_stays_open(toys: ToyKernels) -> None:
    kernel = toys.kernel(TAG, {**UPSTREAM})
    found = opened(toys, kernel)
    told = desk(toys).settle(found, kernel, Silent()).missing
    assert told == ("net/state.c: not settled, 'git add' (or 'git rm') it",)
    work(found).git("add", "net/state.c")
    assert desk(toys).settle(found, kernel, Silent()).missing == (
        "net/state.c:30: a conflict mark is left",
    )
    resolve(found)
    (found.tree.folder / "net/state.c").write_bytes(BOTH + b"more\n")
    assert desk(toys).settle(found, kernel, Silent()).missing == (
        "net/state.c: changed after 'git add', add it again",
    )
    assert desk(toys).opened() == (found,)
    assert not (toys.paths.patches / "e" / "resolutions").exists()


def test_a_resolution_that_leaves_nothing_is_refused(toys: ToyKernels) -> None:
    kernel = toys.kernel(TAG, {**UPSTREAM})
    found = opened(toys, kernel)
    work(found).git("checkout", "HEAD", "--", "net/state.c")
    work(found).git("reset", "-q", "HEAD", "--", "net/other.c")
    work(found).git("update-index", "--skip-worktree", "net/other.c")
    with pytest.raises(UsageError, match=r"nothing is left of e/0001"):
        desk(toys).settle(found, kernel, Silent())


def test_abort_leaves_nothing(toys: ToyKernels) -> None:
    kernel = toys.kernel(TAG, {**UPSTREAM})
    found = opened(toys, kernel)
    desk(toys).close(found)
    assert desk(toys).opened() == ()
    assert list(toys.paths.resolve.rglob("*/*/*")) == []
    assert toys.outcome(kernel).state is PatchState.CONFLICT


def test_a_run_killed_while_it_opens_left_nothing_open_and_is_swept_up(toys: ToyKernels) -> None:
    kernel = toys.kernel(TAG, {**UPSTREAM})
    killed_at(toys, "_put_contested", smalltree.SmallTree, lambda: opened(toys, kernel))
    assert desk(toys).opened() == ()
    assert len(list(toys.paths.resolve.glob("*/.opening-*"))) == 1
    found = opened(toys, kernel)
    assert desk(toys).opened() == (found,)
    assert list(toys.paths.resolve.glob("*/.opening-*")) == []


@pytest.mark.parametrize(
    ("owner", "place"), [(resolving, "remember_at"), (Desk, "_proven"), (Desk, "close")]
)
def test_a_run_killed_while_it_takes_over_is_taken_up_again(
    toys: ToyKernels, owner: object, place: str
) -> None:
    kernel = toys.kernel(TAG, {**UPSTREAM})
    found = opened(toys, kernel)
    resolve(found)
    killed_at(toys, place, owner, lambda: desk(toys).settle(found, kernel, Silent()))
    assert desk(toys).opened() == (found,)
    assert desk(toys).settle(found, kernel, Silent()).missing == ()
    assert len(list((toys.paths.patches / "e" / "resolutions").iterdir())) == 1
    assert toys.outcome(kernel).state is PatchState.REMEMBERED


def test_a_patch_changed_meanwhile_is_not_settled_by_what_was_opened(toys: ToyKernels) -> None:
    kernel = toys.kernel(TAG, {**UPSTREAM})
    found = opened(toys, kernel)
    resolve(found)
    toys.patch(NAME, {**BASE}, {**PATCHED, "net/state.c": text(LINES, at30=b"otherwise\n")})
    with pytest.raises(UsageError, match=r"changed since this was opened"):
        desk(toys).settle(found, kernel, Silent())
    assert desk(toys).opened() == (found,)


def test_a_patch_is_resolved_after_those_before_it(toys: ToyKernels) -> None:
    second = {**PATCHED, "net/state.c": text(LINES, at30=b"patched again\n")}
    toys.patch("e/0002-y.patch", {**PATCHED}, second)
    kernel = toys.kernel(TAG, {**UPSTREAM})
    with pytest.raises(UsageError, match=r"e/0001 conflicts too") as caught:
        opened(toys, kernel, "e/0002")
    assert "kpw resolve v6.12.107 e/0001" in str(caught.value)
    found = opened(toys, kernel)
    resolve(found)
    desk(toys).settle(found, kernel, Silent())
    assert [each.state for each in toys.rebase(kernel).outcomes] == [
        PatchState.REMEMBERED,
        PatchState.CONFLICT,
    ]
    found = opened(toys, kernel, "e/2")
    again = text(LINES, at30=b"upstream, patched again\n")
    resolve(found, again)
    desk(toys).settle(found, kernel, Silent())
    series = toys.rebase(kernel)
    assert [each.state for each in series.outcomes] == [PatchState.REMEMBERED] * 2
    assert toys.content(series.tree, "net/state.c") == again


def test_what_has_no_conflict_is_not_opened(toys: ToyKernels) -> None:
    with pytest.raises(UsageError, match=r"has no conflict \(clean\)"):
        opened(toys, toys.kernel(TAG, {**BASE}))
    with pytest.raises(UsageError, match=r"there are: 0001"):
        opened(toys, toys.kernel("v6.12.108", {**BASE}), "e/7")
    with pytest.raises(UsageError, match=r"is no patch"):
        opened(toys, toys.kernel("v6.12.109", {**BASE}), "e")


def test_a_file_gone_upstream_is_in_git_s_state_for_it(toys: ToyKernels) -> None:
    kernel = toys.kernel(TAG, {"net/other.c": BASE["net/other.c"], "net/far.c": b"far\n"})
    found = opened(toys, kernel)
    tree = work(found)
    assert "DU net/state.c" in tree.git("status", "--porcelain").splitlines()
    assert (found.tree.folder / "net/state.c").read_bytes() == PATCHED["net/state.c"]
    tree.git("add", "net/state.c")
    (told,) = desk(toys).settle(found, kernel, Silent()).missing
    assert "a [[restore]] would bring it back" in told
    tree.git("rm", "-q", "-f", "net/state.c")
    assert desk(toys).settle(found, kernel, Silent()).missing == ()
    series = toys.rebase(kernel)
    assert series.outcomes[0].state is PatchState.REMEMBERED
    assert toys.content(series.tree, "net/state.c") is None
    assert toys.content(series.tree, "net/other.c") == PATCHED["net/other.c"]
    (file,) = (toys.paths.patches / "e" / "resolutions").iterdir()
    assert b"state 0001" not in file.read_bytes()  # no file of the kernel is kept


def test_a_file_upstream_changed_and_the_patch_deletes(toys: ToyKernels) -> None:
    toys.patch(NAME, {**BASE}, {"net/state.c": BASE["net/state.c"], "net/far.c": b"near\n"})
    kernel = toys.kernel(TAG, {**BASE, "net/other.c": text(OTHER, at5=b"upstream\n")})
    found = opened(toys, kernel)
    assert "UD net/other.c" in work(found).git("status", "--porcelain").splitlines()
    work(found).git("add", "net/other.c")
    desk(toys).settle(found, kernel, Silent())
    series = toys.rebase(kernel)
    assert series.outcomes[0].state is PatchState.REMEMBERED
    assert toys.content(series.tree, "net/other.c") == text(OTHER, at5=b"upstream\n")
    assert toys.content(series.tree, "net/far.c") == b"near\n"


def test_a_file_both_add(toys: ToyKernels) -> None:
    toys.patch(NAME, {**BASE}, {**BASE, "net/new.c": b"one\nours\nthree\n"})
    kernel = toys.kernel(TAG, {**BASE, "net/new.c": b"one\ntheirs\nthree\n"})
    found = opened(toys, kernel)
    shown = (found.tree.folder / "net/new.c").read_bytes()
    assert [shown.count(line) for line in (b"one\n", b"theirs\n", b"ours\n")] == [1, 1, 1]
    assert "AA net/new.c" in work(found).git("status", "--porcelain").splitlines()
    resolve(found, b"one\nboth\nthree\n", "net/new.c")
    desk(toys).settle(found, kernel, Silent())
    assert toys.content(toys.rebase(kernel).tree, "net/new.c") == b"one\nboth\nthree\n"


def test_a_patch_nobody_knows_the_base_of_has_its_hunks_laid_out(toys: ToyKernels) -> None:
    lines = numbered("fork", 40)
    diff = toys.diff({"net/state.c": text(lines)}, {"net/state.c": text(lines, at9=b"mine\n")})
    toys.write(NAME, diff.replace("index ", "index dead"))
    kernel = toys.kernel(TAG, {**BASE})
    found = opened(toys, kernel)
    assert "UU net/state.c" in work(found).git("status", "--porcelain").splitlines()
    shown = (found.tree.folder / "net/state.c").read_bytes()
    assert shown.count(b"<<<<<<< ") == 1
    assert shown.index(LINES[5]) < shown.index(lines[8]) < shown.index(b"mine\n")
    resolve(found, text(LINES, at9=b"mine\n"))
    desk(toys).settle(found, kernel, Silent())
    assert toys.outcome(kernel).state is PatchState.REMEMBERED


def test_a_directory_in_the_way_is_no_matter_of_resolving(toys: ToyKernels) -> None:
    toys.patch(NAME, {**BASE}, {**BASE, "net/new.c": b"new\n"})
    with pytest.raises(UsageError, match=r"where there is a directory"):
        opened(toys, toys.kernel(TAG, {**BASE, "net/new.c/x": b"x\n"}))


def test_the_command_line_opens_lists_continues_and_aborts(
    toys: ToyKernels, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tag = "v6.12.99"  # none that kernels.toml promises: those have to come from a source
    toys.kernel(tag, {**UPSTREAM})
    shutil.copy(REPO / "patches" / "kernels.toml", toys.paths.patches)
    monkeypatch.setattr(Paths, "default", lambda: toys.paths)
    assert cli.main(["resolve"]) == ExitCode.GOOD
    assert "no conflict is open" in capsys.readouterr().out
    assert cli.main(["resolve", tag]) == ExitCode.GOOD
    (found,) = desk(toys).opened()
    told = capsys.readouterr().out
    assert "net/state.c: both change the same lines" in told
    assert str(found.tree.folder) in told
    assert cli.main(["resolve", "--continue"]) == ExitCode.CONFLICT
    assert "e/0001: net/state.c: not settled" in capsys.readouterr().out
    (found.tree.folder / "net/state.c").write_bytes(BOTH)
    work(found).git("add", "net/state.c")
    assert cli.main(["resolve", tag, "e/0001"]) == ExitCode.GOOD
    assert "1 of 1 settled" in capsys.readouterr().out
    assert (found.tree.folder / "net/state.c").read_bytes() == BOTH
    assert cli.main(["resolve", "--abort", "--continue"]) == ExitCode.USAGE
    assert cli.main(["resolve", "6.12.99", "e/1", "--continue"]) == ExitCode.GOOD
    assert f"kpw save {tag} e" in capsys.readouterr().out
    assert cli.main(["resolve", "--abort"]) == ExitCode.USAGE
    assert "no such conflict is open" in capsys.readouterr().err
    assert cli.main(["rebase", tag]) == ExitCode.GOOD
    assert "| remembered |" in capsys.readouterr().out
    assert cli.main(["save", tag, "e"]) == ExitCode.GOOD
    assert "since-v6.12/0001-x.patch" in capsys.readouterr().out
    assert cli.main(["save", tag]) == ExitCode.GOOD
    assert f"{tag}: nothing changed" in capsys.readouterr().out
    toys.kernel("v7.1.99", {**BASE, "net/state.c": text(LINES, at30=b"anew\n")})
    assert cli.main(["save", "v7.1.99"]) == ExitCode.CONFLICT
    assert "run 'kpw resolve v7.1.99 e/since-v6.12/0001-x.patch' first" in capsys.readouterr().out
    assert cli.main(["resolve", "v7.1.99", "e/since-v6.12/0001-x.patch"]) == ExitCode.GOOD
    assert cli.main(["resolve", "v7.1.99", "e/0001", "--abort"]) == ExitCode.GOOD
    assert desk(toys).opened() == ()


def test_a_state_that_cannot_be_read_says_what_to_remove(toys: ToyKernels) -> None:
    found = opened(toys, toys.kernel(TAG, {**UPSTREAM}))
    (found.folder / "state.json").write_text("{")
    with pytest.raises(InfraError, match=rf"remove {found.folder}"):
        desk(toys).opened()


def refs(toys: ToyKernels) -> list[str]:
    return toys.store.git("for-each-ref", "--format=%(refname)", "refs/kpw/resolve").splitlines()


def test_what_another_run_opened_or_closed_meanwhile_is_open_or_told(toys: ToyKernels) -> None:
    kernel = toys.kernel(TAG, {**UPSTREAM})
    found = opened(toys, kernel)
    resolve(found)
    assert opened(toys, kernel) == found
    assert found.tree.unsettled() == ()
    desk(toys).close(found)
    with pytest.raises(UsageError, match=r"another run settled e/0001 on v6.12.107, or gave it up"):
        desk(toys).close(found)


def test_a_ref_keeps_what_a_work_tree_stands_on_just_while_it_is_open(toys: ToyKernels) -> None:
    kernel = toys.kernel(TAG, {**UPSTREAM})
    with pytest.raises(UsageError, match=r"has no conflict"):
        opened(toys, toys.kernel("v6.12.108", {**BASE}))
    assert refs(toys) == []
    found = opened(toys, kernel)
    assert refs(toys) == [f"refs/kpw/resolve/{TAG}/e-0001"]
    assert toys.store.git("rev-parse", *refs(toys)) == found.commit
    resolve(found)
    desk(toys).settle(found, kernel, Silent())
    assert refs(toys) == []
