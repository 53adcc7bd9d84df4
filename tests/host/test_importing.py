# SPDX-License-Identifier: GPL-2.0-only
"""What is imported is what was posted, and nothing that was there is touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from toy_kernel import Files, ToyKernels, WorkTree, numbered

from workbench import atomic, cli, coverletter, patchmail
from workbench.errors import ExitCode
from workbench.extensions import load_extensions
from workbench.patchfile import read_patch
from workbench.paths import Paths

REPO = Path(__file__).resolve().parents[2]
TAG = "v6.12.50"
LINES = numbered("state", 60)
OTHER = numbered("other", 30)


def text(lines: list[bytes], **changes: bytes) -> bytes:
    """Return the lines, some replaced: ``at20=b"..."`` is line 20 (1-based)."""
    lines = list(lines)
    for key, new in changes.items():
        lines[int(key.removeprefix("at")) - 1] = new
    return b"".join(lines)


BASE: Files = {"net/state.c": text(LINES), "net/other.c": text(OTHER)}
FIRST: Files = {**BASE, "net/state.c": text(LINES, at30=b"first\n"), "net/new.c": b"int new;\n"}
SECOND: Files = {
    **FIRST,
    "net/state.c": text(LINES, at30=b"first\n", at50=b"second\n"),
    "net/new.c": b"int new;\nint newer;\n",
}
MAIL = """\
From {oid} Mon Sep 17 00:00:00 2001
From: Zoë Doe <zoe@example.org>
Date: Fri, 13 Feb 2009 23:31:30 -0330
Subject: [PATCH {tag}] {subject}

Why it is needed.

Signed-off-by: Zoë Doe <zoe@example.org>
Reviewed-by: Bob <bob@example.org>
---
{diff}--\x20
2.39.5

"""


class Inbox:
    """A toy store with one kernel, and mails with patches that are made on it."""

    def __init__(self, root: Path) -> None:
        """Make two patches; ids are cut to twelve digits."""
        self.toys = ToyKernels(root)
        self.root = root
        self.patches = self.toys.paths.patches
        for name in ("kernels.toml", coverletter.TEMPLATE):
            shutil.copy(REPO / "patches" / name, self.patches / name)
        self.kernel = self.toys.kernel(TAG, BASE)
        self.one = self.mail("1/2", "net: say first", BASE, FIRST)
        self.two = self.mail("2/2", "net: say second", FIRST, SECOND)

    def mail(self, tag: str, subject: str, before: Files, after: Files) -> str:
        trees = self.toys.tree(before), self.toys.tree(after)
        diff = self.toys.store.git("diff-tree", "-p", "-M", "--abbrev=12", *trees) + "\n"
        return MAIL.format(oid="1" * 40, tag=tag, subject=subject, diff=diff)

    def mbox(self, *mails: str) -> Path:
        path = self.root / "in.mbox"
        path.write_text("".join(mails))
        return path

    def kpw(self, source: str | Path, *words: str | Path) -> int:
        return cli.main(["import", str(source), *map(str, words)])

    def content(self, extension: str = "e") -> dict[str, tuple[bytes, int]]:
        """Return every file of an extension, with its inode."""
        folder = self.patches / extension
        found = folder.rglob("*") if folder.is_dir() else ()
        files = (path for path in found if path.is_file())
        return {path.name: (path.read_bytes(), path.stat().st_ino) for path in files}

    def entries(self) -> set[str]:
        found = {path.name for path in (*self.patches.iterdir(), *self.patches.parent.iterdir())}
        return found - {".patches.lock"}

    def repo(self) -> WorkTree:
        """Make a repository of the user's with the kernel's tag and both patches on it."""
        work = self.toys.work_tree(self.kernel)
        for mail in (self.one, self.two):
            file = self.mbox(mail)
            work.git("am", "-q", file)
        return work


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inbox:
    found = Inbox(tmp_path)
    monkeypatch.setattr(Paths, "default", classmethod(lambda _: found.toys.paths))
    return found


ONE = "0001-net-say-first.patch"
TWO = "0002-net-say-second.patch"


def test_an_mbox_becomes_a_new_extension(inbox: Inbox, capsys: pytest.CaptureFixture[str]) -> None:
    inbox.toys.describe("old")
    (inbox.patches / "old/extension.toml").write_text('id = "E11"\nsummary = "s"\n')
    letter = MAIL.format(oid="1" * 40, tag="0/2", subject='two "things"', diff="")
    assert inbox.kpw(inbox.mbox(inbox.two, letter, inbox.one), "--into", "e") == ExitCode.GOOD
    assert set(inbox.content()) == {ONE, TWO, "extension.toml"}
    (found,) = (each for each in load_extensions(inbox.toys.paths) if each.name == "e")
    assert (found.id, found.summary, str(found.base)) == ("E12", 'two "things"', TAG)
    patch = read_patch(found.patches[0])
    assert (patch.mail.name, patch.mail.date) == ("Zoë Doe", "1234580490 -0330")
    assert patch.mail.trailer("Reviewed-by") == ("Bob <bob@example.org>",)
    said = capsys.readouterr()
    assert f"made on {TAG}: it is the oldest imported with the file" in said.out
    assert "in.mbox:" in said.err


def test_ids_are_written_whole_and_the_patch_gives_the_tree_it_was_made_for(inbox: Inbox) -> None:
    assert inbox.kpw(inbox.mbox(inbox.one, inbox.two), "--into", "e") == ExitCode.GOOD
    for name, before, after in ((ONE, BASE, FIRST), (TWO, FIRST, SECOND)):
        data = inbox.content()[name][0].decode()
        full = inbox.toys.diff(before, after)
        assert (
            data.partition("\ndiff --git ")[2].partition("-- \n")[0]
            == (full.partition("diff --git ")[2])
        )
    assert inbox.toys.rebase(inbox.kernel).tree == inbox.repo().tree


def test_a_second_import_changes_nothing(inbox: Inbox, capsys: pytest.CaptureFixture[str]) -> None:
    box = inbox.mbox(inbox.one, inbox.two)
    assert inbox.kpw(box, "--into", "e") == ExitCode.GOOD
    before = inbox.content()
    capsys.readouterr()
    assert inbox.kpw(box, "--into", "E1") == ExitCode.GOOD
    assert inbox.content() == before
    assert capsys.readouterr().out.endswith("there already\nnothing new for e\n")


def test_what_is_new_is_numbered_after_all_that_is_there(inbox: Inbox) -> None:
    toys = inbox.toys
    toys.patch("e/0003-first.patch", BASE, FIRST)
    toys.patch("e/since-v6.12.60/0007-more.patch", FIRST, {**FIRST, "more": b"x\n"})
    toys.describe("e", '[variants."v6.12.60"]\nbase = "v6.12.61"\n', base=TAG)
    before = inbox.content()
    alone = inbox.two.replace("[PATCH 2/2]", "[PATCH]")
    assert inbox.kpw(inbox.mbox(alone), "--into", "e") == ExitCode.GOOD
    after = inbox.content()
    assert set(after) - set(before) == {"0008-net-say-second.patch"}
    assert {name: after[name] for name in before} == before


def test_what_is_there_and_differs_is_not_written_over(
    inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inbox.kpw(inbox.mbox(inbox.one, inbox.two), "--into", "e") == ExitCode.GOOD
    before = inbox.content()
    reviewed = inbox.two.replace("Reviewed-by: Bob", "Reviewed-by: Eve")
    other = inbox.mail("2/2", "net: say second", FIRST, {**SECOND, "net/more.c": b"x\n"})
    for two in (reviewed, other):
        assert inbox.kpw(inbox.mbox(inbox.one, two), "--into", "e") == ExitCode.USAGE
        assert f"e/{TWO} is there, and differs" in capsys.readouterr().err
    first = inbox.mail("1/3", "net: before", BASE, {**BASE, "net/before.c": b"x\n"})
    rest = [inbox.one.replace("1/2", "2/3"), inbox.two.replace("2/2", "3/3")]
    assert inbox.kpw(inbox.mbox(first, *rest), "--into", "e") == ExitCode.USAGE
    assert f"comes before e/{ONE}" in capsys.readouterr().err
    assert inbox.content() == before


def test_a_malformed_mail_is_refused_and_nothing_is_written(
    inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    before = inbox.entries()
    broken = inbox.two.replace("+second\n", "second\n")
    box = inbox.mbox(inbox.one, broken)
    assert inbox.kpw(box, "--into", "e") == ExitCode.USAGE
    line = box.read_text().split("\n").index("second") + 1
    assert f"in.mbox:{line}: the hunk is short" in capsys.readouterr().err
    assert inbox.entries() == before


def test_a_patch_that_does_not_fit_its_base_is_told(
    inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    before = inbox.entries()
    inbox.toys.kernel("v6.12.40", {**BASE, "net/state.c": text(LINES, at50=b"upstream\n")})
    words = ("--into", "e", "--base", "v6.12.40")
    assert inbox.kpw(inbox.mbox(inbox.one, inbox.two), *words) == ExitCode.CONFLICT
    assert (
        "net: say second: does not apply to v6.12.40 at net/state.c:47" in capsys.readouterr().out
    )
    assert inbox.entries() == before


def test_the_base_is_what_is_known_and_otherwise_asked_for(
    inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    toys = inbox.toys
    toys.kernel("v6.12.40", {**BASE, "net/third.c": b"x\n"})
    toys.kernel("v6.12.30", {**BASE, "net/state.c": b"else\n"})
    box = inbox.mbox(inbox.one, inbox.two)
    assert inbox.kpw(box, "--into", "guessed") == ExitCode.GOOD
    noted = inbox.two.replace("2.39.5", f"2.39.5\n\nbase-commit: {inbox.kernel.commit}")
    assert inbox.kpw(inbox.mbox(inbox.one, noted), "--into", "noted") == ExitCode.GOOD
    assert inbox.kpw(box, "--into", "said", "--base", "6.12.50") == ExitCode.GOOD
    bases = {each.name: str(each.base) for each in load_extensions(toys.paths)}
    assert bases == {"guessed": "v6.12.40", "noted": TAG, "said": TAG}
    unknown = inbox.mail("1/1", "x", {"net/state.c": b"no\n"}, {"net/state.c": b"yes\n"})
    assert inbox.kpw(inbox.mbox(unknown), "--into", "e") == ExitCode.USAGE
    assert "say with --base TAG" in capsys.readouterr().err


#: What somebody had between two releases: nobody else has his net/state.c.
OWN: Files = {**BASE, "net/state.c": text(LINES, at10=b"his own\n")}
OWN_FIRST: Files = {
    **OWN,
    "net/state.c": text(LINES, at10=b"his own\n", at12=b"first\n"),
    "net/other.c": text(OTHER, at3=b"first\n"),
}
OWN_SECOND: Files = {
    **OWN_FIRST,
    "net/state.c": text(LINES, at10=b"his own\n", at12=b"first\n", at14=b"second\n"),
}


def test_what_was_made_on_no_release_is_merged_onto_the_nearest(
    inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    toys = inbox.toys
    toys.kernel("v6.1.40", {"net/other.c": b"another\n"})
    one = inbox.mail("1/2", "net: say first", OWN, OWN_FIRST)
    two = inbox.mail("2/2", "net: say second", OWN_FIRST, OWN_SECOND)
    assert inbox.kpw(inbox.mbox(one, two), "--into", "e") == ExitCode.GOOD
    said = capsys.readouterr().out
    assert "net: say first: merged, since it does not apply there as it stands" in said
    assert f"made on {TAG}: it is the nearest imported, with 1 of the 2 files" in said
    wanted = text(LINES, at12=b"first\n", at14=b"second\n")
    series = toys.rebase(inbox.kernel)
    assert [str(each.state) for each in series.outcomes] == ["clean", "clean"]
    assert toys.content(series.tree, "net/state.c") == wanted
    first = {**OWN_FIRST, "net/state.c": text(LINES, at12=b"first\n")}
    ours = inbox.content()[ONE][0].decode()
    full = toys.diff(BASE, first).partition("diff --git ")[2]
    assert ours.partition("\ndiff --git ")[2].partition("-- \n")[0] == full


def test_what_cannot_be_merged_either_says_what_to_do(
    inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    before = inbox.entries()
    clash = {**OWN, "net/state.c": text(LINES, at10=b"his new\n")}
    words = ("--into", "e", "--base", TAG)
    assert inbox.kpw(inbox.mbox(inbox.mail("", "x", OWN, clash)), *words) == ExitCode.CONFLICT
    assert f"or rebase the patches onto {TAG}" in capsys.readouterr().out
    alien = inbox.mail("", "x", OWN, OWN_FIRST)
    blobs = inbox.toys.store.git("hash-object", "--stdin", input=OWN["net/state.c"])  # type: ignore[arg-type]
    alien = alien.replace(blobs[:12], "f" * 12)
    assert inbox.kpw(inbox.mbox(alien), *words, "--json") == ExitCode.CONFLICT
    assert json.loads(capsys.readouterr().out)["misfit"]["unknown"] == ["net/state.c"]
    assert inbox.kpw(inbox.mbox(alien), *words) == ExitCode.CONFLICT
    assert "no kernel here has net/state.c as it was made on" in capsys.readouterr().out
    assert inbox.entries() == before


def test_a_slip_of_the_pen_makes_no_extension(
    inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    inbox.toys.describe("spi-timeout", base=TAG)
    before = inbox.entries()
    box = inbox.mbox(inbox.one, inbox.two)
    assert inbox.kpw(box, "--into", "spi-timeot") == ExitCode.USAGE
    assert "did you mean 'spi-timeout'?); say --into spi-timeout, or --new" in (
        capsys.readouterr().err
    )
    assert inbox.kpw(box, "--into", "spi-timeout", "--new") == ExitCode.USAGE
    assert inbox.entries() == before
    assert inbox.kpw(box, "--into", "spi-timeot", "--new") == ExitCode.GOOD
    assert "patches/spi-timeot: a new extension\n" in capsys.readouterr().out
    assert inbox.kpw(box, "--into", "spi-timeout") == ExitCode.GOOD
    assert "a new extension" not in capsys.readouterr().out


def test_what_replies_give_is_in_the_patch(
    inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    ack = MAIL.format(oid="1" * 40, tag="2/2", subject="net: say second", diff="")
    ack = ack.replace("Subject: [", "Subject: Re: [").replace("Why it is", "> Why it is")
    ack = ack.replace("Signed-off-by: Zoë Doe", "Tested-by: Zoë Doe")
    assert inbox.kpw(inbox.mbox(inbox.one, inbox.two, ack), "--into", "e") == ExitCode.GOOD
    patch = read_patch(inbox.patches / "e" / TWO)
    assert patch.mail.trailers[-1] == ("Tested-by", "Zoë Doe <zoe@example.org>")
    assert "given: " in capsys.readouterr().err
    assert read_patch(inbox.patches / "e" / ONE).mail.trailer("Tested-by") == ()


def test_an_extension_has_one_base(inbox: Inbox, capsys: pytest.CaptureFixture[str]) -> None:
    inbox.toys.describe("e", base=TAG)
    (inbox.patches / "up").mkdir()
    (inbox.patches / "up/extension.toml").write_text('id = "U"\nsummary = "s"\n')
    box = inbox.mbox(inbox.one, inbox.two)
    assert inbox.kpw(box, "--into", "e", "--base", "v6.12.40") == ExitCode.USAGE
    assert f"made on {TAG}, and these on v6.12.40" in capsys.readouterr().err
    assert inbox.kpw(box, "--into", "up") == ExitCode.USAGE
    assert "names no base" in capsys.readouterr().err
    assert inbox.kpw(box, "--into", "No_Name") == ExitCode.USAGE
    assert "lower case letters" in capsys.readouterr().err
    assert inbox.kpw(box, "--into", "e") == ExitCode.GOOD


def test_it_stands_on_what_the_extension_requires(inbox: Inbox) -> None:
    inbox.toys.describe("below", base=TAG)
    inbox.toys.patch("below/0001-first.patch", BASE, FIRST)
    inbox.toys.describe("e", 'requires = ["below"]', base=TAG)
    alone = inbox.two.replace("[PATCH 2/2]", "[PATCH]")
    assert inbox.kpw(inbox.mbox(alone), "--into", "e") == ExitCode.GOOD
    assert set(inbox.content()) == {"0001-net-say-second.patch", "extension.toml"}


def test_a_failing_disk_leaves_nothing(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox.toys.describe("e", base=TAG)
    before = inbox.content()
    write = atomic.write

    def fails(path: Path, data: bytes) -> None:
        if path.name == TWO:
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(atomic, "write", fails)
    assert inbox.kpw(inbox.mbox(inbox.one, inbox.two), "--into", "e") == ExitCode.INFRA
    assert inbox.content() == before


def test_the_result_for_a_program(inbox: Inbox, capsys: pytest.CaptureFixture[str]) -> None:
    box = inbox.mbox(inbox.one, inbox.two)
    assert inbox.kpw(box, "--into", "e", "--json") == ExitCode.GOOD
    said = json.loads(capsys.readouterr().out)
    assert (said["exit_code"], said["base"], said["there"]) == (0, TAG, [])
    assert said["written"] == [f"e/{ONE}", f"e/{TWO}", "e/extension.toml"]
    inbox.toys.kernel("v6.12.40", {})
    words = ("--into", "f", "--base", "v6.12.40", "--json")
    assert inbox.kpw(box, *words) == ExitCode.CONFLICT
    said = json.loads(capsys.readouterr().out)
    assert (said["exit_code"], said["written"]) == (3, [])
    assert said["misfit"]["subject"] == "net: say first"


def test_a_range_of_commits(inbox: Inbox, capsys: pytest.CaptureFixture[str]) -> None:
    work = inbox.repo()
    words = ("--repo", work.folder, "--into", "e")
    assert inbox.kpw(f"{TAG}..HEAD", *words) == ExitCode.GOOD
    assert f"made on {TAG}: {TAG} is that tag in" in capsys.readouterr().out
    assert inbox.toys.rebase(inbox.kernel).tree == work.tree
    before = inbox.content()
    assert inbox.kpw(f"{TAG}..HEAD", *words) == ExitCode.GOOD
    assert inbox.content() == before


def test_the_settings_of_a_clone_change_nothing(inbox: Inbox) -> None:
    work = inbox.repo()
    settings = {
        "diff.noprefix": "true",
        "diff.suppressBlankEmpty": "true",
        "diff.external": "false",
        "format.signOff": "true",
        "format.attach": "x",
        "format.coverLetter": "true",
        "format.subjectPrefix": "OWN",
        "core.quotePath": "false",
    }
    words = ("--repo", work.folder)
    assert inbox.kpw(f"{TAG}..HEAD", *words, "--into", "plain") == ExitCode.GOOD
    for key, value in settings.items():
        work.git("config", key, value)
    assert inbox.kpw(f"{TAG}..HEAD", *words, "--into", "set") == ExitCode.GOOD
    for name in (ONE, TWO):
        assert inbox.content("set")[name][0] == inbox.content("plain")[name][0]


@pytest.mark.parametrize(
    ("span", "said"),
    [
        ("HEAD", "is no range"),
        (f"{TAG}...HEAD", "is no range"),
        (f"{TAG}..nowhere", "has no 'nowhere'"),
        ("v6.12.5..HEAD", f"nearest tags: {TAG}"),
        (f"{TAG}..{TAG}", "holds no commit"),
        (f"{TAG}..merged", "is a merge"),
    ],
)
def test_a_range_that_cannot_be_taken(
    inbox: Inbox, capsys: pytest.CaptureFixture[str], span: str, said: str
) -> None:
    work = inbox.repo()
    work.git("branch", "mine")
    work.git("checkout", "-q", "-b", "merged", "HEAD^")
    work.git("commit", "-q", "--allow-empty", "-m", "beside")
    work.git("merge", "-q", "mine")
    work.git("checkout", "-q", "mine")
    assert inbox.kpw(span, "--repo", work.folder, "--into", "e") == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_a_range_without_a_repository_is_told(
    inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inbox.kpw(f"{TAG}..HEAD", "--into", "e") == ExitCode.USAGE
    assert "--repo PATH" in capsys.readouterr().err
    assert inbox.kpw(inbox.root / "nothing", "--into", "e") == ExitCode.USAGE
    assert "nothing: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["--format-patch", "--quilt"])
def test_what_was_exported_comes_back_as_the_same_patches(inbox: Inbox, form: str) -> None:
    assert inbox.kpw(inbox.mbox(inbox.one, inbox.two), "--into", "e") == ExitCode.GOOD
    out = inbox.root / "out"
    assert cli.main(["export", TAG, form, str(out)]) == ExitCode.GOOD
    made = inbox.toys.rebase(inbox.kernel)
    assert inbox.kpw(out, "--into", "back") == ExitCode.GOOD
    first, second = load_extensions(inbox.toys.paths)
    assert [each.name for each in (first, second)] == ["e", "back"]
    assert str(second.base) == TAG
    for ours, theirs in zip(first.patches, second.patches, strict=True):
        mine, back = read_patch(ours), read_patch(theirs)
        assert mine.mail == back.mail
        ids = {patchmail.patch_id(inbox.toys.store, each) for each in (mine, back)}
        assert len(ids) == 1
    shutil.rmtree(inbox.patches / "e")
    again = inbox.toys.rebase(inbox.kernel)
    assert (again.tree, again.commit) == (made.tree, made.commit)


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("xfrm: let a transport mode SA insist on a policy", "xfrm-let-a-transport-mode-SA"),
        ("a/b: c..d (e)", "a-b-c.d-e.patch"),
        ("ends.", "0007-ends.patch"),
        ("x" * 90, f"0007-{'x' * 52}.patch"),
    ],
)
def test_file_names_are_gits(subject: str, name: str) -> None:
    assert name in patchmail.file_name(7, subject)
