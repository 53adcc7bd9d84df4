# SPDX-License-Identifier: GPL-2.0-only
"""Quilt's patches become mails with git's diff, and keep what they said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from workbench import quiltseries
from workbench.errors import UsageError
from workbench.filechange import ChangeKind

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.patchfile import PatchFile

HEAD = "From: Ann <ann@example.org>\nSubject: say it\n\nWhy.\n"
PLAIN = """\
Index: linux/net/x.c
===================================================================
--- linux.orig/net/x.c\t2026-01-01 00:00:00
+++ linux/net/x.c\t2026-01-02 00:00:00
@@ -1,3 +1,3 @@
 same

-old
+--- not a file's head
\\ No newline at end of file
Index: linux/net/new.c
===================================================================
--- /dev/null
+++ linux/net/new.c
@@ -0,0 +1 @@
+int new;
--- a/net/gone.c
+++ b/net/gone.c
@@ -1 +0,0 @@
-int gone;
"""
DEP3 = """\
Description: let it be
 It was not.
 .
 Now it is.
Author: Ann <ann@example.org>
Origin: vendor,
 somewhere
Forwarded: no
Last-Update: 2020-01-01

"""


def read(tmp_path: Path, *patches: str, series: str = "") -> list[PatchFile]:
    names = [f"{number}.diff" for number, _ in enumerate(patches)]
    for name, text in zip(names, patches, strict=True):
        (tmp_path / name).write_text(text)
    listed = series or "# a comment\n\n" + "".join(f"{name} -p1 # why\n" for name in names)
    (tmp_path / "series").write_text(listed)
    return [post.patch() for post in quiltseries.read(tmp_path).posts]


def test_a_plain_diff_is_put_into_gits_form(tmp_path: Path) -> None:
    (found,) = read(tmp_path, HEAD + PLAIN)
    kinds = {change.name: change.kind for change in found.changes}
    assert kinds == {
        "net/x.c": ChangeKind.MODIFY,
        "net/new.c": ChangeKind.CREATE,
        "net/gone.c": ChangeKind.DELETE,
    }
    assert found.changes[0].hunks[0].after == b"same\n\n--- not a file's head"
    assert (found.mail.subject, found.mail.message) == ("say it", "say it\n\nWhy.\n")
    assert found.mail.date == "1577836800 +0000"


def test_a_new_file_may_be_named_on_both_sides(tmp_path: Path) -> None:
    diff = "diff -Nur a/n.c b/n.c\n--- a/n.c\t1970\n+++ b/n.c\n@@ -0,0 +1 @@\n+new\n"
    (found,) = read(tmp_path, HEAD + diff)
    assert found.changes[0].kind is ChangeKind.CREATE


@pytest.mark.parametrize("head", [DEP3, DEP3.rstrip("\n") + "\n"])
def test_a_dep3_head_becomes_subject_text_and_trailers(tmp_path: Path, head: str) -> None:
    (found,) = read(tmp_path, head + PLAIN)
    assert found.mail.message == (
        "let it be\n\nIt was not.\n\nNow it is.\n\nOrigin: vendor, somewhere\nForwarded: no\n"
    )
    assert found.mail.trailer("Origin") == ("vendor, somewhere",)


def test_gits_own_mails_are_left_alone_and_the_order_is_the_series(tmp_path: Path) -> None:
    diff = "---\n x | 1 +\n\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n-- \n2\n"
    mail = HEAD.replace("\nSubject: ", "\nDate: Fri, 13 Feb 2009 23:31:30 +0100\nSubject: ")
    found = read(tmp_path, mail + diff, HEAD + PLAIN, series="1.diff\n0.diff\n")
    assert [len(patch.changes) for patch in found] == [3, 1]
    assert found[1].mail.date == "1234564290 +0100"


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("Just words.\n" + PLAIN, "0.diff:1", "names no author"),
        ("From: Ann <ann@example.org>\n\n" + PLAIN, "0.diff:1", "names no subject"),
        (HEAD, "0.diff:4", "no diff"),
        (
            HEAD + PLAIN.replace("@@ -1,3 +1,3 @@", "@@ -1,9 +1,9 @@"),
            "0.diff:15",
            "hunk is short of 6 old and 6 new",
        ),
        (HEAD + PLAIN.replace("linux/net/x.c\t2", "linux/net/y.c\t2"), "0.diff:7", "differ"),
        (HEAD + PLAIN + "odd words\n", "0.diff:25", "no part of a diff"),
        (HEAD + PLAIN.replace("+++ linux/net/x.c", "+-+"), "0.diff:8", "without a '\\+\\+\\+ '"),
        (HEAD + PLAIN.replace("linux/net/x", "linux/../x"), "0.diff:7", "leaves the tree"),
    ],
)
def test_a_malformed_patch_is_refused_at_its_line(
    tmp_path: Path, text: str, place: str, said: str
) -> None:
    text = text.replace("linux.orig/net/x", "linux.orig/../x") if "/../" in text else text
    with pytest.raises(UsageError, match=said) as caught:
        read(tmp_path, text)
    assert caught.value.where == f"{tmp_path}/{place}"


@pytest.mark.parametrize(
    ("series", "said"),
    [
        ("x.diff -p0\n", "-p0: only -p1"),
        ("../x.diff\n", "leaves the tree"),
        ("x.diff\n", "cannot be read"),
        ("# nothing\n", "no patch"),
    ],
)
def test_a_series_file_that_cannot_be_followed(tmp_path: Path, series: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(tmp_path, series=series)


def test_an_export_of_ours_says_its_base(tmp_path: Path) -> None:
    read(tmp_path, HEAD + PLAIN, series=f"# e on v6.12\n# base-commit: {'b' * 40}\n0.diff\n")
    assert quiltseries.read(tmp_path).base_commit == "b" * 40
