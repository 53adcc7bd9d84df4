# SPDX-License-Identifier: GPL-2.0-only
"""An export is the rebased tree in files: git am and quilt come to it again."""

from __future__ import annotations

import email
import email.policy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from toy_kernel import Files, ToyKernels, WorkTree, numbered

from workbench import addressees, apt, cli, coverletter, export, patchset, process
from workbench.errors import ExitCode, InfraError, UsageError
from workbench.export import Exporter, Mailing
from workbench.extensions import load_extensions
from workbench.gitstore import Store
from workbench.model import PatchState
from workbench.paths import Paths
from workbench.progress import Silent
from workbench.prove import ProofState
from workbench.source import obtain

if TYPE_CHECKING:
    from workbench.model import Kernel, RebasedSeries

REPO = Path(__file__).resolve().parents[2]
TAG = "v6.12.50"
LINES = numbered("state", 60)
OTHER = numbered("other", 30)
GONE = b"".join(numbered("gone", 20))


def text(lines: list[bytes], **changes: bytes) -> bytes:
    """Return the lines, some replaced: ``at20=b"..."`` is line 20 (1-based)."""
    lines = list(lines)
    for key, new in changes.items():
        lines[int(key.removeprefix("at")) - 1] = new
    return b"".join(lines)


BASE: Files = {"net/state.c": text(LINES), "net/other.c": text(OTHER)}
FIRST: Files = {**BASE, "net/state.c": text(LINES, at30=b"first\n"), "net/new.c": b"int new;\n"}
SECOND: Files = {**FIRST, "net/other.c": text(OTHER, at3=b"second\n")}
#: What another kernel has changed where no patch is.
NEWER: Files = {**BASE, "net/state.c": b"newer\n" + text(LINES)}
SCRIPT = b"""\
use strict;
open(my $out, '>', 'MAINTAINERS') and die "could write here";
my $n = () = join('', <STDIN>) =~ /^diff --git /mg;
my $people = "Zo\xc3\xab Doe <zoe\\@example.org>\n";
print(grep({ $_ eq '--nol' } @ARGV) ? $people : "list-$n\\@example.org\n");
"""


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyKernels:
    """Give two extensions with a patch each, and two kernels they apply to."""
    found = ToyKernels(tmp_path)
    monkeypatch.setattr(Paths, "default", classmethod(lambda _: found.paths))
    for name in ("kernels.toml", coverletter.TEMPLATE):
        shutil.copy(REPO / "patches" / name, found.paths.patches / name)
    found.kernel("v5.10.100", BASE)
    found.kernel(TAG, NEWER)
    found.describe("e", base="v5.10.100")
    found.patch("e/0001-first.patch", BASE, FIRST)
    found.describe("f", 'requires = ["e"]', base="v5.10.100")
    found.patch("f/0001-second.patch", FIRST, SECOND)
    return found


def exporter(toys: ToyKernels) -> Exporter:
    return Exporter(toys.paths, toys.store, load_extensions(toys.paths), Silent())


def ported(toys: ToyKernels, tag: str = TAG) -> RebasedSeries:
    kernel = toys.store.kernel(tag)
    assert kernel is not None
    return exporter(toys).rebased(kernel)


def kpw(*words: str | Path) -> int:
    return cli.main(["export", *map(str, words)])


def am(work: WorkTree, folder: Path) -> str:
    """Apply a folder as its help says; the tree that comes out."""
    work.git("am", "-q", "--empty=drop", *sorted(folder.glob("*.patch")))
    return work.tree


def letter(folder: Path) -> str:
    (cover,) = folder.glob("*0000-cover-letter.patch")
    return cover.read_text()


def plain(toys: ToyKernels, tag: str = TAG) -> WorkTree:
    kernel = toys.store.kernel(tag)
    assert kernel is not None
    return toys.work_tree(kernel)


def test_git_am_makes_the_tree_of_the_rebase_and_its_messages(
    toys: ToyKernels, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert kpw(TAG, "--format-patch", out) == ExitCode.GOOD
    series = ported(toys)
    work = plain(toys)
    assert am(work, out) == series.tree
    wanted = toys.store.git("log", "--format=%an <%ae> %ad%n%B", f"{TAG}..{series.commit}")
    assert work.git("log", "--format=%an <%ae> %ad%n%B", f"{TAG}..HEAD") == wanted.strip()
    names = [path.name for path in sorted(out.glob("*.patch"))]
    assert names == ["0000-cover-letter.patch", "0001-first.patch", "0002-second.patch"]
    assert "Subject: [PATCH 2/2] second\n" in (out / names[2]).read_text()
    assert f"index {'0' * 40}.." in (out / names[1]).read_text()


def test_what_is_restored_is_a_mail_of_the_set(toys: ToyKernels, tmp_path: Path) -> None:
    toys.kernel("v5.10.90", {**BASE, "net/gone.c": GONE})
    restore = '[[restore]]\nsince = "v6.3"\nfrom = "v5.10.90"\npaths = ["net/gone.c"]\n'
    toys.describe("e", restore, base="v5.10.100")
    out = tmp_path / "out"
    assert kpw(TAG, "--format-patch", out) == ExitCode.GOOD
    series = ported(toys)
    assert toys.content(series.tree, "net/gone.c") == GONE
    assert am(plain(toys), out) == series.tree
    said = " ".join(letter(out).split())
    assert "- e needs patch 1, which is upstream's own text: restore net/gone.c" in said


def test_a_quilt_series_comes_to_the_same_tree(toys: ToyKernels, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert kpw(TAG, "--quilt", out) == ExitCode.GOOD
    work = plain(toys)
    work.git("quiltimport", "--patches", out)
    assert work.tree == ported(toys).tree
    listed = (out / "series").read_text().splitlines()
    assert [line for line in listed if not line.startswith("#")] == [
        "0001-first.patch",
        "0002-second.patch",
    ]


def test_a_rename_is_spelled_out_for_quilt(toys: ToyKernels, tmp_path: Path) -> None:
    moved = {**FIRST, "net/moved.c": FIRST["net/other.c"]}
    del moved["net/other.c"]
    toys.patch("f/0001-second.patch", FIRST, moved)
    for form, count in (("--format-patch", 1), ("--quilt", 0)):
        assert kpw(TAG, form, tmp_path / form) == ExitCode.GOOD
        (patch,) = (tmp_path / form).glob("0002-*")
        assert patch.read_text().count("rename from net/other.c") == count
        if count == 0:
            assert "deleted file mode 100644" in patch.read_text()


def test_only_an_extension_brings_what_it_requires(toys: ToyKernels, tmp_path: Path) -> None:
    assert kpw(TAG, "--only", "e", "--quilt", tmp_path / "e") == ExitCode.GOOD
    assert [path.name for path in (tmp_path / "e").glob("*.patch")] == ["0001-first.patch"]
    assert kpw(TAG, "--only", "f", "--format-patch", tmp_path / "f") == ExitCode.GOOD
    assert "- f needs e, which is in this set." in letter(tmp_path / "f")
    assert am(plain(toys), tmp_path / "f") == ported(toys).tree


def test_a_conflict_is_told_and_nothing_is_written(
    toys: ToyKernels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toys.kernel("v6.12.51", {**BASE, "net/state.c": text(LINES, at30=b"upstream\n")})
    assert kpw("v6.12.51", "--format-patch", tmp_path / "out") == ExitCode.CONFLICT
    assert not (tmp_path / "out").exists()
    assert "net/state.c" in capsys.readouterr().out
    assert toys.store.git("for-each-ref", "refs/kpw/export") == ""


def test_no_patch_is_nothing_to_write(
    toys: ToyKernels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toys.kernel("v6.12.52", SECOND)
    assert kpw("v6.12.52", "--quilt", tmp_path / "out") == ExitCode.USAGE
    assert "no patch is needed on v6.12.52" in capsys.readouterr().err


def test_the_result_for_a_program(
    toys: ToyKernels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for written in (True, False):
        assert kpw(TAG, "--quilt", out, "--json") == ExitCode.GOOD
        said = json.loads(capsys.readouterr().out)
        assert (said["written"], said["tree"]) == (written, ported(toys).tree)
        assert said["files"] == ["series", "0001-first.patch", "0002-second.patch"]
    toys.kernel("v6.12.56", {})
    assert kpw("v6.12.56", "--quilt", out, "--json") == ExitCode.CONFLICT
    assert json.loads(capsys.readouterr().out)["exit_code"] == ExitCode.CONFLICT


@pytest.mark.parametrize("words", [(), ("--quilt", "a", "--format-patch", "b")])
def test_one_form_has_to_be_named(toys: ToyKernels, words: tuple[str, ...]) -> None:
    del toys
    assert kpw(TAG, *words) == ExitCode.USAGE


def test_what_goes_out_is_applied_again_first(toys: ToyKernels) -> None:
    series = ported(toys)
    files = patchset.mails(toys.store, series, 1, None)
    patchset.check(toys.store, series, files)
    name = "0002-second.patch"
    wrong = {**files, name: files[name].replace(b"+second\n", b"+secund\n")}
    with pytest.raises(InfraError, match=r"another net/other\.c"):
        patchset.check(toys.store, series, wrong)
    with pytest.raises(InfraError, match=r"another net/other\.c"):
        patchset.check(toys.store, series, {"0001-first.patch": files["0001-first.patch"]})
    with pytest.raises(InfraError, match="does not apply"):
        patchset.check(toys.store, series, {name: files[name], "3.patch": files[name]})


def test_a_line_that_git_am_would_change_is_refused(toys: ToyKernels, tmp_path: Path) -> None:
    toys.patch("f/0001-second.patch", FIRST, {**FIRST, "net/dos.c": b"one\r\n"})
    assert kpw(TAG, "--format-patch", tmp_path / "out") == ExitCode.USAGE
    assert kpw(TAG, "--quilt", tmp_path / "out") == ExitCode.GOOD


# The letter


def told(
    extension: str, state: str, passed: int, failed: int = 0, *, red: int = 0, lost: int = 0
) -> dict[str, Any]:
    """Return a cell of a report, as ``kpw run`` writes it."""
    outcomes = ["passed"] * passed + ["failed"] * failed
    return {
        "extension": extension,
        "state": state,
        "upstream": False,
        "tests": [{"outcome": outcome} for outcome in outcomes],
        "lost": ["x"] * lost,
        "proofs": [{"state": str(ProofState.RED)}] * red,
    }


def kept_report(
    toys: ToyKernels, commit: str, *cells: dict[str, Any], base: str = "", expression: str = ""
) -> None:
    """Keep the report of a run; each is a day younger than the one before."""
    kernel = toys.store.kernel(TAG)
    assert kernel is not None
    trial = {
        "kernel": TAG,
        "commit": base or kernel.commit,
        "flavour": "plain",
        "arch": "x86_64",
        "patches": [{"commit": commit}, {"commit": ""}],
        "cells": list(cells),
        "expression": expression,
    }
    folder = toys.paths.runs / f"2026{len(list(toys.paths.state.glob('runs/*'))):04}-000000-1"
    folder.mkdir(parents=True)
    report = {"started": f"day {folder.name[4:8]}", "trials": [trial]}
    (folder / "report.json").write_text(json.dumps(report))


def cover(toys: ToyKernels, wish: Mailing | None = None) -> str:
    """Return the letter's words, however the lines are broken."""
    files = exporter(toys).mails(ported(toys), wish or Mailing(addressed=False))
    return " ".join(files[min(files)].decode().split())


def test_the_letter_says_what_is_in_the_set(toys: ToyKernels) -> None:
    said = cover(toys)
    assert "Subject: [PATCH 0/2] e, f " in said
    assert "E e: s Why it is needed. 1. first F f: s Why it is needed. 2. second" in said
    assert "Alice Doe (2): first second" in said
    assert "3 files changed, 3 insertions(+), 2 deletions(-) create mode 100644 net/new.c" in said
    kernel = toys.store.kernel(TAG)
    assert kernel is not None
    assert f"base-commit: {kernel.commit} That commit is what kpw makes of the sources" in said
    assert f"apply the set to the tag {TAG} there. --" in said
    assert f"tree {kernel.tree}" in said
    assert "Range-diff" not in said
    assert "] Two things " in cover(toys, Mailing(title="Two things", addressed=False))


def test_the_letter_does_not_claim_a_test_of_another_tree(toys: ToyKernels) -> None:
    assert f"Not tested: no run of exactly these patches on {TAG}" in cover(toys)
    kept_report(toys, "f" * 40, told("e", "green", 1))
    kept_report(toys, ported(toys).commit, told("e", "green", 1), base="f" * 40)
    (toys.paths.runs / "20269999-000000-1").mkdir()
    (toys.paths.runs / "20269999-000000-1" / "report.json").write_text("{")
    assert "Not tested" in cover(toys)


def test_the_letter_says_what_the_newest_run_of_the_very_tree_found(toys: ToyKernels) -> None:
    commit = ported(toys).commit
    kept_report(toys, commit, told("e", "green", 3, red=2))
    kept_report(toys, commit, told("e", "red", 2, 1, red=1, lost=2))
    said = cover(toys)
    assert "Not tested:" not in said
    words = "2 selftests passed, 1 failed; 1 were seen to fail without their patch."
    assert f"- {TAG}, x86_64, configuration plain: {words}" in said
    line = "e: red, 2 passed, 1 failed, 2 without a result; 1 seen to fail without the patch"
    assert f"{line} (day 0001). f: not tested." in said


def test_one_test_that_passed_hides_no_whole_run(toys: ToyKernels) -> None:
    commit = ported(toys).commit
    kept_report(toys, commit, told("e", "red", 2, 11), told("f", "green", 4, red=4))
    kept_report(toys, commit, told("e", "green", 1), expression="one")
    kept_report(toys, commit, told("f", "green", 4))
    said = cover(toys)
    assert "6 selftests passed, 11 failed; 4 were seen" in said
    assert "e: red, 2 passed, 11 failed; 0 seen to fail without the patch (day 0000)." in said
    assert "f: green, 4 passed, 0 failed; 4 seen to fail without the patch (day 0000)." in said
    kept_report(toys, commit, told("e", "green", 13, red=1))
    assert "e: green, 13 passed, 0 failed; 1 seen" in cover(toys)


def test_what_only_some_tests_say_is_told_as_that(toys: ToyKernels) -> None:
    commit = ported(toys).commit
    kept_report(toys, commit, told("e", "green", 1), expression="one")
    assert "fail without the patch (day 0000, only what -k 'one' chose)." in cover(toys)
    kept_report(toys, commit, told("e", "green", 9))
    kept_report(toys, commit, told("e", "green", 1), expression="one")
    assert "e: green, 9 passed, 0 failed; 0 seen" in cover(toys)
    # One that failed does take it back.
    kept_report(toys, commit, told("e", "red", 0, 1), expression="two")
    assert "e: red, 0 passed, 1 failed; 0 seen" in cover(toys)
    assert "only what -k 'two' chose" in cover(toys)


def test_the_letter_says_why(toys: ToyKernels) -> None:
    assert cover(toys).count("Why it is needed.") == 2
    toys.describe("e", 'why = """\nNothing else\ndoes it.\n"""', base="v5.10.100")
    said = cover(toys)
    assert "E e: s Nothing else does it. 1. first" in said
    assert said.count("Why it is needed.") == 1
    patch = toys.paths.patches / "f/0001-second.patch"
    patch.write_text(patch.read_text().replace("Why it is needed.\n\n", ""))
    assert "F f: s 2. second" in cover(toys)


def test_a_resolution_that_no_selftest_confirmed_is_named(
    toys: ToyKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = ported(toys)
    first = replace(series.outcomes[0], state=PatchState.REMEMBERED)
    remembered = replace(series, outcomes=(first, *series.outcomes[1:]))
    monkeypatch.setattr(Exporter, "rebased", lambda *_: remembered)
    doubt = "No selftest has confirmed patch 1 yet"
    assert doubt in cover(toys)
    kept_report(toys, first.commit or "", told("f", "green", 1, red=1))
    assert doubt in cover(toys)
    kept_report(toys, first.commit or "", told("e", "green", 1, red=1), expression="one")
    assert doubt in cover(toys)
    kept_report(toys, first.commit or "", told("e", "green", 1, red=1))
    assert doubt not in cover(toys)


def test_patches_the_kernel_has_are_named_apart(toys: ToyKernels) -> None:
    toys.kernel("v6.12.53", {**NEWER, "net/other.c": SECOND["net/other.c"]})
    files = exporter(toys).mails(ported(toys, "v6.12.53"), Mailing(addressed=False))
    said = " ".join(files[min(files)].decode().split())
    assert "F f: s - second (v6.12.53 has it)" in said


def test_a_later_version_is_compared_with_the_last_one(toys: ToyKernels, tmp_path: Path) -> None:
    assert kpw(TAG, "--format-patch", tmp_path / "v1") == ExitCode.GOOD
    toys.patch("f/0001-second.patch", FIRST, {**FIRST, "net/other.c": text(OTHER, at3=b"2nd\n")})
    assert kpw(TAG, "-v", "3", "--format-patch", tmp_path / "v3") == ExitCode.GOOD
    names = sorted(path.name for path in (tmp_path / "v3").glob("*.patch"))
    assert names == ["v3-0000-cover-letter.patch", "v3-0001-first.patch", "v3-0002-second.patch"]
    said = letter(tmp_path / "v3")
    assert "Subject: [PATCH v3 0/2]" in said
    assert "Range-diff against v1:\n1: " in said
    assert "    -+second" in said
    assert "    ++2nd" in said
    assert am(plain(toys), tmp_path / "v3") == ported(toys).tree
    assert kpw(TAG, "-v", "4", "--format-patch", tmp_path / "v4") == ExitCode.GOOD
    assert "Range-diff against v3:" in letter(tmp_path / "v4")
    assert kpw(TAG, "-v", "3", "--format-patch", tmp_path / "again") == ExitCode.GOOD
    assert "Range-diff against v1:" in letter(tmp_path / "again")


def changed(toys: ToyKernels, word: str = "2nd") -> None:
    """Write the second patch anew."""
    line = f"{word}\n".encode()
    toys.patch("f/0001-second.patch", FIRST, {**FIRST, "net/other.c": text(OTHER, at3=line)})


def test_a_version_that_was_exported_is_not_replaced_unasked(
    toys: ToyKernels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kpw(TAG, "--format-patch", tmp_path / "sent") == ExitCode.GOOD
    assert kpw(TAG, "--format-patch", tmp_path / "again") == ExitCode.GOOD
    changed(toys)
    assert kpw(TAG, "--format-patch", tmp_path / "other") == ExitCode.USAGE
    assert f"v1 was exported for {TAG} with other patches; say -v 2" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert kpw(TAG, "--quilt", tmp_path / "quilt") == ExitCode.GOOD
    # What was sent is what is compared with, whatever became of the cache.
    for ref in toys.store.git("for-each-ref", "--format=%(refname)", "refs/kpw").splitlines():
        toys.store.git("update-ref", "-d", ref)
    assert kpw(TAG, "-v", "2", "--format-patch", tmp_path / "v2") == ExitCode.GOOD
    said = letter(tmp_path / "v2")
    assert "Range-diff against v1:\n" in said
    assert "-+second" in said


def test_a_version_that_was_never_sent_can_be_replaced(toys: ToyKernels, tmp_path: Path) -> None:
    assert kpw(TAG, "--format-patch", tmp_path / "v1") == ExitCode.GOOD
    changed(toys)
    assert kpw(TAG, "--replace", "--format-patch", tmp_path / "v1") == ExitCode.GOOD
    changed(toys, "3rd")
    assert kpw(TAG, "-v2", "--format-patch", tmp_path / "v2") == ExitCode.GOOD
    assert "-+2nd" in letter(tmp_path / "v2")


def test_a_version_for_another_kernel_is_compared_with_when_there_is_no_other(
    toys: ToyKernels, tmp_path: Path
) -> None:
    assert kpw("v5.10.100", "--format-patch", tmp_path / "v1") == ExitCode.GOOD
    changed(toys)
    assert kpw(TAG, "-v2", "--format-patch", tmp_path / "v2") == ExitCode.GOOD
    assert "Range-diff against v1 on v5.10.100:\n" in letter(tmp_path / "v2")


def worded(folder: Path, *pairs: tuple[str, str]) -> None:
    """Edit a folder's letter, as its owner does before he sends it."""
    (cover,) = folder.glob("*0000-cover-letter.patch")
    said = cover.read_text()
    for old, new in pairs:
        assert said.count(old) == 1
        said = said.replace(old, new)
    cover.write_text(said)


def test_what_was_written_into_a_letter_is_in_the_next_one(
    toys: ToyKernels, tmp_path: Path
) -> None:
    assert kpw(TAG, "--format-patch", tmp_path / "v1") == ExitCode.GOOD
    worded(
        tmp_path / "v1",
        ("Subject: [PATCH 0/2] e, f\n", "Subject: [PATCH 0/2] Zwölf\nTo: Al <al@example.org>\n"),
        ("This set is for", "Please take this.\n\nThis set is for"),
    )
    changed(toys)
    assert kpw(TAG, "-v2", "--format-patch", tmp_path / "v2") == ExitCode.GOOD
    worded(tmp_path / "v2", ("Please take this.", "Please do take this."))
    kept_report(toys, ported(toys).commit, told("e", "green", 7))
    assert kpw(TAG, "-v3", "--format-patch", tmp_path / "v3") == ExitCode.GOOD
    (file,) = (tmp_path / "v3").glob("*cover-letter.patch")
    mail = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    assert (mail["Subject"], mail["To"]) == ("[PATCH v3 0/2] Zwölf", "Al <al@example.org>")
    said = letter(tmp_path / "v3")
    assert "\n\nPlease do take this.\n\nThis set is for" in said
    assert "7 selftests passed" in said
    assert "Range-diff against v2:" in said
    assert (tmp_path / "v3" / "b4-cover.txt").read_text().startswith("Zwölf\n\nPlease do take")


def test_what_a_letter_said_of_tests_is_not_carried_on(
    toys: ToyKernels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept_report(toys, ported(toys).commit, told("e", "green", 7))
    assert kpw(TAG, "--format-patch", tmp_path / "v1") == ExitCode.GOOD
    worded(tmp_path / "v1", ("  e: green, 7 passed", "  e: green, all 7 passed"))
    changed(toys)
    capsys.readouterr()
    assert kpw(TAG, "-v2", "--format-patch", tmp_path / "v2") == ExitCode.GOOD
    assert "does not fit in whole: compare the two letters" in capsys.readouterr().err
    assert "7 passed" not in letter(tmp_path / "v2")
    assert "Not tested: no run" in letter(tmp_path / "v2")


def test_a_kernel_of_a_clone_has_the_clones_own_commit(toys: ToyKernels, tmp_path: Path) -> None:
    work = plain(toys)
    words = ("--repo", work.folder, "--format-patch", tmp_path / "out")
    assert kpw("HEAD", *words) == ExitCode.GOOD
    said = letter(tmp_path / "out")
    assert f"base-commit: {work.git('rev-parse', 'HEAD')}\n-- " in said


def test_the_clone_is_asked_for_what_patches_need_too(
    toys: ToyKernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KPW_KERNEL_KEYRING", raising=False)
    monkeypatch.setattr(apt, "bases", tuple)
    toys.kernel("v5.10.90", {**BASE, "net/gone.c": GONE})
    repo = tmp_path / "linux"
    process.run(["git", "clone", "-q", "--bare", toys.store.path, repo])
    toys.store.git("update-ref", "-d", "refs/tags/v5.10.90")
    restore = '[[restore]]\nsince = "v6.3"\nfrom = "v5.10.90"\npaths = ["net/gone.c"]\n'
    toys.describe("e", restore, base="v5.10.100")
    out = tmp_path / "out"
    assert kpw(TAG, "--format-patch", out) == ExitCode.INFRA
    assert kpw(TAG, "--repo", repo, "--format-patch", out) == ExitCode.GOOD
    assert "restore net/gone.c" in " ".join(letter(out).split())


# How the mails go out


def test_the_mails_are_such_as_mailers_read(toys: ToyKernels, tmp_path: Path) -> None:
    toys.kernel("v6.12.54", {**NEWER, "scripts/get_maintainer.pl": SCRIPT, "MAINTAINERS": b"x\n"})
    patch = toys.paths.patches / "f/0001-second.patch"
    patch.write_text(patch.read_text().replace("Why it is", "Warum — why it is"))
    out = tmp_path / "out"
    assert kpw("v6.12.54", "--title", "Zwei Äpfel", "--format-patch", out) == ExitCode.GOOD
    files = sorted(out.glob("*.patch"))
    mails = [
        email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files
    ]
    subjects = [str(mail["Subject"]) for mail in mails]
    assert subjects == ["[PATCH 0/2] Zwei Äpfel", "[PATCH 1/2] first", "[PATCH 2/2] second"]
    for file, mail in zip(files, mails, strict=True):
        assert mail.defects == []
        head, _, body = file.read_bytes().partition(b"\n\n")
        assert head.isascii()
        assert body.isascii() or mail.get_content_charset() == "utf-8"
        assert mail.get_content().encode() == body
        assert [each.addr_spec for each in mail["From"].addresses] != [""]
        assert mail["Date"].datetime
        assert [str(each) for each in mail["To"].addresses] == ["Zoë Doe <zoe@example.org>"]
        assert [str(each) for each in mail["Cc"].addresses] == ["list-3@example.org"]


def test_the_letter_is_there_as_b4_takes_it(toys: ToyKernels, tmp_path: Path) -> None:
    toys.kernel("v6.12.54", {**NEWER, "scripts/get_maintainer.pl": SCRIPT, "MAINTAINERS": b"x\n"})
    out = tmp_path / "out"
    assert kpw("v6.12.54", "--format-patch", out) == ExitCode.GOOD
    said = (out / "b4-cover.txt").read_text()
    assert said.startswith("e, f\n\nThis set is for v6.12.54.")
    # b4 writes these itself.
    for added in ("base-commit", "Alice Doe (2)", "files changed", "-- \n", "\n\n\n"):
        assert added in letter(out) + "\n\n\n"
        assert added not in said
    assert said.endswith("\n\nTo: Zoë Doe <zoe@example.org>\nCc: list-3@example.org\n")


@pytest.mark.skipif(shutil.which("b4") is None, reason="b4 is not installed")
def test_b4_sends_the_set_from_a_branch(toys: ToyKernels, tmp_path: Path) -> None:
    """What 'kpw export --help' says, word by word; b4 writes the mails into a folder."""
    toys.kernel("v6.12.54", {**NEWER, "scripts/get_maintainer.pl": SCRIPT, "MAINTAINERS": b"x\n"})
    out = tmp_path / "out"
    assert kpw("v6.12.54", "-v2", "--title", "Zwei", "--format-patch", out) == ExitCode.GOOD
    work = plain(toys, "v6.12.54")
    for key, value in (("name", "Zoë Doe"), ("email", "zoe@example.org")):
        work.git("config", f"user.{key}", value)
    work.git("switch", "-q", "-c", "topic")
    home = {"HOME": str(tmp_path), "GIT_EDITOR": f"cp {out / 'b4-cover.txt'}"}
    # The toy's identity is in variables, which b4 does not ask.
    named = {key: v for key, v in work.env.items() if not key.startswith("GIT_")} | home
    argv: list[str | Path] = ["git", "-C", work.folder, "am", "-q", "--empty=drop"]
    process.run([*argv, *sorted(out.glob("*.patch"))], env=named)
    for step in (
        ("prep", "--enroll", "v6.12.54"),
        ("prep", "--edit-cover"),
        ("prep", "--force-revision", "2"),
        ("send", "--no-sign", "-o", str(tmp_path / "b4")),
    ):
        process.run(["b4", *step], env=named, cwd=work.folder)
    assert work.tree == ported(toys, "v6.12.54").tree
    mails = [
        email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
        for file in sorted((tmp_path / "b4").iterdir())
    ]
    subjects = [str(mail["Subject"]) for mail in mails]
    assert subjects == ["[PATCH v2 0/2] Zwei", "[PATCH v2 1/2] first", "[PATCH v2 2/2] second"]
    assert all(str(mail["To"]) == "Zoë Doe <zoe@example.org>" for mail in mails)
    said = mails[0].get_content()
    assert "Why it is needed." in said
    assert said.count("Alice Doe (2):") == said.count("base-commit: ") == 1


def test_the_range_diff_can_be_to_a_folder_a_kernel_or_a_commit(
    toys: ToyKernels, tmp_path: Path
) -> None:
    assert kpw(TAG, "--format-patch", tmp_path / "mails") == ExitCode.GOOD
    assert kpw(TAG, "--quilt", tmp_path / "quilt") == ExitCode.GOOD
    before = ported(toys)
    other = text(OTHER, at3=b"second\n", at20=b"more\n")
    toys.patch("f/0001-second.patch", FIRST, {**FIRST, "net/other.c": other})
    for since in (tmp_path / "mails", tmp_path / "quilt", before.commit):
        said = cover(toys, Mailing(since=str(since), addressed=False))
        assert f"Range-diff against {since}: 1: " in said
        assert "+@@ net/other.c" in said
        assert " ++more " in said
    said = cover(toys, Mailing(since="v5.10.100", addressed=False))
    assert "Range-diff against the series on v5.10.100: 1: " in said
    assert "++more" not in said


def test_a_since_that_means_nothing_is_refused(toys: ToyKernels, tmp_path: Path) -> None:
    wish = Mailing(since="nothing", addressed=False)
    with pytest.raises(UsageError, match="no folder, kernel tag or commit"):
        exporter(toys).mails(ported(toys), wish)
    with pytest.raises(UsageError, match="there is no patch in it"):
        exporter(toys).mails(ported(toys), Mailing(since=str(tmp_path), addressed=False))
    lone = toys.store.git("commit-tree", toys.tree(BASE), "-m", "x")
    with pytest.raises(UsageError, match="stands on no kernel"):
        exporter(toys).mails(ported(toys), Mailing(since=lone, addressed=False))


@pytest.mark.parametrize(
    ("template", "said"),
    [("{{ nothing }}", "nothing"), ("a\n{% if %}", "cover-letter.j2:2"), (" \n", "says nothing")],
)
def test_a_template_that_cannot_be_filled_is_told(
    toys: ToyKernels, template: str, said: str
) -> None:
    (toys.paths.patches / coverletter.TEMPLATE).write_text(template)
    with pytest.raises(UsageError) as caught:
        cover(toys)
    assert said in str(caught.value)
    assert coverletter.TEMPLATE in caught.value.where


def test_the_letter_is_from_the_user(
    toys: ToyKernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    everywhere = tmp_path / ".gitconfig"
    everywhere.write_text("[user]\n\temail = ann@example.org\n")
    assert " From: ann@example.org Date: " in cover(toys)
    everywhere.unlink()
    assert " From: " not in cover(toys)
    process.run(["git", "init", "-q", toys.paths.repo])
    for key, value in (("name", "Zoë Doe"), ("email", "zoe@example.org")):
        process.run(["git", "-C", toys.paths.repo, "config", f"user.{key}", value])
    assert " From: =?utf-8?q?Zo=C3=AB_Doe?= <zoe@example.org> Date: " in cover(toys)


def test_the_kernels_own_script_names_who_gets_it(toys: ToyKernels, tmp_path: Path) -> None:
    toys.kernel("v6.12.54", {**NEWER, "scripts/get_maintainer.pl": SCRIPT, "MAINTAINERS": b"x\n"})
    out = tmp_path / "out"
    assert kpw("v6.12.54", "--format-patch", out) == ExitCode.GOOD
    wanted = "To: =?utf-8?q?Zo=C3=AB_Doe?= <zoe@example.org>\nCc: list-3@example.org\n"
    assert all(wanted in path.read_text() for path in out.glob("*.patch"))
    assert am(plain(toys, "v6.12.54"), out) == ported(toys, "v6.12.54").tree
    bare = tmp_path / "bare"
    assert kpw("v6.12.54", "--no-addresses", "--format-patch", bare) == ExitCode.GOOD
    assert "To: " not in letter(bare)


def test_a_script_that_fails_is_told(toys: ToyKernels, tmp_path: Path) -> None:
    script = b"die 'no such thing';"
    toys.kernel("v6.12.55", {**NEWER, "scripts/get_maintainer.pl": script, "MAINTAINERS": b"x\n"})
    assert kpw("v6.12.55", "--format-patch", tmp_path / "out") == ExitCode.INFRA
    assert not (tmp_path / "out").exists()


def test_a_script_that_comes_to_no_end_costs_the_addresses_and_not_the_export(
    toys: ToyKernels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    toys.kernel("v6.12.54", {**NEWER, "scripts/get_maintainer.pl": SCRIPT, "MAINTAINERS": b"x\n"})
    out = tmp_path / "out"
    words = ("v6.12.54", "--format-patch", out)
    with monkeypatch.context() as busy:
        busy.setattr(addressees, "DEADLINE", 0.0)
        assert kpw(*words) == ExitCode.GOOD
    (said,) = (line for line in capsys.readouterr().err.splitlines() if "To: and Cc:" in line)
    assert "get_maintainer.pl came to no end in 0 s: To: and Cc: are missing" in said
    assert "the same export again adds them" in said
    assert "To: " not in letter(out)
    assert am(plain(toys, "v6.12.54"), out) == ported(toys, "v6.12.54").tree
    assert kpw(*words) == ExitCode.GOOD
    assert "\nCc: list-3@example.org\n" in letter(out)


# On a real kernel


def sparse_checkout(store: Store, kernel: Kernel, names: set[str], folder: Path) -> WorkTree:
    """Check out what these files lie in; the index is the whole kernel's."""
    work = WorkTree(folder, store.environment())
    process.run(["git", "clone", "-q", "-s", "-n", store.path, folder], env=work.env)
    work.git("sparse-checkout", "set", "--no-cone", *sorted(names))
    work.git("checkout", "-q", "--detach", kernel.commit)
    return work


@pytest.mark.real
def test_the_real_series_is_taken_by_git_am_on_a_plain_checkout(tmp_path: Path) -> None:
    paths = Paths.default()
    store = Store.open(paths)
    kernel = obtain(paths, "v6.12.107")
    whole = export.Exporter(paths, store, load_extensions(paths), Silent())
    series = whole.rebased(kernel)
    assert series.applies
    files = whole.mails(series, Mailing())
    out = tmp_path / "out"
    out.mkdir()
    for name, data in files.items():
        (out / name).write_bytes(data)
    listed = store.git("diff-tree", "-r", "--name-only", kernel.tree, series.tree).splitlines()
    folders = {f"/{name.rpartition('/')[0] or name}" for name in listed}
    work = sparse_checkout(store, kernel, folders, tmp_path / "linux")
    assert am(work, out) == series.tree
    said = letter(out)
    assert "netdev@vger.kernel.org" in said
    assert f"base-commit: {kernel.commit}" in said
