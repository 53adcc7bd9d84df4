# SPDX-License-Identifier: GPL-2.0-only
"""A patch is read strictly: what is not understood is refused with file and line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from toy_kernel import MAIL, ToyKernels, numbered

from workbench import process
from workbench.errors import ExitCode, UsageError
from workbench.filechange import ChangeKind
from workbench.patchfile import PatchFile, parse_patch, read_patch

if TYPE_CHECKING:
    from collections.abc import Callable

DIFF = """\
diff --git a/net/a.c b/net/a.c
index 1111111111111111111111111111111111111111..2222222222222222222222222222222222222222 100644
--- a/net/a.c
+++ b/net/a.c
@@ -1,3 +1,3 @@ int f(void)
 one
-two
+zwei
 three
@@ -10,2 +10,3 @@
 ten
+ten and a half
 eleven
diff --git a/net/old.c b/net/new.c
similarity index 100%
rename from net/old.c
rename to net/new.c
diff --git a/net/none.c b/net/none.c
new file mode 100644
index 0000000000000000000000000000000000000000..e69de29bb2d1d6434b8b29ae775ad8c2e48c5391
diff --git a/tool.sh b/tool.sh
old mode 100644
new mode 100755
diff --git a/net/gone.c b/net/gone.c
deleted file mode 100644
index 3333333333333333333333333333333333333333..0000000000000000000000000000000000000000
--- a/net/gone.c
+++ /dev/null
@@ -1 +0,0 @@
-gone
\\ No newline at end of file
"""
GOOD = MAIL.format(number=1, subject="xfrm: a subject", diff=DIFF)
NEW = """\
diff --git a/{name} b/{name}
new file mode {mode}
index 0000000..1111111
--- /dev/null
+++ b/{name}
@@ -0,0 +1 @@
+{text}
"""


def parse(text: str | bytes) -> PatchFile:
    data = text if isinstance(text, bytes) else text.encode()
    return parse_patch(Path("patches/e/0001-x.patch"), data)


def refusal(text: str | bytes) -> str:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.exit_code is ExitCode.USAGE
    assert caught.value.next_step
    return str(caught.value)


def test_a_patch_is_read_whole() -> None:
    patch = parse(GOOD)
    assert [(each.kind, each.old, each.new) for each in patch.changes] == [
        (ChangeKind.MODIFY, "net/a.c", "net/a.c"),
        (ChangeKind.RENAME, "net/old.c", "net/new.c"),
        (ChangeKind.CREATE, None, "net/none.c"),
        (ChangeKind.MODIFY, "tool.sh", "tool.sh"),
        (ChangeKind.DELETE, "net/gone.c", None),
    ]
    assert patch.changes[0].old_oid == "1" * 40
    assert patch.changes[3].new_mode == "100755"
    assert patch.diff.decode() == DIFF
    hunk = patch.changes[0].hunks[0]
    assert (hunk.line, hunk.before, hunk.after) == (14, b"one\ntwo\nthree\n", b"one\nzwei\nthree\n")
    assert patch.changes[4].hunks[0].before == b"gone"


def test_the_mail_says_who_when_and_why() -> None:
    text = GOOD.replace("Why it is needed.", "Why.\n\nWhat \n\n\n\nmore.").replace(
        "Signed-off-by", "Applied-Upstream: v6.13\nForwarded: no\nSigned-off-by"
    )
    mail = parse(text).mail
    assert (mail.name, mail.email, mail.date) == (
        "Alice Doe",
        "alice@example.org",
        "1234564290 +0100",
    )
    assert mail.subject == "xfrm: a subject"
    assert mail.message.startswith("xfrm: a subject\n\nWhy.\n\nWhat\n\nmore.\n\nApplied-")
    assert mail.trailer("applied-upstream") == ("v6.13",)
    assert [key for key, _ in mail.trailers] == ["Applied-Upstream", "Forwarded", "Signed-off-by"]


def test_headers_may_be_folded_and_encoded() -> None:
    text = GOOD.replace(
        "Subject: [PATCH 1/9] xfrm: a subject",
        "Subject: [PATCH] =?UTF-8?q?xf=C3=A4?=\n =?UTF-8?q?rm?=: a\n  long one",
    )
    text = text.replace("From: Alice Doe", "From: =?UTF-8?q?J=C3=B6rg?= Doe")
    mail = parse(text).mail
    assert (mail.subject, mail.name) == ("xfärm: a long one", "Jörg Doe")


def test_a_note_behind_the_diff_is_passed() -> None:
    noted = parse(GOOD.replace("-- \n", "\nbase-commit: abc123\n-- \n"))
    assert noted.diff == parse(GOOD).diff


def test_what_a_mailer_did_to_blank_context_lines_is_taken() -> None:
    assert parse(GOOD.replace(" one\n", "\n")).changes[0].hunks[0].before.startswith(b"\ntwo")


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (lambda t: t[: t.index("+zwei")], 16, "the file ends inside a hunk (1 old, 2 new"),
        (lambda t: t.replace("-1,3 +1,3", "-1,4 +1,3"), 19, "short of 1 old and 0 new"),
        (lambda t: t.replace("-1,3 +1,3", "-1,2 +1,2"), 18, "more lines than its @@ line"),
        (lambda t: t.replace("-10,2 +10,3", "-10,x +10,3"), 19, "not a hunk header"),
        (lambda t: t.replace("-10,2 +10,3", "-0,2 +0,3"), 10, "not in the order"),
        (lambda t: t.replace("-two\n+zwei", " two"), 14, "changes nothing"),
        (lambda t: t.replace("diff --git a/net/a.c b/net/a.c\n", ""), 11, "without the line"),
        (lambda t: t.replace("--- a/net/a.c\n", ""), 12, "without a '--- '"),
        (lambda t: t.replace("+++ b/net/a.c", "+++ b/net/b.c"), 10, "name other files"),
        (lambda t: t.replace("+++ b/net/a.c\n", ""), 13, "without a '+++ '"),
        (lambda t: t.replace("rename to", "rename too"), 23, "needs two names"),
        (lambda t: t.replace("--- a/net/a.c", "copy to z\n--- a/net/a.c"), 10, "a copy needs two"),
        (lambda t: t.replace("old mode 100644\n", ""), 30, "go together"),
        (lambda t: t.replace("new mode 100755", "new mode 100644"), 30, "and differ"),
        (lambda t: t.replace("new mode 100755", "new mode 120000"), 30, "becomes a link"),
        (lambda t: t.replace("index 111", "index \x1b[2J"), 10, "index \\x1b[2J"),
        (lambda t: t.replace("e69de29b", "aaaaaaaa"), 27, "no hunk for 'net/none.c'"),
        (lambda t: t.replace("index 111", "index x11"), 10, "not a pair of blob ids"),
        (lambda t: t.replace("new mode 100755", "new mode 160000"), 30, "mode '160000'"),
        (lambda t: t.replace("@@ -1 +0,0 @@\n-gone", "@@ -1 +1 @@\n-gone\n+x"), 38, "keeps no"),
        (lambda t: t.replace("similarity index 100%", "GIT binary patch"), 24, "binary"),
        (lambda t: t.replace("ten and", "ten\0and"), 21, "a NUL byte"),
        (lambda t: t.replace("\n", "\r\n"), 2, "CR LF"),
        (lambda t: t[t.index("Why") :], 1, "no mail header"),
        (lambda t: t.replace("Date: Fri", "Date: never "), 3, "is not a mail's date"),
        (lambda t: t.replace("<alice@example.org>\nDate", "alice\nDate"), 2, "is not 'Name"),
        (lambda t: t.replace("Subject:", "Subjekt:"), 1, "Subject: is missing"),
        (lambda t: t.replace("Date:", "Content-Transfer-Encoding: base64\nDate:"), 3, "encoded"),
        (lambda t: t[: t.index("diff --git")], 9, "there is no diff in it"),
        (lambda t: t + t, 43, "a second patch"),
        (lambda t: t.replace("diff --git a/tool", "what\ndiff --git a/tool"), 30, "no part of"),
        (lambda _: "", 1, "no mail header"),
    ],
)  # fmt: skip
def test_a_malformed_patch_is_refused_at_its_line(
    change: Callable[[str], str], line: int, words: str
) -> None:
    message = refusal(change(GOOD))
    assert words in message
    assert message.startswith(f"patches/e/0001-x.patch:{line}:"), message


def test_bytes_that_are_no_text_are_refused() -> None:
    assert "no mail header" in refusal(bytes(range(256)) * 8)
    assert "is not utf-8" in refusal(GOOD.encode().replace(b"Why it", b"Why \xff"))


def test_a_file_need_not_be_utf_8() -> None:
    patch = parse(GOOD.encode().replace(b"zwei", b"zw\xe4i"))
    assert patch.changes[0].hunks[0].after == b"one\nzw\xe4i\nthree\n"


@pytest.mark.parametrize(
    "name",
    [
        "../etc/passwd",
        "net/../../x",
        "/etc/passwd",
        ".git/config",
        "net/.GIT/hooks/x",
        "net/.git::$INDEX_ALLOCATION/hooks/x",
        "net/" + "x" * 256,
        "x/" * 2048 + "x",
        "net//x",
        "./x",
    ],
)
def test_a_name_that_leaves_the_tree_is_refused(name: str) -> None:
    diff = NEW.format(name=name, mode="100644", text="x")
    assert "may only name files inside" in refusal(MAIL.format(number=1, subject="s", diff=diff))
    old = DIFF.replace("net/a.c", name)
    assert "may only name files inside" in refusal(MAIL.format(number=1, subject="s", diff=old))
    renamed = DIFF.replace("net/new.c", name)
    assert "may only name files inside" in refusal(MAIL.format(number=1, subject="s", diff=renamed))


@pytest.mark.parametrize(
    ("target", "taken"),
    [
        ("/etc/passwd", False),
        ("../../etc", False),
        ("..", True),
        ("../../x/..", False),
        ("b.c", True),
    ],
)
def test_a_link_may_not_lead_outside(target: str, taken: bool) -> None:  # noqa: FBT001
    diff = NEW.format(name="net/link", mode="120000", text=target)
    text = MAIL.format(number=1, subject="s", diff=diff + "\\ No newline at end of file\n")
    if taken:
        assert parse(text).changes[0].new_mode == "120000"
    else:
        assert "a symbolic link to" in refusal(text)


def test_a_quoted_name_is_read_as_git_writes_it(tmp_path: Path) -> None:
    toys = ToyKernels(tmp_path)
    before = {'net/ä "x"': b"1\n", "net/with blank": b"1\n"}
    after = dict.fromkeys(before, b"2\n")
    patch = read_patch(toys.patch("e/0001-x.patch", {**before}, {**after}))
    assert sorted(patch.touched) == sorted(before)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_patch(tmp_path / "0001-none.patch")


mutations = some.lists(
    some.tuples(
        some.sampled_from(["cut", "drop", "double", "swap", "byte", "number"]),
        some.integers(0, 10_000),
        some.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


def mutated(data: bytes, steps: list[tuple[str, int, bytes]]) -> bytes:
    """Damage a patch as editors, mailers and disks do."""
    for what, number, junk in steps:
        lines = data.splitlines(keepends=True) or [b""]
        at = number % len(lines)
        match what:
            case "cut":
                lines = [data[: number % (len(data) + 1)]]
            case "drop":
                del lines[at]
            case "double":
                lines[at:at] = [lines[at]]
            case "swap":
                lines[at], lines[-1] = lines[-1], lines[at]
            case "number":
                lines[at] = lines[at].replace(b"1", b"%d" % number)
            case _:
                place = number % (len(data) + 1)
                lines = [data[:place], junk, data[place:]]
        data = b"".join(lines)
    return data


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutations)
def test_a_damaged_patch_is_read_or_refused_and_nothing_else(
    steps: list[tuple[str, int, bytes]],
) -> None:
    data = mutated(GOOD.encode(), steps)
    try:
        patch = parse(data)
    except UsageError:
        return
    assert patch.changes
    assert patch.diff in data


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutations)
def test_what_is_taken_git_takes_too(steps: list[tuple[str, int, bytes]]) -> None:
    try:
        patch = parse(mutated(GOOD.encode(), steps))
    except UsageError:
        return
    done = process.run(["git", "apply", "--numstat", "-z"], stdin=patch.diff, check=False)
    assert done.returncode == 0, done.stderr
    named = {name for field in done.stdout.split("\0") for name in field.split("\t")}
    assert set(patch.touched) - {"net/old.c"} <= named


def test_the_reader_is_linear() -> None:
    line = "+x\n" * 200_000
    diff = NEW.format(name="net/big.c", mode="100644", text="x").replace("+1 @@", "+1,200001 @@")
    patch = parse(MAIL.format(number=1, subject="s", diff=diff + line))
    assert len(patch.changes[0].hunks[0].body) == 200_001


@pytest.mark.parametrize("subject", ["plain", "[RFC] xfrm: [x] a b", "Re: [PATCH] x", "ä ö: ü"])
def test_the_commit_is_the_one_git_am_makes(tmp_path: Path, subject: str) -> None:
    toys = ToyKernels(tmp_path)
    before, after = {"a": b"".join(numbered("a", 9))}, {"a": b"x\n"}
    kernel = toys.kernel("v5.10.262", {**before})
    path = toys.patch("e/0001-x.patch", {**before}, {**after})
    body = "From: Bob <bob@example.org>\n\n  Indented \n\n\n\nmore\n\nLink: x\nCc: y <z@w>"
    text = path.read_text().replace("9] x\n", f"9] {subject}\n").replace("Why it is needed.", body)
    path.write_text(text)
    work = toys.work_tree(kernel)
    assert work.am(path)
    mail = read_patch(path).mail
    said = work.git("log", "-1", "--date=raw", "--format=%an%n%ae%n%ad%n%B")
    assert said == f"{mail.name}\n{mail.email}\n{mail.date}\n{mail.message}".strip()


@pytest.mark.parametrize(
    "sender",
    ["Jörg", "=?utf-8?q?Doe=2C_J=C3=B6hn?=", '"Doe, John"', "=?utf-8?q?D=C3=B6?= =?utf-8?q?_E?="],
)
def test_the_author_is_the_one_git_am_takes(tmp_path: Path, sender: str) -> None:
    toys = ToyKernels(tmp_path)
    kernel = toys.kernel("v5.10.262", {"a": b"x\n"})
    path = toys.patch("e/0001-x.patch", {"a": b"x\n"}, {"a": b"y\n"})
    path.write_text(path.read_text().replace("From: Alice Doe", f"From: {sender}"))
    work = toys.work_tree(kernel)
    assert work.am(path)
    mail = read_patch(path).mail
    assert work.git("log", "-1", "--format=%an <%ae>") == f"{mail.name} <{mail.email}>"
