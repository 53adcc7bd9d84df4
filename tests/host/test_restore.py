# SPDX-License-Identifier: GPL-2.0-only
"""What upstream removed comes back as a commit of its own, or it is said why not."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from toy_kernel import Files, ToyKernels, numbered

from workbench import report_series
from workbench.commands import rebase as rebase_command
from workbench.errors import ExitCode, InfraError, UsageError
from workbench.extensions import load_extensions, restores_for
from workbench.judge import conflict_reason
from workbench.model import KernelTag, PatchState
from workbench.paths import Paths
from workbench.progress import Silent
from workbench.rebase import rebase

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.model import Kernel

GONE = "net/gone.c"
TOOL = "net/gone.sh"
OTHERWISE = "there with other content than in v6.1.187"
LINES = numbered("gone", 60)
OTHER = b"".join(numbered("other", 20))
NAME = "e/0001-x.patch"
RESTORE = """\
[[restore]]
since = "v6.3"
from = "v6.1.187"
paths = ["net/gone.c", "net/gone.sh"]
"""


def text(**changes: bytes) -> bytes:
    """Return the file's lines, some replaced: ``at20=b"..."`` is line 20 (1-based)."""
    lines = list(LINES)
    for key, new in changes.items():
        lines[int(key.removeprefix("at")) - 1] = new
    return b"".join(lines)


HERE: Files = {"net/other.c": OTHER}
OLD: Files = {**HERE, GONE: text(), TOOL: ("100755", b"#!\n")}
PATCHED: Files = {**OLD, GONE: text(at30=b"patched\n")}


@pytest.fixture
def toys(tmp_path: Path) -> ToyKernels:
    """Give two kernels with the files, and an extension that restores and changes them."""
    found = ToyKernels(tmp_path)
    found.kernel("v5.10.262", {**OLD})
    found.kernel("v6.1.187", {**OLD})
    found.describe("e", RESTORE)
    found.patch(NAME, {**OLD}, {**PATCHED})
    return found


def states(toys: ToyKernels, kernel: Kernel) -> list[PatchState]:
    return [outcome.state for outcome in toys.rebase(kernel).outcomes]


def test_files_come_back_in_a_commit_before_the_first_patch(toys: ToyKernels) -> None:
    kernel = toys.kernel("v6.12.107", {**HERE})
    series = toys.rebase(kernel)
    restored, patch = series.outcomes
    assert (restored.state, patch.state) == (PatchState.RESTORED, PatchState.CLEAN)
    assert restored.patch == "restore from v6.1.187"
    assert restored.subject == "restore net/gone.c and 1 more file from v6.1.187"
    assert restored.detail == "net/gone.c, net/gone.sh"
    assert series.applies
    commits = toys.store.git("rev-list", "--reverse", f"{kernel.commit}..{series.ref}").split()
    assert commits == [restored.commit, patch.commit]
    same = toys.store.git("ls-tree", "-r", "v6.1.187", "--", "net")
    assert toys.store.git("ls-tree", "-r", commits[0], "--", "net") == same
    assert toys.content(series.tree, GONE) == PATCHED[GONE]


def test_the_commit_says_why_and_is_nobody_s(toys: ToyKernels) -> None:
    (restored, _) = toys.rebase(toys.kernel("v6.12.107", {**HERE})).outcomes
    assert restored.commit is not None
    said = toys.store.git("log", "-1", "--date=raw", "--format=%an|%ad|%cn|%cd", restored.commit)
    who = "Kernel Patch Workbench|1577836800 +0000"
    assert said == f"{who}|{who}"
    message = toys.store.git("log", "-1", "--format=%B", restored.commit)
    assert message.startswith(f"{restored.subject}\n\nThe extension e works on")
    for words in ("patches/e/extension.toml", "that v6.3 speaks for", "\n  net/gone.sh\n"):
        assert words in message


def test_the_result_is_the_same_commits_each_time(toys: ToyKernels, tmp_path: Path) -> None:
    first = toys.rebase(toys.kernel("v6.12.107", {**HERE}))
    other = ToyKernels(tmp_path / "elsewhere")
    other.kernel("v6.1.187", {**OLD})
    other.describe("e", RESTORE)
    other.patch(NAME, {**OLD}, {**PATCHED})
    assert other.rebase(other.kernel("v6.12.107", {**HERE})).commit == first.commit


def test_the_tree_is_what_git_am_makes_of_the_patches_on_the_restored_files(
    toys: ToyKernels,
) -> None:
    again = {**PATCHED, GONE: text(at30=b"patched\n", at50=b"again\n"), TOOL: b"#!\n"}
    second = toys.patch("e/0002-y.patch", {**PATCHED}, again)
    kernel = toys.kernel("v6.12.107", {**HERE})
    series = toys.rebase(kernel)
    work = toys.work_tree(kernel)
    work.restore("v6.1.187", (GONE, TOOL))
    assert work.am(toys.paths.patches / NAME)
    assert work.am(second)
    assert work.tree == series.tree


def test_where_since_does_not_speak_nothing_is_restored_or_obtained(tmp_path: Path) -> None:
    toys = ToyKernels(tmp_path)
    toys.describe("e", RESTORE)
    toys.patch(NAME, {**OLD}, {**PATCHED})
    assert states(toys, toys.kernel("v5.10.262", {**OLD})) == [PatchState.CLEAN]
    assert states(toys, toys.kernel("v6.1.190", {**OLD})) == [PatchState.CLEAN]


def test_a_stable_tag_speaks_for_its_own_branch_only(toys: ToyKernels) -> None:
    toys.describe("e", RESTORE.replace("v6.3", "v6.12.90"))
    (extension,) = load_extensions(toys.paths)
    tags = [KernelTag.parse(name) for name in ("v6.12.38", "v6.12.107", "v6.18.15")]
    assert [bool(restores_for(extension, tag)) for tag in tags] == [False, True, False]


def test_an_extension_that_is_upstream_restores_nothing(toys: ToyKernels) -> None:
    toys.describe("e", f'upstream_since = ["v6.12"]\n{RESTORE}')
    series = toys.rebase(toys.kernel("v6.12.107", {**HERE}))
    assert series.outcomes == ()


def test_without_a_restore_the_patch_is_obsolete(toys: ToyKernels) -> None:
    toys.describe("e")
    outcome = toys.outcome(toys.kernel("v6.12.107", {**HERE}))
    assert outcome.state is PatchState.OBSOLETE


def test_what_is_there_as_it_was_is_told_and_makes_no_commit(toys: ToyKernels) -> None:
    kernel = toys.kernel("v6.12.107", {**OLD})
    there, patch = toys.rebase(kernel).outcomes
    assert (there.state, there.commit) == (PatchState.THERE, None)
    assert there.detail == "net/gone.c, net/gone.sh"
    assert patch.state is PatchState.CLEAN


def test_only_what_is_missing_comes_back(toys: ToyKernels) -> None:
    kernel = toys.kernel("v6.12.107", {**HERE, TOOL: OLD[TOOL]})
    restored, _ = toys.rebase(kernel).outcomes
    assert restored.state is PatchState.RESTORED
    assert restored.detail == "net/gone.c; already there: net/gone.sh"
    assert restored.commit is not None
    listed = toys.store.git("diff-tree", "-r", "--name-only", kernel.commit, restored.commit)
    assert listed == GONE


@pytest.mark.parametrize(
    ("there", "path", "kind"),
    [
        ({GONE: b"new\n"}, GONE, OTHERWISE),
        ({TOOL: b"#!\n"}, TOOL, "there with mode 100644, which is 100755 in v6.1.187"),
        ({f"{GONE}/x.c": b"x\n"}, GONE, "file meets directory"),
    ],
)
def test_what_stands_in_the_way_is_a_conflict_and_nothing_is_restored(
    toys: ToyKernels, there: Files, path: str, kind: str
) -> None:
    kernel = toys.kernel("v6.12.107", {**HERE, **there})
    series = toys.rebase(kernel)
    restored = series.outcomes[0]
    (conflict,) = restored.conflicts
    assert (restored.state, restored.commit) == (PatchState.CONFLICT, None)
    assert (conflict.path, conflict.line, conflict.kind) == (path, 0, kind)
    assert restored.detail == f"{path}: {kind}"
    assert "limit the [[restore]] in patches/e/extension.toml" in conflict.next_step
    assert not series.applies
    assert series.tree == kernel.tree
    assert conflict_reason(restored).what == (
        f"e/restore from v6.1.187 conflicts at {path} ({kind})"
    )


def test_the_difference_can_be_looked_at_as_it_is_told(toys: ToyKernels) -> None:
    kernel = toys.kernel("v6.12.107", {**HERE, GONE: text(at3=b"other\n")})
    (conflict,) = toys.rebase(kernel).outcomes[0].conflicts
    command = conflict.next_step.split(f"--git-dir={toys.store.path} ")[1].split(";")[0]
    assert "-other" in toys.store.git(*command.split(" ")).splitlines()


def test_patches_on_what_was_not_restored_say_so_and_the_others_are_tried(
    toys: ToyKernels,
) -> None:
    toys.patch("e/0002-y.patch", {**HERE}, {"net/other.c": OTHER + b"more\n"})
    series = toys.rebase(toys.kernel("v6.12.107", {**HERE, TOOL: b"new\n"}))
    restored, first, second = series.outcomes
    assert (restored.state, first.state) == (PatchState.CONFLICT, PatchState.CONFLICT)
    assert "stands on restore from v6.1.187, left out" in first.detail
    assert second.state is PatchState.CLEAN


@pytest.mark.parametrize("path", ["net/never.c", "net", "net/gone.c/below"])
def test_a_file_its_origin_has_not_is_a_fault_of_the_description(
    toys: ToyKernels, path: str
) -> None:
    toys.describe("e", RESTORE.replace("net/gone.sh", path))
    kernel = toys.kernel("v6.12.107", {**HERE})
    with pytest.raises(UsageError, match=f"'{path}' is no file of v6.1.187") as caught:
        toys.rebase(kernel)
    assert caught.value.exit_code is ExitCode.USAGE
    assert caught.value.where == "patches/e/extension.toml"
    assert toys.store.git("for-each-ref", "refs/kpw") == ""


def test_a_link_to_the_outside_does_not_come_back(toys: ToyKernels) -> None:
    toys.kernel("v6.1.187", {**OLD, GONE: ("120000", b"../../etc")})
    with pytest.raises(UsageError, match=r"becomes a symbolic link to '\.\./\.\./etc'"):
        toys.rebase(toys.kernel("v6.12.107", {**HERE}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('"net/gone.c"', '"../etc/passwd"'), "paths: '../etc/passwd' leaves the tree"),
        (('"net/gone.c"', '"/etc/passwd"'), "paths: '/etc/passwd' is an absolute path"),
        (('"net/gone.c"', '"net/../x"'), "paths: 'net/../x' leaves the tree"),
        (('"net/gone.c"', '".git/config"'), "paths: '.git/config' is git's own"),
        (('"net/gone.c"', '"net/gone.sh"'), "paths: 'net/gone.sh' is named twice"),
        (("v6.1.187", "v6.3"), "from: v6.3 is not older than v6.3"),
        (("v6.1.187", "v6.12.107"), "from: v6.12.107 is not older than v6.3"),
        (
            ('"v6.3"\nfrom = "v6.1.187"', '"v6.12.90"\nfrom = "v6.18.15"'),
            "from: v6.18.15 is not older than v6.12.90",
        ),
        (("v6.1.187", "6.x"), "'6.x' is not a kernel tag"),
        (("v6.3", "soon"), "'soon' is not a kernel tag"),
        (("paths", "path"), "the keys are since, from, paths"),
        (('"net/gone.c", "net/gone.sh"', ""), "paths: at least one file is needed"),
        (('from = "v6.1.187"\n', ""), "missing required field `from`"),
    ],
)
def test_a_bad_table_is_told_with_its_key(
    toys: ToyKernels, change: tuple[str, str], words: str
) -> None:
    toys.describe("e", RESTORE.replace(*change))
    with pytest.raises(UsageError) as caught:
        load_extensions(toys.paths)
    assert caught.value.exit_code is ExitCode.USAGE
    assert words in str(caught.value)
    assert "patches/e/extension.toml" in str(caught.value)


def test_a_file_is_in_one_table_only_and_there_is_a_patch_for_it(toys: ToyKernels) -> None:
    toys.describe("e", RESTORE + RESTORE.replace("v6.3", "v6.12"))
    with pytest.raises(UsageError, match=r"since v6\.12: paths: 'net/gone\.c' is named twice"):
        load_extensions(toys.paths)
    toys.describe("e", RESTORE)
    (toys.paths.patches / NAME).unlink()
    with pytest.raises(UsageError, match="restore: there is no patch that works on the files"):
        load_extensions(toys.paths)


def test_several_tables_are_several_commits_oldest_first(toys: ToyKernels) -> None:
    later = RESTORE.replace("v6.3", "v6.12").replace('"net/gone.c", ', "")
    toys.describe("e", later + RESTORE.replace(', "net/gone.sh"', ""))
    series = toys.rebase(toys.kernel("v6.12.107", {**HERE}))
    assert [outcome.subject for outcome in series.outcomes[:2]] == [
        "restore net/gone.c from v6.1.187",
        "restore net/gone.sh from v6.1.187",
    ]
    younger, _ = toys.rebase(toys.kernel("v6.6.50", {**HERE, TOOL: OLD[TOOL]})).outcomes
    assert younger.subject == "restore net/gone.c from v6.1.187"


def test_the_kernel_files_come_from_is_obtained_once(tmp_path: Path) -> None:
    toys = ToyKernels(tmp_path)
    toys.describe("e", RESTORE)
    toys.patch(NAME, {**OLD}, {**PATCHED})
    toys.describe("f", RESTORE.replace("paths", "# and more\npaths"))
    toys.patch("f/0001-x.patch", {**HERE}, {"net/other.c": OTHER + b"more\n"})
    there = toys.kernel("v6.12.107", {**HERE})
    with pytest.raises(InfraError, match=r"v6\.1\.187 is not in the toy store"):
        toys.rebase(there)
    asked = []

    def obtain(tag: KernelTag) -> Kernel:
        asked.append(str(tag))
        return toys.kernel(str(tag), {**OLD})

    extensions = load_extensions(toys.paths)
    series = rebase(toys.paths, toys.store, there, extensions, obtain_base=obtain)
    assert (series.applies, asked) == (True, ["v6.1.187"])


def test_it_is_brought_like_a_base_and_that_is_said(
    toys: ToyKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.store.git("update-ref", "-d", "refs/tags/v6.1.187")

    def obtain(_paths: Paths, name: str, **_: object) -> Kernel:
        return toys.kernel(name, {**OLD})

    monkeypatch.setattr("workbench.source.obtain", obtain)
    notes: list[str] = []
    monkeypatch.setattr(Silent, "note", lambda _, text: notes.append(text))
    kernel = toys.kernel("v6.12.107", {**HERE})
    series = rebase(toys.paths, toys.store, kernel, load_extensions(toys.paths))
    assert series.applies
    assert notes == ["v6.1.187 is needed too: a patch was made on it, or files come back from it"]


def test_two_extensions_may_restore_the_same_file(toys: ToyKernels) -> None:
    toys.describe("f", 'requires = ["e"]\n' + RESTORE)
    toys.patch("f/0001-y.patch", {**PATCHED}, {**PATCHED, GONE: text(at30=b"again\n")})
    series = toys.rebase(toys.kernel("v6.12.107", {**HERE}))
    assert [str(outcome.state) for outcome in series.outcomes] == [
        "restored", "clean", "already there", "clean",
    ]  # fmt: skip
    assert toys.content(series.tree, GONE) == text(at30=b"again\n")


def test_a_patch_made_on_an_older_text_is_merged_into_what_came_back(toys: ToyKernels) -> None:
    toys.kernel("v6.1.187", {**OLD, GONE: text(at28=b"later\n")})
    series = toys.rebase(toys.kernel("v6.12.107", {**HERE}))
    assert [outcome.state for outcome in series.outcomes] == [
        PatchState.RESTORED,
        PatchState.THREE_WAY,
    ]
    assert toys.content(series.tree, GONE) == text(at28=b"later\n", at30=b"patched\n")


def test_what_is_restored_on_a_patch_s_base_is_there_for_a_merge_too(toys: ToyKernels) -> None:
    """The blobs of patch 2 are in no kernel: they are made on the base, files restored first."""
    toys.describe("d", RESTORE)
    toys.patch("d/0001-w.patch", {**OLD}, {**OLD, GONE: text(at35=b"near\n")})
    toys.describe("e", f'[variants."v6.12"]\nbase = "v6.12.107"\n{RESTORE}')
    toys.kernel("v6.12.107", {**HERE})
    second = {**OLD, GONE: text(at30=b"patched\n", at33=b"second\n")}
    diff = toys.diff({**PATCHED}, second).replace("index ", "index dead")
    toys.write("e/since-v6.12/0002-y.patch", diff)
    series = toys.rebase(toys.kernel("v6.18.15", {**HERE}))
    assert [str(outcome.state) for outcome in series.outcomes] == [
        "restored", "clean", "already there", "clean", "3-way",
    ]  # fmt: skip
    wanted = text(at30=b"patched\n", at33=b"second\n", at35=b"near\n")
    assert toys.content(series.tree, GONE) == wanted


def test_reports_have_a_line_for_it(toys: ToyKernels) -> None:
    series = toys.rebase(toys.kernel("v6.12.107", {**HERE}))
    stream = io.StringIO()
    report_series.show([series], stream)
    assert stream.getvalue().splitlines()[:2] == [
        "v6.12.107: e | restore from v6.1.187 | restored | net/gone.c, net/gone.sh",
        "v6.12.107: e | 0001-x.patch | clean",
    ]
    assert "all apply (1 restored, 1 clean)" in stream.getvalue()
    data = json.loads(json.dumps(report_series.as_data([series], 0)))
    restored = data["kernels"][0]["patches"][0]
    assert (restored["patch"], restored["state"]) == ("restore from v6.1.187", "restored")
    assert restored["commit"] == series.outcomes[0].commit


@pytest.mark.parametrize(
    ("there", "code", "line"),
    [
        ({}, ExitCode.GOOD, "e | restore from v6.1.187 | restored | net/gone.c, net/gone.sh"),
        (OLD, ExitCode.GOOD, "e | restore from v6.1.187 | already there | net/gone.c, net/gone.sh"),
        (
            {GONE: b"new\n"},
            ExitCode.CONFLICT,
            f"e | restore from v6.1.187 | conflict | {GONE}: {OTHERWISE}",
        ),
    ],
)
def test_kpw_rebase_has_a_line_and_the_exit_code_for_it(
    toys: ToyKernels, monkeypatch: pytest.MonkeyPatch, there: Files, code: ExitCode, line: str
) -> None:
    kernel = toys.kernel("v6.12.107", {**HERE, **there})
    monkeypatch.setattr(Paths, "default", lambda: toys.paths)
    monkeypatch.setattr("workbench.source.obtain_all", lambda *_, **__: [kernel])
    done = CliRunner().invoke(rebase_command.command, ["v6.12.107"], standalone_mode=False)
    assert done.exception is None
    assert done.return_value is code
    assert f"v6.12.107: {line}" in done.output.splitlines()
